"""Names of timm's networks that tensors of certain shapes may belong to, so that not all thousand are built."""

from __future__ import annotations

from collections.abc import Mapping
from fnmatch import fnmatch

import timm

SIZE_WORDS = {
    192: ("tiny",), 256: ("wee",), 320: ("little",), 384: ("small",), 512: ("medium",), 640: ("betwixt",),
    768: ("base",), 1024: ("large",), 1152: ("so400m",), 1280: ("huge",), 1408: ("giant",), 1536: ("giant",),
    1664: ("gigantic",), 4096: ("7b",),
}  # fmt: skip
"""What a ViT of a width is called in timm."""
XCIT_SIZES = {128: "nano", 192: "tiny", 384: "small", 512: "medium", 768: "large"}
"""What an XCiT of a width is called in timm."""
RESIDUAL = (
    "resnet18", "resnet34", "resnet50", "resnet101", "resnet152", "wide_resnet50_2", "wide_resnet101_2",
    "resnext50_32x4d", "resnext101_32x8d",
)  # fmt: skip


def names_like(family: str, shapes: Mapping[str, tuple[int, ...]]) -> list[str]:
    """Names of `timm.list_models()` of a family whose size may fit, the plainest first."""
    if family == "resnet":
        return list(RESIDUAL)
    patterns = {
        "vit": ("vit_*", "deit*"),
        "dinov3": ("vit_*dinov3*",),
        "beit": ("beit*",),
        "convnext": ("convnext*",),
        "swin": ("swin_*",),
        "xcit": ("xcit_*_224",),
        "efficientnet": ("tf_efficientnet_lite*", "efficientnet_lite*", "tf_efficientnet_b?", "efficientnet_b?"),
    }.get(family, ())
    names = [name for pattern in patterns for name in timm.list_models(pattern)]
    patch = shapes.get("patch_embed.proj.weight", ())
    if family in ("vit", "beit", "dinov3") and len(patch) == 4:
        words = SIZE_WORDS.get(patch[0], ())
        names = [name for name in names if f"patch{patch[-1]}_" in f"{name}_"]
        names = [name for name in names if any(word in name for word in words)]
        names = [name for name in names if ("reg" in name) == ("register_tokens" in shapes or "reg_token" in shapes)
                 or family == "dinov3"]  # fmt: skip
    if family == "xcit" and "cls_token" in shapes:
        size = XCIT_SIZES.get(shapes["cls_token"][-1], "")
        depth = len({name.split(".")[1] for name in shapes if name.startswith("blocks.")})
        patch_px = 16 if "patch_embed.proj.6.0.weight" in shapes else 8
        return [name for name in names if name == f"xcit_{size}_{depth}_p{patch_px}_224"]
    if family == "efficientnet":
        return [name for pattern in patterns for name in names if fnmatch(name, pattern)]
    return sorted(names, key=lambda name: (name.count("_"), len(name), name))
