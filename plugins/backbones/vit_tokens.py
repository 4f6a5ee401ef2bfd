"""Reading a timm VisionTransformer: its CLS token, its patch tokens and its attention, without needless work.

For the CLS token's output, the last block needs every token's key and value, but only the CLS token's query, and its
MLP only on that token: exactly the same number as the whole block gives, for about 1/12 less work in 12 blocks.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import torch
from timm.layers.attention import Attention
from timm.models.vision_transformer import Block
from torch import Tensor, nn
from torch.nn import functional


def embed(vit: Any, images: Tensor) -> Tensor:
    """(batch, 3, height, width) -> (batch, tokens, dim): patches with their positions, CLS first, before any block.

    For another image size the learned positions are resampled by timm: bicubic with antialiasing. (The authors'
    interpolate_pos_encoding: bicubic without.)
    """
    tokens = vit._pos_embed(vit.patch_embed(images))
    return vit.norm_pre(vit.patch_drop(tokens))  # type: ignore[no-any-return]


def block_outputs(vit: Any, images: Tensor) -> Iterator[Tensor]:
    """(batch, tokens, dim) after each block in turn, before the final norm."""
    tokens = embed(vit, images)
    for block in vit.blocks:
        tokens = block(tokens)
        yield tokens


def cls_token(vit: Any, images: Tensor) -> Tensor:
    """(batch, 3, height, width) -> (batch, dim): the CLS token after the last block and the final norm."""
    return vit.norm(_cls_of_last_block(vit.blocks[-1], _before_last_block(vit, images)))[:, 0]  # type: ignore[no-any-return]


def patch_tokens(vit: Any, images: Tensor) -> Tensor:
    """(batch, 3, height, width) -> (batch, dim, rows, columns): patches after the last block and the final norm."""
    *_, tokens = block_outputs(vit, images)
    patches = vit.norm(tokens)[:, vit.num_prefix_tokens :]
    return patches.transpose(1, 2).unflatten(2, _grid(vit, images))  # type: ignore[no-any-return]


def cls_attention(vit: Any, images: Tensor) -> Tensor:
    """(batch, 3, height, width) -> (batch, heads, rows, columns): last block's CLS query on the patches.

    A softmax over all tokens, of which the patches' share is returned. Only this block's weights are written out.
    """
    attention = vit.blocks[-1].attn
    normed = vit.blocks[-1].norm1(_before_last_block(vit, images))
    query, key, _ = _cls_query_keys_values(attention, normed)
    products = query @ key.transpose(-2, -1) * attention.scale
    weights = products.to(torch.promote_types(products.dtype, torch.float32)).softmax(dim=-1)
    patches: Tensor = weights[:, :, 0, vit.num_prefix_tokens :]
    return patches.reshape(*patches.shape[:2], *_grid(vit, images))


def _before_last_block(vit: Any, images: Tensor) -> Tensor:
    tokens = embed(vit, images)
    for block in vit.blocks[:-1]:
        tokens = block(tokens)
    return tokens


def _grid(vit: Any, images: Tensor) -> tuple[int, int]:
    height, width = vit.patch_embed.patch_size
    return images.shape[-2] // height, images.shape[-1] // width


def _cls_of_last_block(block: Any, tokens: Tensor) -> Tensor:
    """`block(tokens)[:, :1]` of shape (batch, 1, dim)."""
    if not _has_plain_attention(block):
        return block(tokens)[:, :1]  # type: ignore[no-any-return]
    query, key, value = _cls_query_keys_values(block.attn, block.norm1(tokens))
    mixed = functional.scaled_dot_product_attention(query, key, value)  # (batch, heads, 1, head_dim)
    mixed = block.attn.proj(block.attn.norm(mixed.transpose(1, 2).flatten(2)))
    cls = tokens[:, :1] + block.drop_path1(block.ls1(mixed))
    return cls + block.drop_path2(block.ls2(block.mlp(block.norm2(cls))))  # type: ignore[no-any-return]


def patch_px(vit: Any) -> int:
    """Side of a patch; they are square in all networks that timm names."""
    return int(vit.patch_embed.patch_size[0])


def shows_attention(vit: Any) -> bool:
    """Whether there is a CLS token, and a last block from which its attention can be read."""
    return bool(vit.has_class_token) and _has_plain_attention(vit.blocks[-1])


def _has_plain_attention(block: Any) -> bool:
    """Whether this is timm's standard pre-norm block, without gates or dropout in its attention."""
    return (
        type(block) is Block
        and type(block.attn) is Attention
        and getattr(block.attn, "gate", None) is None
        and block.attn.attn_drop.p == 0.0
        and block.attn.proj_drop.p == 0.0
    )


def _cls_query_keys_values(attention: Any, normed: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    """Query (batch, heads, 1, head_dim) of the CLS token; keys and values (batch, heads, tokens, head_dim) of all."""
    weight, bias, width = attention.qkv.weight, attention.qkv.bias, attention.attn_dim
    of_query, of_others = (None, None) if bias is None else (bias[:width], bias[width:])
    heads = (attention.num_heads, attention.head_dim)
    batch, tokens, _ = normed.shape
    query = functional.linear(normed[:, :1], weight[:width], of_query).view(batch, 1, *heads).transpose(1, 2)
    both = functional.linear(normed, weight[width:], of_others).view(batch, tokens, 2, *heads)
    key, value = both.permute(2, 0, 3, 1, 4).unbind(0)
    return attention.q_norm(query), attention.k_norm(key), value


@torch.no_grad()
def draw_cls_token_as_dino(vit: Any) -> None:
    """Initial CLS token from a truncated normal of 0.02, as the authors'; timm's own starts near 0."""
    nn.init.trunc_normal_(vit.cls_token, std=0.02)
