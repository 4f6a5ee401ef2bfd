"""A stand-in for `torch.cuda` and `nvidia-smi`: what is made of such facts is tested, and not a real card."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import pytest
import torch

from ssl_bench.system import cards

DEFAULT_WHEEL = ("sm_75", "sm_80", "sm_86", "sm_90", "sm_100", "sm_120", "compute_120")
"""`torch.cuda.get_arch_list()` of torch 2.14 for CUDA 13.0."""
CUDA_12_6_WHEEL = ("sm_50", "sm_60", "sm_70", "sm_75", "sm_80", "sm_86", "sm_90")
GB = 2**30


@dataclass(frozen=True)
class FakeCard:
    name: str
    capability: tuple[int, int]
    free: int = 4 * GB
    total: int = 4 * GB
    fails: str = ""
    """What its first kernel raises."""


PASCAL = FakeCard("NVIDIA GeForce GTX 1050 Ti", (6, 1))
HOPPER = FakeCard("NVIDIA H100 80GB HBM3", (9, 0), 79 * GB, 80 * GB)


def fake_cuda(monkeypatch: pytest.MonkeyPatch, *found: FakeCard, built_for: tuple[str, ...] = DEFAULT_WHEEL) -> None:
    """Let torch see these cards."""
    facade = {
        "is_available": lambda: bool(found),
        "device_count": lambda: len(found),
        "get_device_name": lambda device=0: found[_index(device)].name,
        "get_device_capability": lambda device=0: found[_index(device)].capability,
        "get_arch_list": lambda: list(built_for),
        "mem_get_info": lambda device=0: (found[_index(device)].free, found[_index(device)].total),
        "set_device": lambda device: found[torch.cuda._utils._get_device_index(device)],  # as torch: with an index
    }
    for name, stand_in in facade.items():
        monkeypatch.setattr(torch.cuda, name, stand_in)
    monkeypatch.setattr(cards, "why_it_fails", lambda index: found[index].fails)


def fake_nvidia_smi(monkeypatch: pytest.MonkeyPatch, folder: Path, *lines: str) -> None:
    """An `nvidia-smi` at the front of PATH that lists these cards; without lines it fails."""
    script = folder / "nvidia-smi"
    script.write_text("#!/bin/sh\n" + ("".join(f"echo '{line}'\n" for line in lines) or "exit 9\n"))
    script.chmod(0o755)
    monkeypatch.setenv("PATH", f"{folder}:/usr/bin:/bin")


def _index(device: object) -> int:
    return device if isinstance(device, int) else torch.device(str(device)).index or 0
