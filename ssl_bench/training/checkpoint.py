"""Checkpoints: what is saved, how, and how a damaged one is recognized.

A checkpoint is a folder `step-00001480/` with the method's state, the optimizer's tensors (both safetensors, no
pickle), `state.json` and a manifest of SHA-256 digests, because a weights file with a flipped byte would load silently
with wrong values. It is written under another name and renamed when complete. The last two are kept; if the newest is
damaged, the one before is loaded. A checkpoint made during a sign of a collapse ends in `-suspect` and never replaces
the last good one.

safetensors stores contiguous tensors only. The optimizer's moments have the memory format of their parameters (channels
last in a ResNet) and fused optimizers read them in that order, so their strides are kept in `state.json` and restored.
"""

from __future__ import annotations

import json
import os
import shutil
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import save_file
from torch import Tensor

from ssl_bench.errors import UserError
from ssl_bench.records.state_file import parse_strictly
from ssl_bench.system.files import sync_folder
from ssl_bench.weights.tensor_file import cannot_save, detached, digest, read_tensors, sync_file

MANIFEST = "manifest.json"
FILES = ("method.safetensors", "optimizer.safetensors", "state.json")
KEPT = 2
SUSPECT = "-suspect"


def save_checkpoint(
    folder: Path,
    step: int,
    method: Mapping[str, Tensor],
    optimizer: Mapping[str, Any],
    state: Mapping[str, Any],
    *,
    suspect: bool = False,
) -> Path:
    """Write `folder/step-XXXXXXXX`, then delete all but the last two and the last good one.

    An undamaged checkpoint of this step is kept as it is. Raises `UserError` when the disk is full; earlier checkpoints
    are untouched then.
    """
    final = folder / f"step-{step:08d}{SUSPECT if suspect else ''}"
    part = folder / f".{final.name}.part"
    if final.is_dir() and not damage(final):
        return final
    try:
        for leftover in folder.glob(".*.part"):  # of a process that was killed while it saved
            shutil.rmtree(leftover, ignore_errors=True)
        part.mkdir(parents=True)
        tensors, plain = _flatten_optimizer(optimizer)
        save_file(detached(method), part / "method.safetensors")
        save_file(tensors, part / "optimizer.safetensors")
        (part / "state.json").write_text(json.dumps({"step": step, "optimizer": plain, **state}))
        manifest = {name: digest(part / name) for name in FILES}
        (part / MANIFEST).write_text(json.dumps(manifest, indent=1))
        for path in part.iterdir():
            sync_file(path)
        sync_folder(part)
        if final.exists():
            shutil.rmtree(final)
        os.replace(part, final)
        sync_folder(folder)
    except (OSError, RuntimeError) as error:  # safetensors raises its own subclass of RuntimeError/Exception for I/O
        shutil.rmtree(part, ignore_errors=True)
        raise cannot_save(final, error) from error
    except Exception as error:
        shutil.rmtree(part, ignore_errors=True)
        if type(error).__module__.startswith("safetensors"):
            raise cannot_save(final, error) from error
        raise
    good = last_good(folder)
    for old in checkpoints(folder)[:-KEPT]:
        if old != good:
            shutil.rmtree(old)
    return final


def checkpoints(folder: Path) -> list[Path]:
    """Complete checkpoint folders, oldest first."""
    return sorted(path for path in folder.glob("step-*") if path.is_dir())


def last_saved_step(folder: Path) -> int:
    """The step of the newest checkpoint; 0 where there is none."""
    return int(checkpoints(folder)[-1].name.split("-")[1]) if checkpoints(folder) else 0


def last_good(folder: Path) -> Path | None:
    """The newest checkpoint without a sign of a collapse."""
    return next((path for path in reversed(checkpoints(folder)) if not path.name.endswith(SUSPECT)), None)


@dataclass(frozen=True)
class Checkpoint:
    """The content of a checkpoint."""

    method: dict[str, Tensor]
    optimizer: dict[str, Any]
    state: dict[str, Any]
    warnings: tuple[str, ...]
    """One line for each newer checkpoint that is damaged."""


def load_latest(folder: Path) -> Checkpoint | None:
    """The newest undamaged checkpoint; None if none was ever completed, e.g. after a stop during the first save.

    Raises `UserError` when all of them are damaged.
    """
    found = checkpoints(folder)
    warnings: list[str] = []
    for path in reversed(found):
        if reason := damage(path):
            warnings.append(f"checkpoint {path.name} is damaged: {reason}")
            continue
        state = json.loads((path / "state.json").read_text())
        optimizer = _unflatten_optimizer(read_tensors(path / "optimizer.safetensors"), state.pop("optimizer"))
        return Checkpoint(read_tensors(path / "method.safetensors"), optimizer, state, tuple(warnings))
    if not found:
        return None
    reasons = "".join(f"\n  {line}" for line in warnings)
    raise UserError(
        f"no usable checkpoint in {folder}:{reasons}\nCopy one back from a backup, remove that folder to train again "
        "from step 0 with --resume, or start the run again with --restart."
    )


def damage(path: Path) -> str:
    """What is wrong with a checkpoint's folder; "" if nothing is."""
    try:
        manifest = parse_strictly((path / MANIFEST).read_bytes())
    except (OSError, ValueError) as error:
        return f"{MANIFEST}: {error}"
    if set(manifest) != set(FILES):
        return f"{MANIFEST} names {', '.join(sorted(manifest)) or 'nothing'} instead of {', '.join(FILES)}"
    for name in FILES:
        if not (path / name).is_file():
            return f"{name} is missing"
        if digest(path / name) != manifest[name]:
            return f"{name} does not match its SHA-256"
    return ""


def _flatten_optimizer(state: Mapping[str, Any]) -> tuple[dict[str, Tensor], dict[str, Any]]:
    """Split `optimizer.state_dict()` into tensors named `index/key` and a JSON part."""
    tensors: dict[str, Tensor] = {}
    plain: dict[str, dict[str, Any]] = {}
    for index, values in state["state"].items():
        for key, value in values.items():
            if isinstance(value, Tensor):
                tensors[f"{index}/{key}"] = value
            else:
                plain.setdefault(str(index), {})[key] = value
    strides = {name: list(value.stride()) for name, value in tensors.items() if not value.is_contiguous()}
    return detached(tensors), {"plain": plain, "param_groups": state["param_groups"], "strides": strides}


def _unflatten_optimizer(tensors: Mapping[str, Tensor], stored: Mapping[str, Any]) -> dict[str, Any]:
    state: dict[int, dict[str, Any]] = {int(index): dict(values) for index, values in stored["plain"].items()}
    for name, tensor in tensors.items():
        index, _, key = name.partition("/")
        if stride := stored["strides"].get(name):
            tensor = torch.empty_strided(tensor.shape, stride, dtype=tensor.dtype).copy_(tensor)
        state.setdefault(int(index), {})[key] = tensor
    return {"state": state, "param_groups": stored["param_groups"]}
