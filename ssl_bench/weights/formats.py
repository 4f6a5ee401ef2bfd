"""Who saved a checkpoint: how each is recognized, which networks it holds and how its authors evaluate it.

One entry per format; the first whose signature is found counts. `holds` are patterns of tensor names (sections and
wrappers' prefixes included, such as DDP's `module.`, taken out) and of top-level keys. `networks` are the candidates,
the one that the paper evaluates first. Prefixes and preprocessing were read in the authors' code at the commit named.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from typing import Literal


@dataclass(frozen=True)
class Format:
    """One kind of checkpoint."""

    name: str
    holds: tuple[str, ...]
    """Patterns, each of which is found in some name."""
    networks: tuple[tuple[str, str], ...] = ()
    """(name, pattern at the end of the prefix of its tensors); the first is the default."""
    method: str = ""
    """Its registered name where sslbench has it, else the paper's; "" where a format says nothing of the method."""
    source: str = ""
    interpolation: Literal["bicubic", "bilinear"] = "bilinear"
    """Of the authors' evaluation; all resize to 256/224 of the crop. torchvision's Resize is bilinear by default."""
    positions: Literal["dino", "mae", "timm"] = "timm"
    """How the authors resample positions."""
    heads: Mapping[int, int] = field(default_factory=dict)
    """Attention heads by width where they differ from one for every 64."""
    crop_px: int | None = None
    """Of the authors' evaluation where it is not the size of the positions."""


_SWAV = "https://github.com/facebookresearch/swav/blob/06b1b7c/src/resnet50.py"

FORMATS = (
    Format(
        "iBOT, full checkpoint", (r"^student\.", r"^teacher\.", r"masked_embed|^ibot_loss\b"),
        (("teacher", r"teacher\.backbone\."), ("student", r"student\.backbone\.")), "ibot",
        "https://github.com/bytedance/ibot/blob/da316d8/main_ibot.py", "bicubic", "dino",
    ),
    Format(
        "DINOv2, training checkpoint", (r"teacher\.backbone\.", r"teacher\.dino_head\."),
        (("teacher", r"teacher\.backbone\."), ("student", r"student\.backbone\.")), "dinov2",
        "https://github.com/facebookresearch/dinov2/blob/b8931f7/dinov2/train/ssl_meta_arch.py", "bicubic", "dino",
        crop_px=224,
    ),
    Format(
        "official DINO, full checkpoint", (r"^student\.backbone\.", r"^teacher\.backbone\."),
        (("teacher", r"teacher\.backbone\."), ("student", r"student\.backbone\.")), "dino",
        "https://github.com/facebookresearch/dino/blob/7c446df/main_dino.py", "bicubic", "dino",
    ),
    Format(
        "official DINO, full checkpoint of a network without heads", (r"^student\.", r"^teacher\.", r"^dino_loss\."),
        (("teacher", r"teacher\."), ("student", r"student\.")), "dino",
        "https://github.com/facebookresearch/dino/blob/7c446df/main_dino.py", "bicubic", "dino",
    ),
    Format(
        "MoCo v3", (r"(^|\.)base_encoder\.", r"(^|\.)momentum_encoder\."),
        (("base_encoder", r"base_encoder\."), ("momentum_encoder", r"momentum_encoder\.")), "mocov3",
        "https://github.com/facebookresearch/moco-v3/blob/c349e6e/main_lincls.py", heads={384: 12, 768: 12},
    ),
    Format(
        "MoCo v1", (r"(^|\.)encoder_q\.", r"(^|\.)encoder_q\.fc\.weight$"),
        (("encoder_q", r"encoder_q\."), ("encoder_k", r"encoder_k\.")), "mocov1",
        "https://github.com/facebookresearch/moco/blob/78b69cafae80bc74cd1a89ac3fb365dc20d157d3/main_lincls.py",
    ),
    Format(
        "MoCo v2", (r"(^|\.)encoder_q\.",),
        (("encoder_q", r"encoder_q\."), ("encoder_k", r"encoder_k\.")), "mocov2",
        "https://github.com/facebookresearch/moco/blob/78b69cafae80bc74cd1a89ac3fb365dc20d157d3/main_lincls.py",
    ),
    Format(
        "SimSiam", (r"(^|\.)encoder\.(conv1|0)\.", r"(^|\.)predictor\.\d", r"(^|\.)encoder\.fc\."),
        (("encoder", r"encoder\."),), "simsiam", "https://github.com/facebookresearch/simsiam/blob/a7bc177/main_lincls.py",
    ),
    Format(
        "DeepCluster v2", (r"(^|\.)projection_head\.", r"(^|\.)prototypes\.prototypes\d"), (("network", ""),),
        "deepcluster_v2", _SWAV,
    ),
    Format("SwAV", (r"(^|\.)projection_head\.", r"(^|\.)prototypes\.weight"), (("network", ""),), "swav", _SWAV),
    Format(
        "Barlow Twins", (r"(^|\.)backbone\.", r"(^|\.)projector\.", r"(^|\.)bn\.running_mean"),
        (("backbone", r"backbone\."),), "barlow_twins",
        "https://github.com/facebookresearch/barlowtwins/blob/8e8d284/main.py",
    ),
    Format(
        "VICReg", (r"^model\.backbone\.", r"^model\.projector\."), (("backbone", r"backbone\."),), "vicreg",
        "https://github.com/facebookresearch/vicreg/blob/4e12602/main_vicreg.py",
    ),
    Format(
        "VISSL", (r"^classy_state_dict\.",),
        (("teacher", r"momentum_teacher\.trunk\.(\w+\.)*"), ("trunk", r"base_model\.model\.trunk\.(\w+\.)*")),
        source="https://github.com/facebookresearch/vissl/blob/main/vissl/utils/checkpoint.py",
    ),
    Format(
        "MAE, full checkpoint", (r"(^|\.)(?<!decoder\.)decoder_pred\.", r"(^|\.)patch_embed\.proj\."),
        (("encoder", ""),), "mae",
        "https://github.com/facebookresearch/mae/blob/efb2a80/models_mae.py", "bicubic", "mae",
    ),
    Format(
        "mmselfsup or mmpretrain", (r"^meta$", r"^state_dict\.backbone\."), (("backbone", r"backbone\."),),
        source="https://github.com/open-mmlab/mmpretrain/blob/main/mmpretrain/models/utils/embed.py", positions="mae",
    ),
    Format(
        "MAE, PyTorch Lightning (solo-learn, lightly)", (r"^pytorch-lightning_version$", r"\.decoder\.decoder_pred\."),
        (("backbone", r"(^|\.)backbone\.(vit\.)?"),), "mae",
        "https://github.com/vturrisi/solo-learn/blob/9187ea3/solo/methods/mae.py", positions="mae",
    ),
    Format(
        "PyTorch Lightning (solo-learn, lightly, stable-pretraining and others)", (r"^pytorch-lightning_version$",),
        (
            ("backbone", r"(^|\.)backbone\.(vit\.)?"),
            ("teacher", r"(^|\.)teacher(_backbone)?\.(backbone\.)?(vit\.)?"),
        ),
        source="https://lightning.ai/docs/pytorch/stable/common/checkpointing_basic.html",
    ),
    Format(
        "DINOv3, backbone", (r"(^|\.)storage_tokens$",), method="dinov3",
        source="https://github.com/facebookresearch/dinov3", interpolation="bicubic", crop_px=224,
    ),
    Format(
        "DINOv2 with registers, backbone",
        (r"(^|\.)mask_token$", r"(^|\.)blocks\.(\d+\.)+ls1\.gamma$", r"(^|\.)register_tokens$"), method="dinov2",
        source="https://github.com/facebookresearch/dinov2/blob/b8931f7/dinov2/hub/backbones.py",
        interpolation="bicubic", crop_px=224,
    ),
    Format(
        "DINOv2, backbone", (r"(^|\.)mask_token$", r"(^|\.)blocks\.(\d+\.)+ls1\.gamma$"), method="dinov2",
        source="https://github.com/facebookresearch/dinov2/blob/b8931f7/dinov2/hub/backbones.py",
        interpolation="bicubic", positions="dino", crop_px=224,
    ),
)  # fmt: skip

TRANSFORMERS = Format("transformers", (), source="https://github.com/huggingface/transformers", positions="mae")
TIMM_FOLDER = Format("timm", (), source="https://github.com/huggingface/pytorch-image-models")
OWN_RUN = Format("sslbench", (), source="sslbench run")
ONNX = Format("ONNX", (), source="https://onnx.ai")
EXPORTED = Format("sslbench export", (), source="sslbench export")
"""With the method and network that the file's `Exported` names."""
PLAIN = Format("state dict", (), interpolation="bicubic")

PREFERRED = (
    "backbone", "teacher", "teacher_backbone", "encoder_q", "online_network", "online_encoder", "encoder", "model",
    "network",
)  # fmt: skip
"""Which of several networks is meant where a format does not say, by the last word of its prefix, then the first."""

METHODS_OF_MODEL_TYPES = {
    "dinov2": "dinov2", "dinov2_with_registers": "dinov2", "dinov3_vit": "dinov3", "dinov3_convnext": "dinov3",
    "vit_mae": "mae",
}  # fmt: skip
"""What trained the networks of a model type of transformers, where that says it."""
_WITHOUT_MARKS = (
    Format(
        "DeiT",
        (),
        source="https://github.com/facebookresearch/deit/blob/7e160fe/main.py",
        interpolation="bicubic",
        positions="mae",
    ),
    Format("torchvision", (), source="https://github.com/pytorch/vision/blob/main/references/classification"),
)
EVALUATED_AS = {
    **{form.name.lower(): form for form in _WITHOUT_MARKS},
    **{form.method: replace(form, name=form.name.partition(",")[0]) for form in reversed(FORMATS) if form.method},
}
"""By method or library: how its authors evaluate, for a published file that holds nothing but tensors."""
