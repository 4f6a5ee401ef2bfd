"""A step that does not fit into memory leaves nothing behind, so that it can be done again in smaller parts.

Where memory runs out later, while weights or a teacher move, the step is half done and cannot be undone: the run goes
back to its last checkpoint.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

import torch
from torch.nn.modules.batchnorm import _BatchNorm

from ssl_bench.errors import UserError
from ssl_bench.method import Method

WORDS = ("not enough memory", "can't allocate memory", "out of memory")
"""Of the RuntimeError that the CPU's allocator and some libraries raise."""


class DoesNotFit(UserError):
    """A step ran out of memory; nothing of the method has moved."""


class HalfDone(Exception):
    """Memory ran out while a step moved the weights or what `Method.update` moves: neither can be used any more."""


def is_out_of_memory(error: BaseException) -> bool:
    """Whether an error says that there is too little memory, of any device."""
    if isinstance(error, torch.OutOfMemoryError | MemoryError):
        return True
    return isinstance(error, RuntimeError) and any(words in str(error) for words in WORDS)


def _first_line(error: Exception) -> str:
    return str(error).strip().partition("\n")[0][:200]


def _reason(error: Exception) -> str:
    """What the allocator says, in one line; another error is raised again."""
    if not is_out_of_memory(error):
        raise error
    return _first_line(error)


def in_words(error: Exception, doing: str) -> Exception:
    """The allocator's error as a `UserError` that says in what, e.g. "in knn"; another error as it is."""
    if not is_out_of_memory(error):
        return error
    return UserError(
        f"memory ran out {doing} ({_first_line(error)}). End what else uses the device, give more with --memory if a "
        "limit is set, or take --set machine.device=cpu."
    )


@contextmanager
def out_of_memory_in_words(doing: str) -> Iterator[None]:
    """Raises `UserError` in place of the allocator's error; `doing` as in `in_words`."""
    try:
        yield
    except (RuntimeError, MemoryError) as error:
        found = in_words(error, doing)
        if found is error:
            raise
    else:
        return
    raise found


@contextmanager
def undone_where_it_does_not_fit(method: Method, images: int) -> Iterator[None]:
    """Forward and backward passes inside; where memory runs out, gradients and running statistics are as before.

    Raises `DoesNotFit` in place of the allocator's error; `images` were computed at once.
    """
    norms = [module for module in method.modules() if isinstance(module, _BatchNorm)]
    before = [{name: None if one is None else one.clone() for name, one in norm._buffers.items()} for norm in norms]
    try:
        yield
    except (RuntimeError, MemoryError) as error:
        reason = _reason(error)
    else:
        return
    for norm, buffers in zip(norms, before, strict=True):
        for name, kept in buffers.items():
            if kept is not None:
                norm._buffers[name].copy_(kept)  # type: ignore[union-attr]
    method.zero_grad(set_to_none=True)
    if torch.cuda.is_available():
        torch.cuda.empty_cache()
    raise DoesNotFit(f"{images} image{'s' * (images > 1)} at once do not fit into memory ({reason})")


@contextmanager
def half_done_where_it_does_not_fit(step: int) -> Iterator[None]:
    """What moves the method inside. Raises `HalfDone` in place of the allocator's error; `step` counts from 0."""
    try:
        yield
    except (RuntimeError, MemoryError) as error:
        reason = _reason(error)
        raise HalfDone(f"step {step + 1:,}, memory ran out while the weights were moved ({reason})") from None
