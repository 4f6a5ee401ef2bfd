"""The torch build and the cards: name, capability, memory, and whether the build has kernels for them."""

from __future__ import annotations

import torch

from ssl_bench.doctor.findings import Fact, Findings, Problem
from ssl_bench.system import cards

GB = 2**30
HALF = 0.5
"""Share of a card's memory in use by others from which on it is named."""


def examine_devices() -> Findings:
    """The build, then each card that torch sees, then why it sees none where one is installed."""
    facts = [Fact("torch", f"{torch.__version__}, {_build()}")]
    problems = []
    if not cards.cuda_is_available():
        hidden = cards.hidden_cards()
        words = "mps and the CPU" if _has_mps() else "the CPU only"
        words += "" if hidden is None else f" (CUDA_VISIBLE_DEVICES={hidden!r} hides all cards)"
        facts.append(Fact("devices", words))
        if reason := cards.why_no_card():
            problems.append(Problem("broken", reason))
        return Findings(tuple(facts), tuple(problems))
    drivers = {card.name: card.driver for card in cards.installed_cards()}
    for index in range(torch.cuda.device_count()):
        found = _examine_card(index, drivers)
        facts += found.facts
        problems += found.problems
    return Findings(tuple(facts), tuple(problems))


def _examine_card(index: int, drivers: dict[str, str]) -> Findings:
    name = torch.cuda.get_device_name(index)
    major, minor = torch.cuda.get_device_capability(index)
    words = [name, f"compute capability {major}.{minor}"]
    if name in drivers:
        words.append(f"driver {drivers[name]}")
    label = f"cuda:{index}"
    if reason := cards.why_unusable(index):
        return Findings((Fact(label, ", ".join([*words, "cannot be used"])),), (Problem("broken", reason),))
    free, total = torch.cuda.mem_get_info(index)
    facts = (
        Fact(label, ", ".join([*words, f"{free / GB:.1f} of {total / GB:.1f} GB free"])),
        Fact(f"{label} free", f"{free / GB:.1f} GB", free),
        Fact(f"{label} total", f"{total / GB:.1f} GB", total),
        Fact(f"{label} precisions", _precisions(major, minor)),
    )
    problems = []
    if free < (1 - HALF) * total:
        problems.append(
            Problem(
                "slow",
                f"{(total - free) / GB:.1f} of {total / GB:.1f} GB of {name} are in use by other programs: nvidia-smi "
                "shows which; a run gets what is left",
            )
        )
    return Findings(facts, tuple(problems))


def _precisions(major: int, minor: int) -> str:
    """What a card computes natively, by its compute capability (CUDA C++ Programming Guide, arithmetic throughput)."""
    if (major, minor) >= (8, 0):
        return "fp32, TF32, fp16 and bf16"
    if (major, minor) >= (7, 0):
        return "fp32 and fp16; bf16 is only emulated"
    return "fp32; fp16 saves memory and seldom time, bf16 is only emulated"


def _build() -> str:
    if torch.version.hip is not None:
        return f"for ROCm {torch.version.hip}"
    if torch.version.cuda is None:
        return "a build for the CPU" + (" and mps" if _has_mps() else "")
    built_for = ", ".join(arch.removeprefix("sm_") for arch in torch.cuda.get_arch_list())
    return f"for CUDA {torch.version.cuda}" + (f", capabilities {built_for}" if built_for else "")


def _has_mps() -> bool:
    return torch.backends.mps.is_available()
