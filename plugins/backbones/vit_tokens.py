"""Running a timm VisionTransformer for its CLS token, patch tokens or attention, without needless work.

The numbers are those of the network's own forward pass. Three things make them cheaper:

- For the CLS token's output, the last block needs every token's key and value, but only the CLS token's query, and
  its MLP only on that token: about 1/12 less work in 12 blocks.
- A block's branch runs only on the samples whose path stochastic depth keeps (on CPUs, where looking costs nothing).
- In bf16 on CPUs, attention is written out: the backward pass of torch 2.14's fused kernel takes 2 to 6 times as
  long as three matrix products there.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Iterator
from functools import partial
from typing import Any, NamedTuple

import torch
from timm.layers.attention import Attention
from timm.layers.drop import DropPath
from timm.models.vision_transformer import Block
from torch import Tensor, nn
from torch.nn import functional

from ssl_bench.backbone import Positions, Tokens
from ssl_bench.blocks.patch_selection import check_selection, replace_masked, select_kept
from ssl_bench.blocks.patch_sizes import check_whole_patches
from ssl_bench.blocks.recompute import recompute

from .vit_positions import ADDED, add_positions


class Selection(NamedTuple):
    """Which patches a mask token replaces and which enter the blocks, as in `Backbone.tokens`."""

    mask: Tensor | None = None
    mask_token: Tensor | None = None
    keep: Tensor | None = None


WHOLE = Selection()


def embed(vit: Any, images: Tensor, positions: Positions = "timm", selection: Selection = WHOLE) -> Tensor:
    """(batch, 3, height, width) -> (batch, tokens, dim): patches with their positions, CLS first, before any block.

    `positions` is the rule that resamples the learned positions for another image size.
    """
    mask, mask_token, keep = selection
    patches = vit.patch_embed(images)
    if mask is not None and mask_token is not None:
        patches = replace_masked(patches, mask.reshape(patches.shape[:-1]), mask_token)
    tokens = vit._pos_embed(patches) if positions == "timm" else add_positions(vit, patches, ADDED[positions])
    if keep is not None:
        prefix, rest = tokens.tensor_split([vit.num_prefix_tokens], dim=1)
        tokens = torch.cat([prefix, select_kept(rest, keep)], dim=1)
    return vit.norm_pre(vit.patch_drop(tokens))  # type: ignore[no-any-return]


def block_outputs(
    vit: Any, images: Tensor, positions: Positions = "timm", selection: Selection = WHOLE
) -> Iterator[Tensor]:
    """(batch, tokens, dim) after each block in turn, before the final norm."""
    tokens = embed(vit, images, positions, selection)
    for block in vit.blocks:
        tokens = _run(vit, block, tokens)
        yield tokens


def cls_token(vit: Any, images: Tensor, positions: Positions = "timm") -> Tensor:
    """(batch, 3, height, width) -> (batch, dim): the CLS token after the last block and the final norm."""
    tokens = _before_last_block(vit, images, positions)
    return vit.norm(_run(vit, vit.blocks[-1], tokens, cls_only=True))[:, 0]  # type: ignore[no-any-return]


def cls_token_and_outputs(
    vit: Any, images: Tensor, count: int, positions: Positions = "timm"
) -> tuple[Tensor, list[Tensor]]:
    """`cls_token`, and the last `count` of `block_outputs`, in one pass.

    The last block runs twice, the first time for the class token alone: so its bits are those of `cls_token`.
    """
    sequence, outputs = embed(vit, images, positions), deque[Tensor](maxlen=count)
    for block in vit.blocks[:-1]:
        sequence = _run(vit, block, sequence)
        outputs.append(sequence)
    cls = vit.norm(_run(vit, vit.blocks[-1], sequence, cls_only=True))[:, 0]
    outputs.append(_run(vit, vit.blocks[-1], sequence))
    return cls, list(outputs)


def tokens(vit: Any, images: Tensor, positions: Positions = "timm", selection: Selection = WHOLE) -> Tokens:
    """(batch, 3, height, width) -> all tokens after the last block and the final norm.

    Raises `UserError` for sizes that patches do not divide, and for a selection that does not fit the image.
    """
    shape = grid(vit, images)
    check_selection(len(images), shape[0] * shape[1], vit.embed_dim, *selection)
    outputs = block_outputs(vit, images, positions, selection)
    last = deque(outputs, maxlen=1).pop()  # all outputs of 6,240 tokens would be 115 MB
    return split(vit, vit.norm(last), shape)


def feature_maps(vit: Any, images: Tensor, positions: Positions = "timm") -> tuple[Tensor, ...]:
    """(batch, 3, height, width) -> (batch, dim, rows, columns) after each of `quarters`, before the final norm.

    Raises `UserError` for sizes that patches do not divide.
    """
    shape, chosen = grid(vit, images), quarters(len(vit.blocks))
    return tuple(
        output[:, vit.num_prefix_tokens :].transpose(1, 2).reshape(len(images), -1, *shape)
        for index, output in enumerate(block_outputs(vit, images, positions))
        if index in chosen
    )


def quarters(depth: int) -> list[int]:
    """Indices of the blocks that end the four quarters: 2, 5, 8 and 11 of 12; fewer where there are not four blocks."""
    return sorted({-(-depth * quarter // 4) - 1 for quarter in (1, 2, 3, 4)})


def split(network: Any, sequence: Tensor, shape: tuple[int, int]) -> Tokens:
    """The parts of (batch, tokens, dim): a class token first where there is one, then the others before the patches."""
    prefix, patches = sequence.tensor_split([network.num_prefix_tokens], dim=1)
    if getattr(network, "cls_token", None) is None:
        return Tokens(None, patches, prefix, shape)
    return Tokens(prefix[:, 0], patches, prefix[:, 1:], shape)


def cls_attention(vit: Any, images: Tensor, positions: Positions = "timm") -> Tensor:
    """(batch, 3, height, width) -> (batch, heads, rows, columns): last block's CLS query on the patches.

    A softmax over all tokens, of which the patches' share is returned. Only this block's weights are written out.
    Raises `UserError` for sizes that patches do not divide.
    """
    shape = grid(vit, images)
    attention = vit.blocks[-1].attn
    normed = vit.blocks[-1].norm1(_before_last_block(vit, images, positions))
    query, key, _ = _query_key_value(attention, normed, cls_only=True)
    products = query @ key.transpose(-2, -1) * attention.scale
    weights = products.to(torch.promote_types(products.dtype, torch.float32)).softmax(dim=-1)
    patches: Tensor = weights[:, :, 0, vit.num_prefix_tokens :]
    return patches.reshape(*patches.shape[:2], *shape)


def patch_px(vit: Any) -> int:
    """Side of a patch in pixels of the image; behind a convolutional stem, the stem's stride counts too.

    Patches are square in all networks that timm names.
    """
    embed = vit.patch_embed
    if hasattr(embed, "feat_ratio"):
        return int(embed.feat_ratio())
    size = embed.patch_size
    return int(size if isinstance(size, int) else size[0])


def grid(vit: Any, images: Tensor) -> tuple[int, int]:
    """(rows, columns) of patches in images (.., height, width). Raises `UserError` unless patches divide both."""
    side = patch_px(vit)
    height, width = images.shape[-2:]
    check_whole_patches("an image side", height, side)
    check_whole_patches("an image side", width, side)
    return height // side, width // side


def shows_attention(vit: Any) -> bool:
    """Whether the last block is one from which the CLS token's attention can be read."""
    return _is_plain(vit.blocks[-1])


@torch.no_grad()
def draw_cls_token_as_dino(vit: Any) -> None:
    """Initial CLS token from a truncated normal of 0.02, as the authors'; timm's own starts near 0."""
    nn.init.trunc_normal_(vit.cls_token, std=0.02)


def _before_last_block(vit: Any, images: Tensor, positions: Positions) -> Tensor:
    tokens = embed(vit, images, positions)
    for block in vit.blocks[:-1]:
        tokens = _run(vit, block, tokens)
    return tokens


def _is_plain(block: Any) -> bool:
    """Whether this is timm's standard pre-norm block, without gates or dropout in its attention."""
    return (
        type(block) is Block
        and type(block.attn) is Attention
        and getattr(block.attn, "gate", None) is None
        and block.attn.attn_drop.p == 0.0
        and block.attn.proj_drop.p == 0.0
    )


def _run(vit: Any, block: Any, tokens: Tensor, *, cls_only: bool = False) -> Tensor:
    """`_compute`, with activations computed again in the backward pass where timm's flag is set."""
    if not vit.grad_checkpointing:
        return _compute(block, tokens, cls_only=cls_only)
    return recompute(block, partial(_compute, block, cls_only=cls_only), tokens)


def _compute(block: Any, tokens: Tensor, *, cls_only: bool = False) -> Tensor:
    """`block(tokens)` of shape (batch, tokens, dim), or with `cls_only` its first token (batch, 1, dim)."""
    if not _is_plain(block):
        return block(tokens)[:, :1] if cls_only else block(tokens)  # type: ignore[no-any-return]

    def attend(x: Tensor) -> Tensor:
        return block.ls1(_attend(block.attn, block.norm1(x), cls_only=cls_only))  # type: ignore[no-any-return]

    def transform(x: Tensor) -> Tensor:
        return block.ls2(block.mlp(block.norm2(x)))  # type: ignore[no-any-return]

    stream = tokens[:, :1] if cls_only else tokens
    stream = _add_branch(stream, tokens, attend, block.drop_path1)
    return _add_branch(stream, stream, transform, block.drop_path2)


def _add_branch(stream: Tensor, inputs: Tensor, branch: Callable[[Tensor], Tensor], drop_path: nn.Module) -> Tensor:
    """`stream + drop_path(branch(inputs))`, with the branch run on the samples that are kept."""
    if not isinstance(drop_path, DropPath) or not drop_path.training or drop_path.drop_prob == 0.0:
        return stream + branch(inputs)
    if type(stream) is not Tensor or stream.device.type != "cpu":  # fake tensors have no values to look at
        return stream + drop_path(branch(inputs))  # type: ignore[no-any-return]
    keep = 1.0 - drop_path.drop_prob
    drawn = stream.new_empty(len(stream), 1, 1).bernoulli_(keep)  # as DropPath draws
    kept = drawn.flatten().nonzero()[:, 0]
    if len(kept) == 0:
        return stream + branch(inputs) * 0.0  # so that every weight has a gradient
    if len(kept) == len(stream):
        return torch.add(stream, branch(inputs), alpha=1.0 / keep)
    added = branch(inputs.index_select(0, kept)).to(stream.dtype)
    return stream.index_add(0, kept, added, alpha=1.0 / keep)


def _attend(attention: Any, normed: Tensor, *, cls_only: bool) -> Tensor:
    """timm's Attention.forward: (batch, tokens, dim) -> the same shape, or (batch, 1, dim) of the first token."""
    query, key, value = _query_key_value(attention, normed, cls_only=cls_only)
    if query.device.type == "cpu" and query.dtype == torch.bfloat16:
        mixed = (query * attention.scale @ key.transpose(-2, -1)).softmax(dim=-1) @ value
    else:
        mixed = functional.scaled_dot_product_attention(query, key, value)
    return attention.proj(attention.norm(mixed.transpose(1, 2).flatten(2)))  # type: ignore[no-any-return]


def _query_key_value(attention: Any, normed: Tensor, *, cls_only: bool) -> tuple[Tensor, Tensor, Tensor]:
    """(batch, heads, tokens, head_dim) each; with `cls_only`, the query is that of the first token alone."""
    batch, tokens, _ = normed.shape
    heads = (attention.num_heads, attention.head_dim)
    if not cls_only:
        query, key, value = attention.qkv(normed).view(batch, tokens, 3, *heads).permute(2, 0, 3, 1, 4).unbind(0)
    else:
        weight, bias, width = attention.qkv.weight, attention.qkv.bias, attention.attn_dim
        of_query, of_others = (None, None) if bias is None else (bias[:width], bias[width:])
        query = functional.linear(normed[:, :1], weight[:width], of_query).view(batch, 1, *heads).transpose(1, 2)
        both = functional.linear(normed, weight[width:], of_others).view(batch, tokens, 2, *heads)
        key, value = both.permute(2, 0, 3, 1, 4).unbind(0)
    return attention.q_norm(query), attention.k_norm(key), value
