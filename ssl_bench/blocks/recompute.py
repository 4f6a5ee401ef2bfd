"""Activation checkpointing: activations of a block or of a loss are computed again in the backward pass, not kept.

Chen et al. 2016, arXiv 1604.06174. Results are the same, bitwise on a CPU: random numbers (drop path, dropout) and
autocast are those of the first pass, and the second pass moves no running statistics.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from contextlib import AbstractContextManager, contextmanager, nullcontext

import torch
from torch import Tensor, nn
from torch.nn.modules.batchnorm import _BatchNorm
from torch.utils.checkpoint import checkpoint


def recompute(block: nn.Module, compute: Callable[[Tensor], Tensor], inputs: Tensor) -> Tensor:
    """`compute(inputs)`, which runs `block`, keeping only `inputs` for the backward pass.

    Without gradients nothing is kept anyway, and it is computed as it is.
    """
    if not torch.is_grad_enabled():
        return compute(inputs)

    def contexts() -> tuple[AbstractContextManager[None], AbstractContextManager[None]]:
        return nullcontext(), running_statistics_kept(block)

    result: Tensor = checkpoint(compute, inputs, use_reentrant=False, preserve_rng_state=True, context_fn=contexts)
    return result


def mean_of_parts(compute: Callable[..., Tensor], tensors: Sequence[Tensor], images: int) -> Tensor:
    """`compute(*tensors)`, a mean over images, from at most `images` images at a time.

    Every tensor is (views, batch, ...). More than one part is computed again in the backward pass, so that what lies
    between the tensors and the mean, e.g. scores (views, batch, 65536), exists for one part alone.
    """
    batch = tensors[0].shape[1]
    parts = -(-batch // images)
    if parts == 1:
        return compute(*tensors)
    means = []
    for part in zip(*(tensor.tensor_split(parts, dim=1) for tensor in tensors), strict=True):
        mean: Tensor = checkpoint(compute, *part, use_reentrant=False, preserve_rng_state=False)
        means.append(mean * (part[0].shape[1] / batch))
    return torch.stack(means).sum(dim=0)


def keep_statistics_in_backward(network: nn.Module) -> None:
    """Batch norms of a network that recomputes by itself, as timm's do, move their statistics in forward passes alone.

    To be called once for a network: what is computed inside a backward pass writes to copies.
    """
    for norm in network.modules():
        if isinstance(norm, _BatchNorm):
            norm.register_forward_pre_hook(_lay_aside)
            norm.register_forward_hook(_put_back, always_call=True)


def _lay_aside(norm: nn.Module, inputs: object) -> None:
    if torch._C._current_graph_task_id() == -1:  # no backward pass is running
        return
    norm.laid_aside = dict(norm._buffers)  # type: ignore[assignment]
    norm._buffers.update({name: None if one is None else one.clone() for name, one in norm._buffers.items()})


def _put_back(norm: nn.Module, inputs: object, output: object) -> None:
    norm._buffers.update(norm.__dict__.pop("laid_aside", {}))


@contextmanager
def running_statistics_kept(block: nn.Module) -> Iterator[None]:
    """What batch norms inside `block` write in the meantime goes to copies."""
    norms = [module for module in block.modules() if isinstance(module, _BatchNorm)]
    buffers = [dict(norm._buffers) for norm in norms]
    try:
        for norm, own in zip(norms, buffers, strict=True):
            norm._buffers.update({name: None if one is None else one.clone() for name, one in own.items()})
        yield
    finally:
        for norm, own in zip(norms, buffers, strict=True):
            norm._buffers.update(own)
