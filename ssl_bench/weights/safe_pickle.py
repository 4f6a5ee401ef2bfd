"""PyTorch's pickled files without running anything in them: torch's weights-only reader and a named list of settings.

A checkpoint often holds settings beside its tensors (an argparse.Namespace, numpy scalars, a Lightning or OmegaConf
object). The first two are built as they are; classes of the settings packages in `INERT_PACKAGES` are replaced by
`Inert`, which takes any arguments and does nothing. Every other name is refused.
"""

from __future__ import annotations

import argparse
import pickle
import re
from collections import OrderedDict
from pathlib import Path, PurePosixPath
from typing import Any

import numpy as np
import torch

from ssl_bench.errors import UserError

INERT_PACKAGES = (
    "addict", "easydict", "lightning", "lightning_fabric", "lightning_utilities", "mmcv", "mmengine", "ml_collections",
    "omegaconf", "pytorch_lightning", "yacs",
)  # fmt: skip
"""Packages whose classes hold settings or training state in published checkpoints, never tensors of a network."""
INERT_CLASSES = ("collections.defaultdict", "typing.Any", "torch.optim.lr_scheduler.CosineAnnealingLR")
MAX_INERT = 100


class Inert:
    """Stands for an object of a settings package: nothing of it is built or executed."""

    def __init__(self, *args: Any, **settings: Any) -> None: ...

    def __setstate__(self, state: Any) -> None:
        if isinstance(state, dict):
            self.__dict__.update({str(key): value for key, value in state.items()})

    def __setitem__(self, key: Any, value: Any) -> None: ...


def load_pickled(path: Path, *, mmap: bool) -> Any:
    """What a file of `torch.save` holds, tensors on the CPU. Raises `UserError` for a damaged or a dangerous one."""
    inert: list[str] = []
    while True:
        try:
            with torch.serialization.safe_globals([*_settings_classes(), *((Inert, name) for name in inert)]):
                return torch.load(path, map_location="cpu", weights_only=True, mmap=mmap)
        except pickle.UnpicklingError as error:
            name = _refused_name(error)
            if name is None or not _is_inert(name) or name in inert or len(inert) >= MAX_INERT:
                raise _cannot_unpickle(path, error, name) from error
            inert.append(name)
        except MemoryError:
            raise
        except Exception as error:  # a damaged pickle can raise anything
            raise UserError(
                f"{path} is damaged or only partly there ({_first_line(error)}). Download or copy it again."
            ) from error


def _settings_classes() -> list[Any]:
    scalar: Any = np._core.multiarray.scalar  # type: ignore[attr-defined]
    numbers = [getattr(np.dtypes, name) for name in dir(np.dtypes) if name.endswith("DType")]
    return [
        argparse.Namespace, OrderedDict, np.dtype, *numbers, (scalar, "numpy.core.multiarray.scalar"),
        (scalar, "numpy._core.multiarray.scalar"), (PurePosixPath, "pathlib.PosixPath"),
        (PurePosixPath, "pathlib.PurePosixPath"),
    ]  # fmt: skip


def _is_inert(name: str) -> bool:
    return name.partition(".")[0] in INERT_PACKAGES or name in INERT_CLASSES


def _refused_name(error: Exception) -> str | None:
    """The name that the reader refused to look up, e.g. "posix.system"."""
    found = re.search(r"(?:Unsupported global: GLOBAL|unsupported GLOBAL) (\S+)", str(error))
    return found[1] if found else None


def _cannot_unpickle(path: Path, error: Exception, name: str | None) -> UserError:
    if name is None:
        return UserError(f"{path} is no file of weights, or a damaged one ({_first_line(error)}).")
    package = name.partition(".")[0]
    whole = re.fullmatch(r".*\.(models?|nn|networks?|modules?)\..*", name) or package in ("__main__", "timm", "src")
    advice = (
        "It seems to hold a whole pickled model. Save its tensors where its code is: "
        "torch.save(model.state_dict(), 'weights.pth')"
        if whole
        else "If you trust it, load it where it was made and save its tensors alone: torch.save(state_dict, 'w.pth')"
    )
    return UserError(f"{path} was refused: reading it would run {name}, and nothing in it was executed. {advice}")


def _first_line(error: BaseException) -> str:
    text = re.sub(r"^Weights only load failed\.\s*", "", str(error).strip()).partition("\n")[0]
    return (text[:160] or type(error).__name__).rstrip(". ")
