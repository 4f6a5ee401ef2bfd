"""A module on tensors without numbers: shapes and types are computed, values are not."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager
from typing import Any

import torch
from torch import Tensor, nn

from ssl_bench.planning.shapes_alone import ShapesAlone, ShapeTensor


@contextmanager
def shape_tensors(module: nn.Module) -> Iterator[None]:
    """`module` on `ShapeTensor`s, and whatever is computed meanwhile; then it is as it was."""

    def converted(tensor: Tensor) -> Tensor:
        made = ShapeTensor.like(tensor)
        made._is_param = isinstance(tensor, nn.Parameter)
        return made

    with _replaced(module, converted), torch.random.fork_rng(devices=[]), ShapesAlone():  # type: ignore[no-untyped-call]
        yield


@contextmanager
def fake_tensors(module: nn.Module) -> Iterator[None]:
    """As `shape_tensors`, by torch's own fake tensors: they know more operators, and take ten times as long."""
    from torch._subclasses.fake_tensor import FakeTensorMode  # takes a second

    mode = FakeTensorMode(allow_non_fake_inputs=True)

    def converted(tensor: Tensor) -> Tensor:
        made: Tensor = mode.from_tensor(tensor.detach())
        return nn.Parameter(made, tensor.requires_grad) if isinstance(tensor, nn.Parameter) else made

    with _replaced(module, converted), torch.random.fork_rng(devices=[]), mode:
        yield


KINDS: tuple[Callable[[nn.Module], AbstractContextManager[None]], ...] = (shape_tensors, fake_tensors)
"""In the order in which they are tried."""


@contextmanager
def _replaced(module: nn.Module, converted: Callable[[Tensor], Tensor]) -> Iterator[None]:
    """Parameters and buffers of all submodules replaced, shared ones by shared ones; then put back."""
    made: dict[int, Tensor] = {}

    def replacement(tensor: Tensor) -> Tensor:
        if id(tensor) not in made:
            made[id(tensor)] = converted(tensor)
        return made[id(tensor)]

    stores: list[dict[str, Any]] = [one for part in module.modules() for one in (part._parameters, part._buffers)]
    kept = [dict(store) for store in stores]
    try:
        for store in stores:
            store.update({name: None if one is None else replacement(one) for name, one in store.items()})
        yield
    finally:
        for store, before in zip(stores, kept, strict=True):
            store.update(before)
