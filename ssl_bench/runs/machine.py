"""The machine a run finds: device, workers, memory, versions; and the words for them."""

from __future__ import annotations

import os
import platform
import resource
import subprocess
import sys
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path

import torch

import ssl_bench
from ssl_bench.errors import UserError
from ssl_bench.records.record import MachineRecord
from ssl_bench.runs.device_name import device_name
from ssl_bench.runs.precision import Precision

RECORDED_PACKAGES = ("sslbench", "torch", "torchvision", "timm", "pillow", "numpy", "faiss-cpu", "faiss-gpu", "lightly")


def choose_device(asked: str) -> torch.device:
    """Resolve "auto" to a GPU that this torch has kernels for, else the CPU. Raises `UserError` for a device that is
    not there or that this build of torch cannot use."""
    if asked == "auto":
        return torch.device("cuda" if torch.cuda.is_available() and not _unsupported_card() else "cpu")
    try:
        device = torch.device(asked)
    except RuntimeError:
        raise UserError(f"machine.device = {asked!r} is no device; give cpu, cuda, cuda:1, mps or auto") from None
    if device.type == "cuda":
        if not torch.cuda.is_available():
            raise UserError(
                f"machine.device = {asked!r}: torch finds no CUDA device here; give --set machine.device=cpu"
            )
        if device.index is not None and device.index >= torch.cuda.device_count():
            raise UserError(f"machine.device = {asked!r}: there are {torch.cuda.device_count()} CUDA devices")
        if reason := _unsupported_card():
            raise UserError(reason)
    if device.type == "mps" and not torch.backends.mps.is_available():
        raise UserError("machine.device = 'mps': torch finds no such device here; give --set machine.device=cpu")
    return device


def _unsupported_card() -> str:
    """Why this torch cannot use the first card, e.g. Pascal on a default wheel; empty when it can."""
    major, minor = torch.cuda.get_device_capability(0)
    built_for = [int(arch.removeprefix("sm_")) for arch in torch.cuda.get_arch_list() if arch.startswith("sm_")]
    if built_for and major * 10 + minor < min(built_for):
        return (
            f"{torch.cuda.get_device_name(0)} has compute capability {major}.{minor}, and this torch was built for "
            f"{min(built_for) / 10} and up. Install the CUDA 12.6 build, which keeps older kernels "
            "(pytorch.org, previous versions), or give --set machine.device=cpu."
        )
    return ""


def cores() -> int:
    """Cores this process may use."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


def choose_workers(asked: int | None, image_px: int, runs: int = 1) -> int:
    """Processes that make views. On few cores training itself needs them, and views of small images cost little.

    `runs` go on side by side and share the cores.
    """
    if asked is not None:
        return asked
    spare = cores() // runs - 1
    return 0 if spare < 2 and image_px <= 96 else max(1, min(8, spare))


def peak_memory_mb(device: torch.device) -> float:
    """Highest memory so far in 2^20 bytes: the allocator's on a GPU, the main process's resident size on a CPU."""
    if device.type == "cuda":
        return torch.cuda.max_memory_allocated(device) / 2**20
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return peak / 2**20 if sys.platform == "darwin" else peak / 2**10


def describe(device: torch.device, precision: Precision, steps: int) -> str:
    """One line for the preflight."""
    where = torch.cuda.get_device_name(device) if device.type == "cuda" else f"{cores()} CPU cores"
    words = f"{where}, {precision.name} ({precision.reason})"
    if precision.step_seconds is not None:
        words += f", about {max(1, round(precision.step_seconds * 1.2 * steps / 60))} min of training"
    return words


def record(device: torch.device, precision: Precision, *, activation_checkpointing: bool) -> MachineRecord:
    """The machine as a record holds it."""
    return MachineRecord(
        device=device_name(device),
        cores=cores(),
        threads=torch.get_num_threads(),
        precision=precision.name,
        precision_reason=precision.reason,
        platform=platform.platform(),
        activation_checkpointing=activation_checkpointing,
    )


def versions() -> dict[str, str]:
    """Python and the packages that can change a result."""
    found = {"python": platform.python_version()}
    for name in RECORDED_PACKAGES:
        try:
            found[name] = version(name)
        except PackageNotFoundError:
            continue
    return found


def git_commit() -> str | None:
    """Commit of the checkout this package runs from, "+changes" when its tracked files differ; None outside of one."""
    root = Path(ssl_bench.__file__).resolve().parent.parent
    if not (root / ".git").exists():
        return None
    try:
        head = _git(root, "rev-parse", "HEAD")
        changed = _git(root, "status", "--porcelain", "--untracked-files=no")
    except (OSError, subprocess.SubprocessError):
        return None
    return head + ("+changes" if changed else "")


def _git(root: Path, *arguments: str) -> str:
    done = subprocess.run(["git", "-C", str(root), *arguments], capture_output=True, text=True, timeout=10, check=True)
    return done.stdout.strip()
