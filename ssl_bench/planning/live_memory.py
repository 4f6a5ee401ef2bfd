"""Counting the memory of tensors that are alive, what it was made of at its peak, and floating point operations.

Every operator's results pass through a `TorchDispatchMode`; a storage counts from then on until it is released, which a
weak reference tells. It works on real tensors and on those without numbers alike, so a prediction can be checked
against the real step.
"""

from __future__ import annotations

import weakref
from collections import Counter
from collections.abc import Callable, Iterable
from typing import Any

import torch
from torch import Tensor
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_iter
from torch.utils.flop_counter import flop_registry, sdpa_backward_flop_count, sdpa_flop_count

BLOCK = 512
"""CUDA's allocator hands out multiples of so many bytes."""

aten = torch.ops.aten
DEVICE_OF = torch.ops.prim.device.default
"""What torch asks a fake tensor for its device with, about twice for every operator."""


def _attention(query: Tensor, key: Tensor, value: Tensor, *_: Any, **__: Any) -> int:
    return int(sdpa_flop_count(query.shape, key.shape, value.shape))  # type: ignore[no-untyped-call]


def _attention_backward(gradient: Tensor, query: Tensor, key: Tensor, value: Tensor, *_: Any, **__: Any) -> int:
    return int(sdpa_backward_flop_count(gradient.shape, query.shape, key.shape, value.shape))  # type: ignore[no-untyped-call]


OPERATIONS: dict[Any, Callable[..., int]] = {
    **flop_registry,
    aten._scaled_dot_product_flash_attention_for_cpu: _attention,
    aten._scaled_dot_product_flash_attention_for_cpu_backward: _attention_backward,
}
"""Floating point operations of an operator's call, `torch.utils.flop_counter`'s and those that it lacks."""


class LiveMemory(TorchDispatchMode):  # type: ignore[no-untyped-call]
    """Bytes of all live storages by part, now and at the peak; while it is entered, results count as of `part`."""

    def __init__(self) -> None:
        super().__init__()  # type: ignore[no-untyped-call]
        self.part = "activations"
        self.now: Counter[str] = Counter()
        self.at_peak: Counter[str] = Counter()
        self.peak = 0
        self.operations = 0
        """Floating point operations of products, convolutions and attention, multiplication and addition apart."""
        self._total = 0
        self._alive: dict[int, tuple[weakref.ref[torch.UntypedStorage], str, int]] = {}

    def add(self, tensors: Iterable[Tensor | None], part: str) -> None:
        """Count what exists already."""
        for tensor in tensors:
            if tensor is not None:
                self._see(tensor, part)

    def leave_out(self, tensors: Iterable[Tensor]) -> None:
        """Never count these and what shares their storage: they lie in another memory, e.g. a batch on the host."""
        for tensor in tensors:
            storage = tensor.untyped_storage()
            key = storage._cdata
            self._alive[key] = (weakref.ref(storage, lambda _, key=key: self._release(key)), "elsewhere", 0)  # type: ignore[misc]

    def move(self, tensors: Iterable[Tensor | None], part: str) -> None:
        """Count what is counted under another part from now on, e.g. gradients once they are a parameter's."""
        for tensor in tensors:
            key = None if tensor is None else tensor.untyped_storage()._cdata
            if key in self._alive:
                reference, before, size = self._alive[key]
                self.now[before] -= size
                self.now[part] += size
                self._alive[key] = (reference, part, size)

    def __torch_dispatch__(
        self, func: Callable[..., Any], types: Any, args: tuple[Any, ...] = (), kwargs: dict[str, Any] | None = None
    ) -> Any:
        if func is DEVICE_OF and hasattr(args[0], "fake_device"):
            return args[0].fake_device  # the same answer without another dispatch, which takes a third of the time
        result = func(*args, **(kwargs or {}))
        count = OPERATIONS.get(getattr(func, "overloadpacket", None))
        if count is not None:
            self.operations += _counted(count, args, kwargs or {}, result)
        for one in (result,) if isinstance(result, Tensor) else tree_iter(result):
            if isinstance(one, Tensor):
                self._see(one, self.part)
        return result

    def _see(self, tensor: Tensor, part: str) -> None:
        storage = tensor.untyped_storage()
        key = storage._cdata
        if key in self._alive:
            return
        size = -(-storage.nbytes() // BLOCK) * BLOCK
        self._alive[key] = (weakref.ref(storage, lambda _: self._release(key)), part, size)
        self.now[part] += size
        self._total += size
        if self._total > self.peak:
            self.peak, self.at_peak = self._total, self.now.copy()

    def _release(self, key: int) -> None:
        _, part, size = self._alive.pop(key)
        self.now[part] -= size
        self._total -= size


def _counted(count: Callable[..., int], args: tuple[Any, ...], kwargs: dict[str, Any], result: Any) -> int:
    """`count` of a call, but most of `flop_registry` wrap a formula of shapes with a slow search for tensors."""
    formula = getattr(count, "__wrapped__", None)
    if formula is None:
        return count(*args, **kwargs, out_val=result)
    shapes = [_shape(one) for one in args]
    of_result = tuple(map(_shape, result)) if isinstance(result, tuple) else _shape(result)
    return int(formula(*shapes, **{name: _shape(one) for name, one in kwargs.items()}, out_shape=of_result))


def _shape(value: Any) -> Any:
    return value.shape if isinstance(value, Tensor) else value
