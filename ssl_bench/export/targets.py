"""What each target has to do: write a network as its library reads it, and read it back by that library alone."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from importlib import import_module
from importlib.util import find_spec
from pathlib import Path

from torch import Tensor

from ssl_bench.errors import UserError, unknown_name
from ssl_bench.export.source import Source

Compute = Callable[[Tensor], Tensor]
"""Images (batch, 3, height, width) -> features (batch, dim)."""


@dataclass(frozen=True)
class Written:
    """A network as it now stands in a folder."""

    code: str
    """Python that loads it there and computes `features` of `images`; runs in that folder."""
    load: Callable[[], Compute]
    """The same as a function, to compare features with. Raises whatever the library does."""


@dataclass(frozen=True)
class Target:
    """One value of `--to`."""

    file: str
    """Name of the file of weights."""
    write: Callable[[Source, Path, str], Written]
    """(network, empty folder, text for the file's header) -> what was written. Raises `NotExpressible`."""
    packages: tuple[str, ...] = ()
    extra: str = ""
    """Of sslbench, with these packages."""


TARGETS = ("timm", "torchvision", "hf", "safetensors", "onnx")


def target_called(name: str) -> Target:
    """Raises `UserError` for an unknown name and for packages that are not installed."""
    if name not in TARGETS:
        raise unknown_name("target of an export", name, TARGETS)
    target: Target = import_module(f"ssl_bench.export.{name}_target").TARGET
    lacking = [package for package in target.packages if find_spec(package) is None]
    if lacking:
        raise UserError(
            f"--to {name} needs {' and '.join(lacking)}, which is not installed: pip install 'sslbench[{target.extra}]'"
        )
    return target
