"""Tensors that are a shape, a type and the storage they lie in: operators compute these, and no numbers.

What an operator returns depends on the shapes and types it is given, so torch's own kernels for its "meta" device are
asked once for every combination, and later calls are answered from memory: a step repeats the same operators for every
block of a network. `torch._subclasses.FakeTensorMode` does the same and more, in ten times as long.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor
from torch.utils._python_dispatch import TorchDispatchMode

CPU = torch.device("cpu")
META = torch.device("meta")


class Storage:
    """Bytes that tensors may share; as much of `torch.UntypedStorage` as counting them needs."""

    def __init__(self, size: int) -> None:
        self.size = size

    @property
    def _cdata(self) -> int:
        return id(self)

    def nbytes(self) -> int:
        """Its size."""
        return self.size


class ShapeTensor(Tensor):
    """A tensor of a CPU, as far as torch can tell without reading a number."""

    lies_in: Storage | torch.UntypedStorage

    __torch_function__ = torch._C._disabled_torch_function_impl  # type: ignore[assignment]

    @staticmethod
    def of(
        shape: tuple[int, ...],
        strides: tuple[int, ...],
        dtype: torch.dtype,
        storage: Storage | torch.UntypedStorage,
        requires_grad: bool = False,
    ) -> ShapeTensor:
        """Laid out like this, in `storage`."""
        made: ShapeTensor = Tensor._make_wrapper_subclass(
            ShapeTensor, shape, strides=strides, dtype=dtype, device=CPU, requires_grad=requires_grad
        )
        made.lies_in = storage
        return made

    @staticmethod
    def like(tensor: Tensor) -> ShapeTensor:
        """The shape of a tensor that has numbers, in a storage of its own."""
        size = tensor.untyped_storage().nbytes()
        return ShapeTensor.of(tensor.shape, tensor.stride(), tensor.dtype, Storage(size), tensor.requires_grad)

    def untyped_storage(self) -> Any:
        """The storage that views share."""
        return self.lies_in

    @classmethod
    def __torch_dispatch__(cls, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:  # type: ignore[override]
        """Where no mode is entered."""
        return compute(func, args, kwargs or {})


@dataclass(frozen=True)
class Fresh:
    """A tensor of a result, in the storage of this number among those that the operator makes."""

    shape: tuple[int, ...]
    strides: tuple[int, ...]
    dtype: torch.dtype
    storage: int


@dataclass(frozen=True)
class ViewOf:
    """A tensor of a result that lies in the storage of an argument."""

    shape: tuple[int, ...]
    strides: tuple[int, ...]
    dtype: torch.dtype
    argument: int


@dataclass(frozen=True)
class Argument:
    """A tensor of a result that is an argument itself, as of operators that write in place."""

    argument: int


@dataclass(frozen=True)
class Result:
    """What an operator returns."""

    structure: Any
    """`Fresh`, `ViewOf` and `Argument` in place of tensors."""
    sizes: tuple[int, ...]
    """Bytes of the storages that the operator makes."""


RESIZING = {getattr(torch.ops.aten, name) for name in ("resize_", "resize_as_", "resize_as_sparse_", "set_")}
"""Operators that give a tensor another storage or another size of it: `ShapesAlone` does not follow them."""
KNOWN: dict[Any, Result] = {}


class ShapesAlone(TorchDispatchMode):  # type: ignore[no-untyped-call]
    """While it is entered, whatever is computed or made is a `ShapeTensor`."""

    @classmethod
    def _should_skip_dynamo(cls) -> bool:
        """torch would wrap `__torch_dispatch__` against compiling, which takes time; nothing compiles here."""
        return False

    def __torch_dispatch__(
        self, func: Any, types: Any, args: tuple[Any, ...] = (), kwargs: dict[str, Any] | None = None
    ) -> Any:
        return compute(func, args, kwargs or {})


def compute(func: Any, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
    """The operator's result without numbers. Raises what torch's kernels raise where one needs numbers."""
    if func.namespace == "profiler":
        return func(*args, **kwargs)
    if not func._schema.returns:
        return None  # it only writes, as optimizers do; some of these have no kernel for the meta device
    tensors: list[Tensor] = []
    key = (func, _described(args, tensors), tuple(kwargs), _described(kwargs.values(), tensors))
    result = KNOWN.get(key)
    if result is None:
        if torch.Tag.inplace_view in func.tags and func.overloadpacket not in RESIZING:
            with torch._C._DisableTorchDispatch():
                return func(*args, **kwargs)  # it only writes how a tensor is laid out
        result = KNOWN[key] = _asked(func, args, kwargs)
    storages = [Storage(size) for size in result.sizes]

    def made(one: Any) -> Any:
        if type(one) is Fresh:
            return ShapeTensor.of(one.shape, one.strides, one.dtype, storages[one.storage])
        if type(one) is ViewOf:
            return ShapeTensor.of(one.shape, one.strides, one.dtype, tensors[one.argument].untyped_storage())
        return tensors[one.argument] if type(one) is Argument else one

    return _mapped(made, result.structure)


def _described(values: Any, tensors: list[Tensor]) -> tuple[Any, ...]:
    """What decides a result, as a key of `KNOWN`; tensors are appended to `tensors`."""
    described: list[Any] = []
    for value in values:
        if isinstance(value, Tensor):
            tensors.append(value)
            described.append((value.shape, value.stride(), value.dtype))
        elif isinstance(value, list | tuple):
            described.append(_described(value, tensors))
        else:
            described.append((type(value), None if isinstance(value, torch.Generator) else value))
    return tuple(described)


def _mapped(change: Callable[[Any], Any], value: Any) -> Any:
    """`change` of a value, or of every value in lists and tuples."""
    if isinstance(value, tuple):
        return tuple([_mapped(change, one) for one in value])
    return [_mapped(change, one) for one in value] if isinstance(value, list) else change(value)


def _asked(func: Any, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Result:
    """By torch's kernel for tensors on the meta device."""
    twins: list[Tensor] = []
    layouts = []

    def twin(value: Any) -> Any:
        if isinstance(value, torch.Generator):
            return None
        if isinstance(value, torch.device):
            return META
        if not isinstance(value, Tensor):
            return value
        layouts.append((value.shape, value.stride()))
        twins.append(torch.empty_strided(*layouts[-1], dtype=value.dtype, device=META))
        return twins[-1]

    args = _mapped(twin, args)
    kwargs = {name: _mapped(twin, value) for name, value in kwargs.items()}
    if any(argument.name == "device" for argument in func._schema.arguments):
        kwargs["device"] = META
    returned = func(*args, **kwargs)
    if layouts != [(one.shape, one.stride()) for one in twins]:
        raise NotImplementedError(f"{func} changes the shape of a tensor in place")
    of_arguments = {one.untyped_storage()._cdata: number for number, one in enumerate(twins)}
    fresh: dict[int, int] = {}
    sizes: list[int] = []

    def described(one: Any) -> Any:
        if not isinstance(one, Tensor):
            return one
        for number, argument in enumerate(twins):
            if one is argument:
                return Argument(number)
        storage = one.untyped_storage()
        layout = tuple(one.shape), one.stride(), one.dtype
        if storage._cdata in of_arguments:
            return ViewOf(*layout, of_arguments[storage._cdata])
        if storage._cdata not in fresh:
            fresh[storage._cdata] = len(sizes)
            sizes.append(storage.nbytes())
        return Fresh(*layout, fresh[storage._cdata])

    return Result(_mapped(described, returned), tuple(sizes))
