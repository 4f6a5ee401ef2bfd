"""How libraries name the tensors of one architecture, and the names that timm gives them, which our backbones use.

A layout is recognized by names that only it has (`anchors`), below any prefix. `renames` are tried in order and the
first that matches a whole name counts; query, key and value matrices that stand apart are then joined.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass

import torch
from torch import Tensor

from ssl_bench.weights import library_names
from ssl_bench.weights.library_names import Renames

Tensors = Mapping[str, Tensor]


@dataclass(frozen=True)
class Layout:
    """One library's names of one architecture's tensors."""

    name: str
    anchors: tuple[str, ...]
    """Names that are all there; the first is searched for below any prefix."""
    renames: Renames = ()
    family: str = "vit"
    """What to look for among timm's names: "vit", "resnet", "convnext", "swin", "beit", "dinov3", "xcit", ""."""


LAYOUTS = (
    Layout("DINOv3's ViT", ("storage_tokens", "blocks.0.norm1.weight"), library_names.DINOV3, "dinov3"),
    Layout("timm's ViT", ("patch_embed.proj.weight", "blocks.0.norm1.weight"), library_names.VIT),
    Layout("timm's ViT in chunks", ("patch_embed.proj.weight", "blocks.0.0.norm1.weight"), library_names.VIT),
    Layout("torchvision's ResNet", ("layer1.0.conv1.weight", "conv1.weight"), family="resnet"),
    Layout(
        "torchvision's ResNet in a Sequential", ("7.0.conv1.weight", "0.weight"), library_names.SEQUENTIAL, "resnet",
    ),
    Layout(
        "torchvision's ResNet in a Sequential, without max-pool",
        ("3.0.conv1.weight", "0.weight"), library_names.SEQUENTIAL_WITHOUT_POOL, "resnet",
    ),
    Layout(
        "transformers' BEiT",
        ("embeddings.patch_embeddings.projection.weight", "encoder.layer.0.lambda_1"), library_names.HF_BEIT, "beit",
    ),
    Layout(
        "transformers' ViT",
        ("embeddings.patch_embeddings.projection.weight", "encoder.layer.0.attention.attention.query.weight"),
        library_names.HF_BLOCK,
    ),
    Layout(
        "transformers' DINOv3",
        ("embeddings.patch_embeddings.weight", "layer.0.attention.q_proj.weight"), library_names.HF_DINOV3, "dinov3",
    ),
    Layout("transformers' ResNet", ("embedder.embedder.convolution.weight",), library_names.HF_RESNET, "resnet"),
    Layout(
        "transformers' ConvNeXt",
        ("embeddings.patch_embeddings.weight", "encoder.stages.0.layers.0.dwconv.weight"), library_names.HF_CONVNEXT,
        "convnext",
    ),
    Layout(
        "transformers' Swin",
        ("embeddings.patch_embeddings.projection.weight", "encoder.layers.0.blocks.0.attention.self.query.weight"),
        library_names.HF_SWIN, "swin",
    ),
    Layout("torchvision's ViT", ("conv_proj.weight", "class_token"), library_names.TORCHVISION_VIT),
    Layout("mmpretrain's ViT", ("patch_embed.projection.weight", "layers.0.ln1.weight"), library_names.MM_VIT),
    Layout(
        "the authors' ConvNeXt", ("downsample_layers.0.0.weight", "stages.0.0.dwconv.weight"),
        library_names.FB_CONVNEXT, "convnext",
    ),
    Layout(
        "the authors' XCiT", ("pos_embeder.token_projection.weight", "cls_attn_blocks.0.attn.qkv.weight"),
        library_names.XCIT, "xcit",
    ),
    Layout("timm's ConvNeXt", ("stem.0.weight", "stages.0.blocks.0.conv_dw.weight"), family="convnext"),
    Layout("Swin", ("layers.0.blocks.0.attn.qkv.weight", "patch_embed.proj.weight"), family="swin"),
    Layout("timm's EfficientNet", ("conv_stem.weight", "blocks.0.0.conv_dw.weight"), family="efficientnet"),
)  # fmt: skip
"""The first whose anchors are all there counts."""

HEADS = re.compile(
    r"(?!head\.norm\.)(head|heads|fc|classifier|classification_head|projector|projection_head|projection|prototypes|predictor|"
    r"pre_logits|head_dist|decoder\w*|mask_token|masked_embed|pooler|last_layer\w*|queue\w*|lm_head|local_cls_norm|"
    r"dino_head|ibot_head|projectors)(\..+)?"
)
"""Names of what comes after the features, or is used in pre-training alone: left out and named, never loaded.

(timm's ConvNeXt has its last norm, which features pass, at head.norm.)"""
COMPUTED = re.compile(
    r"(.*\.)?(relative_position_index|attn_mask|relative_coords_table|rope_embed\.periods|bias_mask|"
    r"num_batches_tracked|inv_freq)"
)
"""Names of buffers that are computed from the architecture, or unused in evaluation."""


def to_timm(layout: Layout, tensors: Tensors) -> dict[str, Tensor]:
    """The tensors under timm's names; what no rule names keeps its own."""
    renamed: dict[str, Tensor] = {}
    for name, tensor in tensors.items():
        new = next((re.sub(old, new, name) for old, new in layout.renames if re.fullmatch(old, name)), name)
        if new in renamed:
            new = name  # two names for one: neither may win silently
        renamed[new] = tensor
    if layout.name == "DINOv3's ViT":
        renamed = _split_bias(renamed)
    if layout.family == "dinov3":
        renamed = _with_gates(renamed)
    if layout.family == "xcit":
        renamed = _split_class_attention(renamed)
    return _join_query_key_value(_shift_downsampling(layout, renamed))


def _join_query_key_value(tensors: Tensors) -> dict[str, Tensor]:
    """`attn.query|key|value.weight` become `attn.qkv.weight`; lone biases become `attn.q_bias` and `attn.v_bias`."""
    joined = dict(tensors)
    for name in tensors:
        found = re.fullmatch(r"(.*\battn\.)query(?:\.(weight|bias))", name)
        if found:
            parts = [f"{found[1]}{part}.{found[2]}" for part in ("query", "key", "value")]
            if all(part in tensors and tensors[part].shape == tensors[name].shape for part in parts):
                joined[f"{found[1]}qkv.{found[2]}"] = torch.cat([joined.pop(part) for part in parts])
        lone = re.fullmatch(r"(.*\battn\.)(query|value)_bias", name)
        if lone:
            joined[f"{lone[1]}{lone[2][0]}_bias"] = joined.pop(name)
    return joined


def _split_bias(tensors: Tensors) -> dict[str, Tensor]:
    """DINOv3's joined bias, whose middle third (the keys') is masked to zero, as timm's q_bias and v_bias."""
    split: dict[str, Tensor] = {}
    for name, tensor in tensors.items():
        if name.endswith("attn.qkv.bias") and tensor.ndim == 1 and len(tensor) % 3 == 0:
            query, _, value = tensor.chunk(3)
            stem = name.removesuffix("qkv.bias")
            split |= {f"{stem}q_bias": query, f"{stem}v_bias": value}
        else:
            split[name] = tensor
    return split


def _split_class_attention(tensors: Tensors) -> dict[str, Tensor]:
    """XCiT's joined query, key and value of the blocks of class attention, which timm has apart."""
    split: dict[str, Tensor] = {}
    for name, tensor in tensors.items():
        found = re.fullmatch(r"(cls_attn_blocks\.\d+\.attn\.)qkv\.(weight|bias)", name)
        if found and len(tensor) % 3 == 0:
            split |= {f"{found[1]}{part}.{found[2]}": one for part, one in zip("qkv", tensor.chunk(3), strict=True)}
        else:
            split[name] = tensor
    return split


def _with_gates(tensors: Tensors) -> dict[str, Tensor]:
    """Where there is a gate, what transformers calls up_proj is timm's `fc1_x`."""
    if not any(".mlp.fc1_g." in name for name in tensors):
        return dict(tensors)
    return {name.replace(".mlp.fc1.", ".mlp.fc1_x."): tensor for name, tensor in tensors.items()}


def _shift_downsampling(layout: Layout, tensors: Tensors) -> dict[str, Tensor]:
    """Swin's authors and transformers merge patches at the end of a stage, timm at the start of the next."""
    if layout.family != "swin" or not any(name.startswith("layers.0.downsample.") for name in tensors):
        return dict(tensors)
    shifted = {}
    for name, tensor in tensors.items():
        found = re.fullmatch(r"layers\.(\d+)\.downsample\.(.+)", name)
        shifted[f"layers.{int(found[1]) + 1}.downsample.{found[2]}" if found else name] = tensor
    return shifted
