"""A step that does not fit into memory leaves nothing behind, so that it can be done again in smaller parts.

Where memory runs out later, while weights or a teacher move, the step is half done and cannot be undone: the run goes
back to its last checkpoint.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterator
from contextlib import contextmanager

import torch
from torch import Tensor, nn
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


class NormStatistics:
    """Buffers of a method's batch norms, copied before every step, always into the same memory."""

    def __init__(self, method: nn.Module) -> None:
        self._of_type: defaultdict[torch.dtype, list[Tensor]] = defaultdict(list)
        for module in method.modules():
            if isinstance(module, _BatchNorm):
                for buffer in module.buffers(recurse=False):
                    self._of_type[buffer.dtype].append(buffer)
        self._kept = {dtype: [torch.empty_like(one) for one in buffers] for dtype, buffers in self._of_type.items()}

    def keep(self) -> None:
        """As they are now."""
        for dtype, buffers in self._of_type.items():
            torch._foreach_copy_(self._kept[dtype], buffers)

    def put_back(self) -> None:
        """As they were kept."""
        for dtype, buffers in self._of_type.items():
            torch._foreach_copy_(buffers, self._kept[dtype])


@contextmanager
def undone_where_it_does_not_fit(
    method: Method, images: int, statistics: NormStatistics | None = None
) -> Iterator[None]:
    """Forward and backward passes inside; where memory runs out, gradients and running statistics are as before.

    Raises `DoesNotFit` in place of the allocator's error; `images` were computed at once.
    """
    statistics = statistics or NormStatistics(method)
    statistics.keep()
    try:
        yield
    except (RuntimeError, MemoryError) as error:
        reason = _reason(error)
    else:
        return
    statistics.put_back()
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
