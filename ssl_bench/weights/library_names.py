"""How libraries call the tensors of their networks, as rules that give timm's names.

Of a table, the first rule that matches a whole name counts.

Sources: timm 1.0 `checkpoint_filter_fn` of each architecture; transformers 5 `modeling_*.py`; torchvision
`vision_transformer.py`; mmpretrain `vision_transformer.py`; facebookresearch/dinov2, dinov3, ConvNeXt;
microsoft/Swin-Transformer. A test for each compares features with the library's own forward pass.
"""

from __future__ import annotations

Renames = tuple[tuple[str, str], ...]


def _below(old: str, new: str, rules: Renames) -> Renames:
    """Rules for what lies below one name: both prefixes stand in front, groups are counted from the prefix's on."""
    return tuple((old + inner, new + renamed) for inner, renamed in rules)


HF_BLOCK: Renames = (
    *_below(
        r"encoder\.layer\.(\d+)\.", r"blocks.\1.",
        (
            (r"attention\.attention\.(query|key|value)\.(weight|bias)", r"attn.\2.\3"),
            (r"attention\.output\.dense\.(.+)", r"attn.proj.\2"),
            (r"(?:layernorm_before|norm1)\.(.+)", r"norm1.\2"),
            (r"(?:layernorm_after|norm2)\.(.+)", r"norm2.\2"),
            (r"(?:intermediate\.dense|mlp\.fc1|mlp\.weights_in)\.(.+)", r"mlp.fc1.\2"),
            (r"(?:output\.dense|mlp\.fc2|mlp\.weights_out)\.(.+)", r"mlp.fc2.\2"),
            (r"layer_scale([12])\.lambda1", r"ls\2.gamma"),
        ),
    ),
    (r"embeddings\.position_embeddings", "pos_embed"),
    (r"embeddings\.(cls_token|mask_token|register_tokens)", r"\1"),
    (r"embeddings\.patch_embeddings\.projection\.(.+)", r"patch_embed.proj.\1"),
    (r"layernorm\.(.+)", r"norm.\1"),
)  # fmt: skip
HF_BEIT: Renames = (
    *_below(
        r"encoder\.layer\.(\d+)\.", r"blocks.\1.",
        (
            (r"attention\.attention\.(query|value)\.bias", r"attn.\2_bias"),
            (r"attention\.attention\.relative_position_bias\.(.+)", r"attn.\2"),
            (r"lambda_([12])", r"gamma_\2"),
        ),
    ),
    (r"pooler\.layernorm\.(.+)", r"fc_norm.\1"),
    *HF_BLOCK,
)  # fmt: skip
HF_DINOV3: Renames = (
    (r"embeddings\.register_tokens", "reg_token"),
    (r"embeddings\.(cls_token|mask_token)", r"\1"),
    (r"embeddings\.patch_embeddings\.(.+)", r"patch_embed.proj.\1"),
    *_below(
        r"layer\.(\d+)\.", r"blocks.\1.",
        (
            (r"attention\.q_proj\.weight", r"attn.query.weight"),
            (r"attention\.k_proj\.weight", r"attn.key.weight"),
            (r"attention\.v_proj\.weight", r"attn.value.weight"),
            (r"attention\.q_proj\.bias", r"attn.query_bias"),
            (r"attention\.v_proj\.bias", r"attn.value_bias"),
            (r"attention\.o_proj\.(.+)", r"attn.proj.\2"),
            (r"layer_scale([12])\.lambda1", r"gamma_\2"),
            (r"mlp\.gate_proj\.(.+)", r"mlp.fc1_g.\2"),
            (r"mlp\.up_proj\.(.+)", r"mlp.fc1.\2"),
            (r"mlp\.down_proj\.(.+)", r"mlp.fc2.\2"),
            (r"(norm[12]\..+)", r"\2"),
        ),
    ),
)  # fmt: skip
HF_RESNET: Renames = (
    *(
        rule
        for stage in (1, 2, 3, 4)
        for rule in _below(
            rf"encoder\.stages\.{stage - 1}\.layers\.(\d+)\.", rf"layer{stage}.\1.",
            (
                (r"layer\.0\.convolution\.(.+)", r"conv1.\2"),
                (r"layer\.1\.convolution\.(.+)", r"conv2.\2"),
                (r"layer\.2\.convolution\.(.+)", r"conv3.\2"),
                (r"layer\.0\.normalization\.(.+)", r"bn1.\2"),
                (r"layer\.1\.normalization\.(.+)", r"bn2.\2"),
                (r"layer\.2\.normalization\.(.+)", r"bn3.\2"),
                (r"shortcut\.convolution\.(.+)", r"downsample.0.\2"),
                (r"shortcut\.normalization\.(.+)", r"downsample.1.\2"),
            ),
        )
    ),
    (r"embedder\.embedder\.convolution\.(.+)", r"conv1.\1"),
    (r"embedder\.embedder\.normalization\.(.+)", r"bn1.\1"),
)  # fmt: skip
HF_CONVNEXT: Renames = (
    (r"embeddings\.patch_embeddings\.(.+)", r"stem.0.\1"),
    (r"embeddings\.layernorm\.(.+)", r"stem.1.\1"),
    (r"encoder\.stages\.(\d+)\.downsampling_layer\.(\d)\.(.+)", r"stages.\1.downsample.\2.\3"),
    *_below(
        r"encoder\.stages\.(\d+)\.layers\.(\d+)\.", r"stages.\1.blocks.\2.",
        (
            (r"layer_scale_parameter", r"gamma"),
            (r"dwconv\.(.+)", r"conv_dw.\3"),
            (r"layernorm\.(.+)", r"norm.\3"),
            (r"pwconv([12])\.(.+)", r"mlp.fc\3.\4"),
        ),
    ),
    (r"layernorm\.(.+)", r"head.norm.\1"),
)  # fmt: skip
FB_CONVNEXT: Renames = (
    (r"downsample_layers\.0\.(.+)", r"stem.\1"),
    (r"downsample_layers\.(\d+)\.(.+)", r"stages.\1.downsample.\2"),
    *_below(
        r"stages\.(\d+)\.(\d+)\.", r"stages.\1.blocks.\2.",
        (
            (r"dwconv\.(.+)", r"conv_dw.\3"),
            (r"pwconv([12])\.(.+)", r"mlp.fc\3.\4"),
            (r"((?:norm|gamma).*)", r"\3"),
        ),
    ),
    (r"norm\.(.+)", r"head.norm.\1"),
)  # fmt: skip
HF_SWIN: Renames = (
    (r"embeddings\.patch_embeddings\.projection\.(.+)", r"patch_embed.proj.\1"),
    (r"embeddings\.norm\.(.+)", r"patch_embed.norm.\1"),
    *_below(
        r"encoder\.layers\.(\d+)\.blocks\.(\d+)\.", r"layers.\1.blocks.\2.",
        (
            (r"attention\.self\.(query|key|value)\.(.+)", r"attn.\3.\4"),
            (r"attention\.self\.(relative_\w+)", r"attn.\3"),
            (r"attention\.output\.dense\.(.+)", r"attn.proj.\3"),
            (r"layernorm_before\.(.+)", r"norm1.\3"),
            (r"layernorm_after\.(.+)", r"norm2.\3"),
            (r"intermediate\.dense\.(.+)", r"mlp.fc1.\3"),
            (r"output\.dense\.(.+)", r"mlp.fc2.\3"),
        ),
    ),
    (r"encoder\.layers\.(\d+)\.downsample\.(.+)", r"layers.\1.downsample.\2"),
    (r"layernorm\.(.+)", r"norm.\1"),
)  # fmt: skip
TORCHVISION_VIT: Renames = (
    (r"class_token", "cls_token"),
    (r"conv_proj\.(.+)", r"patch_embed.proj.\1"),
    (r"encoder\.pos_embedding", "pos_embed"),
    *_below(
        r"encoder\.layers\.encoder_layer_(\d+)\.", r"blocks.\1.",
        (
            (r"ln_([12])\.(.+)", r"norm\2.\3"),
            (r"self_attention\.in_proj_(.+)", r"attn.qkv.\2"),
            (r"self_attention\.out_proj\.(.+)", r"attn.proj.\2"),
            (r"mlp\.(?:linear_1|0)\.(.+)", r"mlp.fc1.\2"),
            (r"mlp\.(?:linear_2|3)\.(.+)", r"mlp.fc2.\2"),
        ),
    ),
    (r"encoder\.ln\.(.+)", r"norm.\1"),
)  # fmt: skip
MM_VIT: Renames = (
    (r"patch_embed\.projection\.(.+)", r"patch_embed.proj.\1"),
    *_below(
        r"layers\.(\d+)\.", r"blocks.\1.",
        (
            (r"ln([12])\.(.+)", r"norm\2.\3"),
            (r"attn\.(.+)", r"attn.\2"),
            (r"ffn\.layers\.0\.0\.(.+)", r"mlp.fc1.\2"),
            (r"ffn\.layers\.1\.(.+)", r"mlp.fc2.\2"),
        ),
    ),
    (r"ln1\.(.+)", r"norm.\1"),
)  # fmt: skip
DINOV3: Renames = (
    (r"storage_tokens", "reg_token"),
    *_below(
        r"blocks\.(\d+)\.", r"blocks.\1.",
        (
            (r"ls([12])\.gamma", r"gamma_\2"),
            (r"mlp\.w1\.(.+)", r"mlp.fc1_g.\2"),
            (r"mlp\.w2\.(.+)", r"mlp.fc1_x.\2"),
            (r"mlp\.w3\.(.+)", r"mlp.fc2.\2"),
        ),
    ),
)  # fmt: skip
VIT: Renames = (
    (r"blocks\.\d+\.(\d+)\.(.+)", r"blocks.\1.\2"),  # DINOv2 trains with blocks in chunks; the second index counts
    (r"blocks\.(\d+)\.mlp\.w12\.(.+)", r"blocks.\1.mlp.fc1.\2"),
    (r"blocks\.(\d+)\.mlp\.w3\.(.+)", r"blocks.\1.mlp.fc2.\2"),
)
SEQUENTIAL: Renames = (
    (r"0\.(.+)", r"conv1.\1"),
    (r"1\.(.+)", r"bn1.\1"),
    *((rf"{index}\.(.+)", rf"layer{index - 3}.\1") for index in (4, 5, 6, 7)),
)
SEQUENTIAL_WITHOUT_POOL: Renames = (
    (r"0\.(.+)", r"conv1.\1"),
    (r"1\.(.+)", r"bn1.\1"),
    *((rf"{index}\.(.+)", rf"layer{index - 2}.\1") for index in (3, 4, 5, 6)),
)
XCIT: Renames = ((r"pos_embeder\.(.+)", r"pos_embed.\1"),)
