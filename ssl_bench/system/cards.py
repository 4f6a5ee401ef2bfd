"""CUDA cards, and whether this build of torch has kernels for them: what `run` and `doctor` must agree on."""

from __future__ import annotations

import os
import platform
import re
import subprocess
import warnings
from collections.abc import Sequence
from dataclasses import dataclass

import torch

NVIDIA_SMI_SECONDS = 5.0
Capability = tuple[int, int]
OLDEST_IN_CUDA_12_6: Capability = (5, 0)
"""The wheels for CUDA 12.6 have kernels from Maxwell on, Pascal (6.x) and Volta (7.0) among them."""
OLDEST_IN_CUDA_13: Capability = (7, 5)
"""CUDA 13, which the default wheels use, dropped everything before Turing."""
CUDA_12_6_LINE = "pip install --force-reinstall torch torchvision --index-url https://download.pytorch.org/whl/cu126"
DEFAULT_LINE = "pip install --upgrade --force-reinstall torch torchvision"


@dataclass(frozen=True)
class InstalledCard:
    """A card as its driver reports it, whatever torch can do with it."""

    name: str
    driver: str
    capability: Capability | None
    """None where the driver is too old to tell."""


def has_kernels(capability: Capability, built_for: Sequence[str]) -> bool:
    """Whether a torch built for these architectures (`torch.cuda.get_arch_list()`) runs on a card.

    Compiled kernels (sm_XY) run on cards of the same major capability and the same or a higher minor one; PTX
    (compute_XY) is compiled for any card from that capability on (CUDA C++ Programming Guide, sections on binary and
    PTX compatibility). Architectures with a letter (sm_90a) are for that card only. An empty or foreign list (ROCm's
    gfx names) tells nothing and counts as yes.
    """
    found = [re.fullmatch(r"(sm|compute)_(\d+)(\d)([a-z]?)", arch) for arch in built_for]
    known = [(one[1], (int(one[2]), int(one[3])), one[4]) for one in found if one is not None]
    if not known:
        return True
    return any(
        capability == built
        or (not letter and kind == "sm" and built[0] == capability[0] and built <= capability)
        or (not letter and kind == "compute" and built <= capability)
        for kind, built, letter in known
    )


def why_no_kernels(index: int) -> str:
    """Why this torch cannot use card `index`, with what to install, e.g. Pascal on a default wheel; "" if it can."""
    capability = torch.cuda.get_device_capability(index)
    built_for = torch.cuda.get_arch_list()
    if has_kernels(capability, built_for):
        return ""
    listed = ", ".join(arch.removeprefix("sm_") for arch in built_for if arch.startswith("sm_"))
    return (
        f"{torch.cuda.get_device_name(index)} has compute capability {capability[0]}.{capability[1]}, and this torch "
        f"({torch.__version__}) has no kernels for it (built for {listed}). {_wheel_for(capability)}"
    )


def _wheel_for(capability: Capability) -> str:
    if capability < OLDEST_IN_CUDA_12_6:
        return "No current torch has: train on the CPU (--set machine.device=cpu)"
    if capability < OLDEST_IN_CUDA_13:
        return f"The build for CUDA 12.6 has: {CUDA_12_6_LINE}"
    return f"A newer one has: {DEFAULT_LINE}"


def why_it_fails(index: int) -> str:
    """Why the first kernel on card `index` fails, e.g. because it is full or another process has it alone; "" if it
    runs."""
    try:
        torch.ones(8, device=f"cuda:{index}").sum().item()
    except (RuntimeError, AssertionError) as error:
        return f"{torch.cuda.get_device_name(index)} cannot be used: {str(error).strip().splitlines()[0]}"
    return ""


def why_unusable(index: int) -> str:
    """Why card `index`, which torch sees, cannot be used, and what to do; "" if it can."""
    return why_no_kernels(index) or why_it_fails(index)


def cuda_is_available() -> bool:
    """`torch.cuda.is_available()` without the warnings of a driver that is too old."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        return torch.cuda.is_available()


def why_no_card() -> str:
    """Why torch sees no card although one is installed, with what to do; "" where there is none, torch sees it, or
    CUDA_VISIBLE_DEVICES hides it on purpose."""
    if cuda_is_available() or hidden_cards() is not None:
        return ""
    cards = installed_cards()
    if not cards:
        return ""
    card = cards[0]
    if torch.version.cuda is None and torch.version.hip is None:
        old = card.capability is not None and card.capability < OLDEST_IN_CUDA_13
        line = CUDA_12_6_LINE if old or platform.system() == "Windows" else DEFAULT_LINE
        return f"{card.name} is installed, and this torch ({torch.__version__}) is a build for the CPU: {line}"
    return (
        f"{card.name} is installed with driver {card.driver}, and this torch (for CUDA {torch.version.cuda}) cannot "
        f"start it: update the driver, or take a build for an older CUDA: {CUDA_12_6_LINE}"
    )


def hidden_cards() -> str | None:
    """CUDA_VISIBLE_DEVICES where it hides every card, else None."""
    given = os.environ.get("CUDA_VISIBLE_DEVICES")
    return given if given is not None and given.strip() in ("", "-1", "none", "NoDevFiles") else None


def installed_cards() -> list[InstalledCard]:
    """What `nvidia-smi` lists; empty where there is no driver."""
    for fields in ("name,driver_version,compute_cap", "name,driver_version"):  # old drivers do not know the last
        try:
            done = subprocess.run(
                ["nvidia-smi", f"--query-gpu={fields}", "--format=csv,noheader"],
                capture_output=True, text=True, timeout=NVIDIA_SMI_SECONDS, check=False,
            )  # fmt: skip
        except (OSError, subprocess.SubprocessError):
            return []
        if done.returncode == 0:
            return [_card(line) for line in done.stdout.splitlines() if line.strip()]
    return []


def _card(line: str) -> InstalledCard:
    """One line of `nvidia-smi`, e.g. "NVIDIA GeForce GTX 1050 Ti, 560.35.03, 6.1"."""
    name, driver, *rest = [word.strip() for word in line.split(",")]
    digits = re.fullmatch(r"(\d+)\.(\d+)", rest[0]) if rest else None
    return InstalledCard(name, driver, (int(digits[1]), int(digits[2])) if digits else None)
