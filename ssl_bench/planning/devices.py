"""How much memory a device has, how much of it tensors can use, and which precisions it computes well."""

from __future__ import annotations

import re
from dataclasses import dataclass

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


@dataclass(frozen=True)
class Device:
    """Something to train on."""

    name: str
    memory: int
    """Bytes."""
    bf16: bool = True
    """Whether it computes in bf16; Pascal and Turing cards only emulate it."""
    is_cpu: bool = False

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
    "1050ti": Device("GTX 1050 Ti", 4 * GB, bf16=False),
    "1060": Device("GTX 1060", 6 * GB, bf16=False),
    "1080ti": Device("GTX 1080 Ti", 11 * GB, bf16=False),
    "t4": Device("Tesla T4", 15 * GB, bf16=False),
    "2080ti": Device("RTX 2080 Ti", 11 * GB, bf16=False),
    "3060": Device("RTX 3060", 12 * GB),
    "3090": Device("RTX 3090", 24 * GB),
    "4090": Device("RTX 4090", 24 * GB),
    "v100": Device("Tesla V100", 16 * GB, bf16=False),
    "a100": Device("A100", 40 * GB),
    "h100": Device("H100", 80 * GB),
}
"""By the name that `--device` takes; memory as sold, of a T4 as its driver reports it."""
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
