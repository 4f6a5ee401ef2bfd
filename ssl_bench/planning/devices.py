"""How much memory a device has, how much of it tensors can use, which precisions it computes well, and how fast."""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass, field

from ssl_bench.errors import UserError, did_you_mean

GB = 2**30
"""A card of "4 GB" has 4 x 2^30 bytes."""
CONTEXT = 600 * 2**20
"""Allowance for the CUDA context and the kernels that are loaded."""
WORKSPACES = 0.12
"""Allowance, as a share of all memory, for workspaces of convolutions and products and for fragmentation. Together they
leave 2.9 GB of 4 GB."""
CPU_PROCESS = 900 * 2**20
"""Resident size of a process on a CPU before its tensors: torch, timm, scikit-learn and FAISS."""
UTILIZATION = {"fp32": 0.4, "fp16": 0.25, "bf16": 0.25}
"""Share of a card's peak that training reaches, assumed. Large products in mixed precision reach 21 % to 46 %
(Chowdhery et al. 2022, arXiv 2204.02311, table 3), small ones less; fp32 waits less for memory. Half or twice is
possible."""

PASCAL = ("fp32", "fp16")
"""fp16 products are no faster there than fp32 ones, so it is for where fp32 does not fit."""
TENSOR_CORES = ("fp16",)
"""Volta and Turing: fp16 products are several times as fast; bf16 is only emulated."""
AMPERE = ("bf16",)
"""And later: bf16 is as fast as fp16 and needs no loss scaling."""


@dataclass(frozen=True)
class Device:
    """Something to train on."""

    name: str
    memory: int
    """Bytes."""
    precisions: tuple[str, ...] = ("fp32",)
    """For a recipe that leaves the precision open: the preferred one, then those for where nothing fits in it."""
    teraflops: Mapping[str, float] = field(default_factory=dict)
    """Published peak of products that are added up in float32, by precision, in 10^12 operations per second."""
    is_cpu: bool = False

    def seconds(self, operations: float, precision: str) -> float | None:
        """An estimate of how long so many floating point operations take; None for a device of unknown speed."""
        if precision not in self.teraflops:
            return None
        return operations / (self.teraflops[precision] * 1e12 * UTILIZATION[precision])

    @property
    def usable(self) -> int:
        """Bytes that tensors can use."""
        return max(0, self.memory - CPU_PROCESS if self.is_cpu else int(self.memory * (1 - WORKSPACES)) - CONTEXT)

    def with_usable(self, usable: int) -> int:
        """Bytes that a device of this kind must have, so that tensors can use `usable` of them."""
        return usable + CPU_PROCESS if self.is_cpu else int((usable + CONTEXT) / (1 - WORKSPACES)) + 1

    @property
    def allowance(self) -> str:
        """What is set aside, in words."""
        if self.is_cpu:
            return f"{CPU_PROCESS / GB:.1f} GB for the process itself"
        return f"{CONTEXT / GB:.1f} GB for the CUDA context, {WORKSPACES:.0%} for workspaces and fragmentation"


CARDS = {
    "1050ti": Device("GTX 1050 Ti", 4 * GB, PASCAL, {"fp32": 2.1, "fp16": 2.1}),
    "1060": Device("GTX 1060", 6 * GB, PASCAL, {"fp32": 4.4, "fp16": 4.4}),
    "1080ti": Device("GTX 1080 Ti", 11 * GB, PASCAL, {"fp32": 11.3, "fp16": 11.3}),
    "t4": Device("Tesla T4", 15 * GB, TENSOR_CORES, {"fp32": 8.1, "fp16": 65}),
    "2080ti": Device("RTX 2080 Ti", 11 * GB, TENSOR_CORES, {"fp32": 13.4, "fp16": 53.8}),
    "3060": Device("RTX 3060", 12 * GB, AMPERE, {"fp32": 12.7, "fp16": 25.5, "bf16": 25.5}),
    "3090": Device("RTX 3090", 24 * GB, AMPERE, {"fp32": 35.6, "fp16": 71, "bf16": 71}),
    "4090": Device("RTX 4090", 24 * GB, AMPERE, {"fp32": 82.6, "fp16": 165.2, "bf16": 165.2}),
    "v100": Device("Tesla V100", 16 * GB, TENSOR_CORES, {"fp32": 15.7, "fp16": 125}),
    "a100": Device("A100", 40 * GB, AMPERE, {"fp32": 19.5, "fp16": 312, "bf16": 312}),
    "h100": Device("H100", 80 * GB, AMPERE, {"fp32": 67, "fp16": 989, "bf16": 989}),
}
"""By the name that `--device` takes; memory as sold, of a T4 as its driver reports it. Peaks are those of NVIDIA's data
sheets and architecture papers, dense and without TF32. Pascal's and the 3060's are cores x 2 x boost clock; a 3060's
tensor cores do twice that, as in the GA102 paper's table 2."""
UNITS = {"gb": GB, "gib": GB, "g": GB, "mb": 2**20, "mib": 2**20, "m": 2**20}


def parse_memory(text: str) -> int:
    """Bytes of "4GB", "3500 MB" or "2.5GiB". Raises `UserError` for a number without unit and for anything else."""
    found = re.fullmatch(r"\s*(\d+(?:\.\d+)?)\s*([A-Za-z]*)\s*", text)
    if found is None or found[2].lower() not in (*UNITS, ""):
        raise UserError(f"--memory {text}: no amount of memory. Give a number and a unit, e.g. 4GB or 3500MB")
    if not found[2]:
        raise UserError(f"--memory {text}: lacks a unit. Did you mean {text.strip()}GB? Give e.g. 4GB or 3500MB")
    amount = int(float(found[1]) * UNITS[found[2].lower()])
    if amount == 0:
        raise UserError(f"--memory {text}: give more than nothing, e.g. 4GB")
    return amount


def card(text: str) -> Device:
    """The card that `--device` names, e.g. "1050ti" or "GTX 1050 Ti". Raises `UserError` for one that is not known."""
    key = re.sub(r"[^a-z0-9]", "", text.lower())
    for brand in ("nvidia", "geforce", "tesla", "gtx", "rtx"):
        key = key.removeprefix(brand)
    if key not in CARDS:
        raise UserError(
            f"--device {text}: not a known card.{did_you_mean(key, CARDS)} Known: {', '.join(CARDS)}, and cpu; for "
            "another card give --memory alone, e.g. --memory 8GB"
        )
    return CARDS[key]
