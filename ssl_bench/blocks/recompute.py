"""Activation checkpointing of one block: its activations are computed again in the backward pass instead of kept.

Chen et al. 2016, arXiv 1604.06174. Results are bitwise the same: random numbers (drop path, dropout) and autocast are
those of the first pass, and the second pass moves no running statistics.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
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
        return nullcontext(), _running_statistics_kept(block)

    result: Tensor = checkpoint(compute, inputs, use_reentrant=False, preserve_rng_state=True, context_fn=contexts)
    return result


@contextmanager
def _running_statistics_kept(block: nn.Module) -> Iterator[None]:
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
