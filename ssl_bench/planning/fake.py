"""A module on tensors without numbers: shapes and types are computed, values are not."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

from torch import Tensor, nn
from torch._subclasses.fake_tensor import FakeTensorMode


@contextmanager
def fake_tensors(module: nn.Module, mode: FakeTensorMode) -> Iterator[None]:
    """Parameters and buffers of all submodules replaced by fake ones, shared ones by shared ones; then put back."""
    fakes: dict[int, Tensor] = {}

    def fake(tensor: Tensor) -> Tensor:
        if id(tensor) not in fakes:
            made = mode.from_tensor(tensor.detach())
            is_parameter = isinstance(tensor, nn.Parameter)
            fakes[id(tensor)] = nn.Parameter(made, requires_grad=tensor.requires_grad) if is_parameter else made
        return fakes[id(tensor)]

    kept = [(part, dict(part._parameters), dict(part._buffers)) for part in module.modules()]
    try:
        for part, parameters, buffers in kept:
            part._parameters.update({name: None if one is None else fake(one) for name, one in parameters.items()})  # type: ignore[misc]
            part._buffers.update({name: None if one is None else fake(one) for name, one in buffers.items()})
        yield
    finally:
        for part, parameters, buffers in kept:
            part._parameters.update(parameters)
            part._buffers.update(buffers)
