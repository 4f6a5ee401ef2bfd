"""How libraries name the tensors of one architecture, and the names that timm gives them, which our backbones use.

A layout is recognized by names that only it has (`anchors`), below any prefix. `renames` are tried in order and the
first that matches a whole name counts; query, key and value matrices that stand apart are then joined.

Sources: timm 1.0 `checkpoint_filter_fn` of each architecture; transformers 5 `modeling_*.py`; torchvision
`vision_transformer.py`; mmpretrain `vision_transformer.py`; facebookresearch/dinov2, dinov3, ConvNeXt;
microsoft/Swin-Transformer. A test for each compares features with the library's own forward pass.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass

import torch
from torch import Tensor

Tensors = Mapping[str, Tensor]
Renames = tuple[tuple[str, str], ...]


@dataclass(frozen=True)
class Layout:
    """One library's names of one architecture's tensors."""

    name: str
    anchors: tuple[str, ...]
    """Names that are all there; the first is searched for below any prefix."""
    renames: Renames = ()
    family: str = "vit"
    """What to look for among timm's names: "vit", "resnet", "convnext", "swin", "beit", "dinov3", ""."""


_HF_BLOCK: Renames = (
    (r"encoder\.layer\.(\d+)\.attention\.attention\.(query|key|value)\.(weight|bias)", r"blocks.\1.attn.\2.\3"),
    (r"encoder\.layer\.(\d+)\.attention\.output\.dense\.(.+)", r"blocks.\1.attn.proj.\2"),
    (r"encoder\.layer\.(\d+)\.(?:layernorm_before|norm1)\.(.+)", r"blocks.\1.norm1.\2"),
    (r"encoder\.layer\.(\d+)\.(?:layernorm_after|norm2)\.(.+)", r"blocks.\1.norm2.\2"),
    (r"encoder\.layer\.(\d+)\.(?:intermediate\.dense|mlp\.fc1|mlp\.weights_in)\.(.+)", r"blocks.\1.mlp.fc1.\2"),
    (r"encoder\.layer\.(\d+)\.(?:output\.dense|mlp\.fc2|mlp\.weights_out)\.(.+)", r"blocks.\1.mlp.fc2.\2"),
    (r"encoder\.layer\.(\d+)\.layer_scale([12])\.lambda1", r"blocks.\1.ls\2.gamma"),
    (r"embeddings\.cls_token", "cls_token"),
    (r"embeddings\.mask_token", "mask_token"),
    (r"embeddings\.register_tokens", "register_tokens"),
    (r"embeddings\.position_embeddings", "pos_embed"),
    (r"embeddings\.patch_embeddings\.projection\.(.+)", r"patch_embed.proj.\1"),
    (r"layernorm\.(.+)", r"norm.\1"),
)
_HF_BEIT: Renames = (
    (r"encoder\.layer\.(\d+)\.attention\.attention\.(query|value)\.bias", r"blocks.\1.attn.\2_bias"),
    (r"encoder\.layer\.(\d+)\.attention\.attention\.relative_position_bias\.(.+)", r"blocks.\1.attn.\2"),
    (r"encoder\.layer\.(\d+)\.lambda_([12])", r"blocks.\1.gamma_\2"),
    (r"pooler\.layernorm\.(.+)", r"fc_norm.\1"),
    *_HF_BLOCK,
)
_HF_DINOV3: Renames = (
    (r"embeddings\.cls_token", "cls_token"),
    (r"embeddings\.mask_token", "mask_token"),
    (r"embeddings\.register_tokens", "reg_token"),
    (r"embeddings\.patch_embeddings\.(.+)", r"patch_embed.proj.\1"),
    (r"layer\.(\d+)\.attention\.q_proj\.weight", r"blocks.\1.attn.query.weight"),
    (r"layer\.(\d+)\.attention\.k_proj\.weight", r"blocks.\1.attn.key.weight"),
    (r"layer\.(\d+)\.attention\.v_proj\.weight", r"blocks.\1.attn.value.weight"),
    (r"layer\.(\d+)\.attention\.q_proj\.bias", r"blocks.\1.attn.query_bias"),
    (r"layer\.(\d+)\.attention\.v_proj\.bias", r"blocks.\1.attn.value_bias"),
    (r"layer\.(\d+)\.attention\.o_proj\.(.+)", r"blocks.\1.attn.proj.\2"),
    (r"layer\.(\d+)\.layer_scale([12])\.lambda1", r"blocks.\1.gamma_\2"),
    (r"layer\.(\d+)\.mlp\.gate_proj\.(.+)", r"blocks.\1.mlp.fc1_g.\2"),
    (r"layer\.(\d+)\.mlp\.up_proj\.(.+)", r"blocks.\1.mlp.fc1.\2"),
    (r"layer\.(\d+)\.mlp\.down_proj\.(.+)", r"blocks.\1.mlp.fc2.\2"),
    (r"layer\.(\d+)\.(norm[12]\..+)", r"blocks.\1.\2"),
)
_HF_RESNET: Renames = (
    *(
        (
            rf"encoder\.stages\.{stage - 1}\.layers\.(\d+)\.layer\.{k - 1}\.{old}\.(.+)",
            rf"layer{stage}.\1.{short}{k}.\2",
        )
        for stage in (1, 2, 3, 4)
        for k in (1, 2, 3)
        for old, short in (("convolution", "conv"), ("normalization", "bn"))
    ),
    *(
        (rf"encoder\.stages\.{stage - 1}\.layers\.(\d+)\.shortcut\.{old}\.(.+)", rf"layer{stage}.\1.downsample.{k}.\2")
        for stage in (1, 2, 3, 4)
        for k, old in enumerate(("convolution", "normalization"))
    ),
    (r"embedder\.embedder\.convolution\.(.+)", r"conv1.\1"),
    (r"embedder\.embedder\.normalization\.(.+)", r"bn1.\1"),
)
_HF_CONVNEXT: Renames = (
    (r"embeddings\.patch_embeddings\.(.+)", r"stem.0.\1"),
    (r"embeddings\.layernorm\.(.+)", r"stem.1.\1"),
    (r"encoder\.stages\.(\d+)\.downsampling_layer\.(\d)\.(.+)", r"stages.\1.downsample.\2.\3"),
    (r"encoder\.stages\.(\d+)\.layers\.(\d+)\.layer_scale_parameter", r"stages.\1.blocks.\2.gamma"),
    (r"encoder\.stages\.(\d+)\.layers\.(\d+)\.dwconv\.(.+)", r"stages.\1.blocks.\2.conv_dw.\3"),
    (r"encoder\.stages\.(\d+)\.layers\.(\d+)\.layernorm\.(.+)", r"stages.\1.blocks.\2.norm.\3"),
    (r"encoder\.stages\.(\d+)\.layers\.(\d+)\.pwconv([12])\.(.+)", r"stages.\1.blocks.\2.mlp.fc\3.\4"),
    (r"layernorm\.(.+)", r"head.norm.\1"),
)
_FB_CONVNEXT: Renames = (
    (r"downsample_layers\.0\.(.+)", r"stem.\1"),
    (r"downsample_layers\.(\d+)\.(.+)", r"stages.\1.downsample.\2"),
    (r"stages\.(\d+)\.(\d+)\.dwconv\.(.+)", r"stages.\1.blocks.\2.conv_dw.\3"),
    (r"stages\.(\d+)\.(\d+)\.pwconv([12])\.(.+)", r"stages.\1.blocks.\2.mlp.fc\3.\4"),
    (r"stages\.(\d+)\.(\d+)\.((?:norm|gamma).*)", r"stages.\1.blocks.\2.\3"),
    (r"norm\.(.+)", r"head.norm.\1"),
)
_HF_SWIN: Renames = (
    (r"embeddings\.patch_embeddings\.projection\.(.+)", r"patch_embed.proj.\1"),
    (r"embeddings\.norm\.(.+)", r"patch_embed.norm.\1"),
    (r"encoder\.layers\.(\d+)\.blocks\.(\d+)\.attention\.self\.(query|key|value)\.(.+)",
     r"layers.\1.blocks.\2.attn.\3.\4"),
    (r"encoder\.layers\.(\d+)\.blocks\.(\d+)\.attention\.self\.(relative_\w+)", r"layers.\1.blocks.\2.attn.\3"),
    (r"encoder\.layers\.(\d+)\.blocks\.(\d+)\.attention\.output\.dense\.(.+)", r"layers.\1.blocks.\2.attn.proj.\3"),
    (r"encoder\.layers\.(\d+)\.blocks\.(\d+)\.layernorm_before\.(.+)", r"layers.\1.blocks.\2.norm1.\3"),
    (r"encoder\.layers\.(\d+)\.blocks\.(\d+)\.layernorm_after\.(.+)", r"layers.\1.blocks.\2.norm2.\3"),
    (r"encoder\.layers\.(\d+)\.blocks\.(\d+)\.intermediate\.dense\.(.+)", r"layers.\1.blocks.\2.mlp.fc1.\3"),
    (r"encoder\.layers\.(\d+)\.blocks\.(\d+)\.output\.dense\.(.+)", r"layers.\1.blocks.\2.mlp.fc2.\3"),
    (r"encoder\.layers\.(\d+)\.downsample\.(.+)", r"layers.\1.downsample.\2"),
    (r"layernorm\.(.+)", r"norm.\1"),
)  # fmt: skip
_TORCHVISION_VIT: Renames = (
    (r"class_token", "cls_token"),
    (r"conv_proj\.(.+)", r"patch_embed.proj.\1"),
    (r"encoder\.pos_embedding", "pos_embed"),
    (r"encoder\.layers\.encoder_layer_(\d+)\.ln_([12])\.(.+)", r"blocks.\1.norm\2.\3"),
    (r"encoder\.layers\.encoder_layer_(\d+)\.self_attention\.in_proj_(.+)", r"blocks.\1.attn.qkv.\2"),
    (r"encoder\.layers\.encoder_layer_(\d+)\.self_attention\.out_proj\.(.+)", r"blocks.\1.attn.proj.\2"),
    (r"encoder\.layers\.encoder_layer_(\d+)\.mlp\.(?:linear_1|0)\.(.+)", r"blocks.\1.mlp.fc1.\2"),
    (r"encoder\.layers\.encoder_layer_(\d+)\.mlp\.(?:linear_2|3)\.(.+)", r"blocks.\1.mlp.fc2.\2"),
    (r"encoder\.ln\.(.+)", r"norm.\1"),
)
_MM_VIT: Renames = (
    (r"patch_embed\.projection\.(.+)", r"patch_embed.proj.\1"),
    (r"layers\.(\d+)\.ln([12])\.(.+)", r"blocks.\1.norm\2.\3"),
    (r"layers\.(\d+)\.attn\.(.+)", r"blocks.\1.attn.\2"),
    (r"layers\.(\d+)\.ffn\.layers\.0\.0\.(.+)", r"blocks.\1.mlp.fc1.\2"),
    (r"layers\.(\d+)\.ffn\.layers\.1\.(.+)", r"blocks.\1.mlp.fc2.\2"),
    (r"ln1\.(.+)", r"norm.\1"),
)
_DINOV3: Renames = (
    (r"storage_tokens", "reg_token"),
    (r"blocks\.(\d+)\.ls([12])\.gamma", r"blocks.\1.gamma_\2"),
    (r"blocks\.(\d+)\.mlp\.w1\.(.+)", r"blocks.\1.mlp.fc1_g.\2"),
    (r"blocks\.(\d+)\.mlp\.w2\.(.+)", r"blocks.\1.mlp.fc1_x.\2"),
    (r"blocks\.(\d+)\.mlp\.w3\.(.+)", r"blocks.\1.mlp.fc2.\2"),
)
_VIT: Renames = (
    (r"blocks\.\d+\.(\d+)\.(.+)", r"blocks.\1.\2"),  # DINOv2 trains with blocks in chunks; the second index counts
    (r"blocks\.(\d+)\.mlp\.w12\.(.+)", r"blocks.\1.mlp.fc1.\2"),
    (r"blocks\.(\d+)\.mlp\.w3\.(.+)", r"blocks.\1.mlp.fc2.\2"),
)
_SEQUENTIAL: Renames = (
    (r"0\.(.+)", r"conv1.\1"),
    (r"1\.(.+)", r"bn1.\1"),
    *((rf"{index}\.(.+)", rf"layer{index - 3}.\1") for index in (4, 5, 6, 7)),
)
_SEQUENTIAL_WITHOUT_POOL: Renames = (
    (r"0\.(.+)", r"conv1.\1"),
    (r"1\.(.+)", r"bn1.\1"),
    *((rf"{index}\.(.+)", rf"layer{index - 2}.\1") for index in (3, 4, 5, 6)),
)

LAYOUTS = (
    Layout("DINOv3's ViT", ("storage_tokens", "blocks.0.norm1.weight"), _DINOV3, "dinov3"),
    Layout("timm's ViT", ("patch_embed.proj.weight", "blocks.0.norm1.weight"), _VIT),
    Layout("timm's ViT in chunks", ("patch_embed.proj.weight", "blocks.0.0.norm1.weight"), _VIT),
    Layout("torchvision's ResNet", ("layer1.0.conv1.weight", "conv1.weight"), family="resnet"),
    Layout("torchvision's ResNet in a Sequential", ("7.0.conv1.weight", "0.weight"), _SEQUENTIAL, "resnet"),
    Layout(
        "torchvision's ResNet in a Sequential, without max-pool",
        ("3.0.conv1.weight", "0.weight"), _SEQUENTIAL_WITHOUT_POOL, "resnet",
    ),
    Layout(
        "transformers' BEiT",
        ("embeddings.patch_embeddings.projection.weight", "encoder.layer.0.lambda_1"), _HF_BEIT, "beit",
    ),
    Layout(
        "transformers' ViT",
        ("embeddings.patch_embeddings.projection.weight", "encoder.layer.0.attention.attention.query.weight"),
        _HF_BLOCK,
    ),
    Layout(
        "transformers' DINOv3",
        ("embeddings.patch_embeddings.weight", "layer.0.attention.q_proj.weight"), _HF_DINOV3, "dinov3",
    ),
    Layout("transformers' ResNet", ("embedder.embedder.convolution.weight",), _HF_RESNET, "resnet"),
    Layout(
        "transformers' ConvNeXt",
        ("embeddings.patch_embeddings.weight", "encoder.stages.0.layers.0.dwconv.weight"), _HF_CONVNEXT, "convnext",
    ),
    Layout(
        "transformers' Swin",
        ("embeddings.patch_embeddings.projection.weight", "encoder.layers.0.blocks.0.attention.self.query.weight"),
        _HF_SWIN, "swin",
    ),
    Layout("torchvision's ViT", ("conv_proj.weight", "class_token"), _TORCHVISION_VIT),
    Layout("mmpretrain's ViT", ("patch_embed.projection.weight", "layers.0.ln1.weight"), _MM_VIT),
    Layout("the authors' ConvNeXt", ("downsample_layers.0.0.weight", "stages.0.0.dwconv.weight"), _FB_CONVNEXT,
           "convnext"),
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
