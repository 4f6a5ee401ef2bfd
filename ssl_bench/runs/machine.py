"""The machine a run finds: device, workers, memory, versions; and the words for them."""

from __future__ import annotations

import platform
import resource
import subprocess
import sys
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path

import torch

import ssl_bench
from ssl_bench.errors import UserError
from ssl_bench.records.cost import MachineRecord, MemoryRecord
from ssl_bench.records.recipe import MachineSettings
from ssl_bench.runs.device_name import device_name
from ssl_bench.runs.precision import Precision
from ssl_bench.system import cards
from ssl_bench.system.allocator import keep_freed_memory
from ssl_bench.system.limits import cores

RECORDED_PACKAGES = ("sslbench", "torch", "torchvision", "timm", "pillow", "numpy", "faiss-cpu", "faiss-gpu", "lightly")
ON_THE_CPU = "give --set machine.device=cpu"
WITH_GAPS = 1.3
"""Resident size of a step that keeps freed memory, at most, over its tensors: 1.22 for DINO on deit_s16 at 96 px, batch
8 (docs/memory.md)."""


def choose_device(asked: str) -> torch.device:
    """Resolve "auto" to the first card that can be used, else the CPU (`why_not_on_a_card` says why).

    A card has its index, which torch's memory limits need, and becomes the current one of this process.

    Raises `UserError` for a device that is not there or that cannot be used, with what to do.
    """
    if asked == "auto":
        usable = next((index for index in _cards() if not cards.why_unusable(index)), None)
        return torch.device("cpu") if usable is None else _chosen_card(usable)
    try:
        device = torch.device(asked)
    except RuntimeError:
        raise UserError(f"machine.device = {asked!r} is no device; give cpu, cuda, cuda:1, mps or auto") from None
    if device.type == "cuda":
        if not _cards():
            reason = cards.why_no_card() or "torch finds no CUDA device here"
            raise UserError(f"machine.device = {asked!r}: {reason}. Or {ON_THE_CPU}")
        if (device.index or 0) not in _cards():
            raise UserError(f"machine.device = {asked!r}: there are {len(_cards())} CUDA devices, counted from cuda:0")
        if reason := cards.why_unusable(device.index or 0):
            raise UserError(f"machine.device = {asked!r}: {reason}. Or {ON_THE_CPU}")
        return _chosen_card(device.index or 0)
    if device.type == "mps" and not torch.backends.mps.is_available():
        raise UserError(f"machine.device = 'mps': torch finds no such device here; {ON_THE_CPU}")
    return device


def why_not_on_a_card(device: torch.device, asked: str) -> str:
    """Why "auto" became the CPU on a machine with a card, or not its first card, in words for the user; else ""."""
    if asked != "auto":
        return ""
    passed_over = [
        index for index in _cards() if index < (len(_cards()) if device.type == "cpu" else device.index or 0)
    ]
    reasons = [cards.why_unusable(index) for index in passed_over] or [cards.why_no_card()]
    return "; ".join(filter(None, reasons))


def _cards() -> range:
    """Indices of the cards that torch sees."""
    return range(torch.cuda.device_count() if cards.cuda_is_available() else 0)


def _chosen_card(index: int) -> torch.device:
    """Card `index`, from now on also of what is given no device, e.g. the thread that pins batches."""
    device = torch.device("cuda", index)
    torch.cuda.set_device(device)
    return device


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


def set_up(device: torch.device, *, tf32: bool) -> None:
    """Set this process up for evaluations on `device`: TF32 as asked, and on a CPU freed memory stays."""
    set_tf32(tf32, device)
    if device.type == "cpu":
        keep_freed_memory()


def keep_freed_memory_where_it_fits(device: torch.device, memory: MemoryRecord) -> None:
    """On a CPU, freed memory stays with the process where a step leaves room for gaps, and is returned elsewhere."""
    if device.type == "cpu":
        peak = memory.predicted_peak_mb
        roomy = peak is not None and not memory.stepped_down and peak * WITH_GAPS <= memory.usable_mb
        keep_freed_memory(roomy)


def set_tf32(allowed: bool, device: torch.device) -> None:
    """Whether products and convolutions in fp32 may use TF32 on a card; torch alone allows it in convolutions.

    Products by the call that the k-NN search uses too: torch refuses to read a setting that was written both ways.
    """
    allowed = allowed and device.type == "cuda"
    torch.set_float32_matmul_precision("high" if allowed else "highest")
    torch.backends.cudnn.allow_tf32 = allowed


def has_tf32(device: torch.device) -> bool:
    """Cards from Ampere on (compute capability 8.0)."""
    return device.type == "cuda" and torch.cuda.get_device_capability(device) >= (8, 0)


def record(device: torch.device, precision: Precision, settings: MachineSettings) -> MachineRecord:
    """The machine as a record holds it."""
    return MachineRecord(
        device=device_name(device),
        cores=cores(),
        threads=torch.get_num_threads(),
        precision=precision.name,
        precision_reason=precision.reason,
        platform=platform.platform(),
        activation_checkpointing=settings.activation_checkpointing,
        tf32=torch.backends.cuda.matmul.allow_tf32 if has_tf32(device) else None,
        compiled=settings.compile,
        augment_on=settings.augment_on,
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
