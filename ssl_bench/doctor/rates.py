"""How fast something is, said also on a busy machine: there by the CPU time that it got."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from statistics import median

from ssl_bench.evaluation.speed import Timing, speed_of


@dataclass(frozen=True)
class Rate:
    """Work per second of the wall clock; on a busy machine per second of CPU time on each thread."""

    per_second: float
    by_cpu_time: bool
    """Whether the machine was busy, so that the clock would have shown less."""

    @property
    def reservation(self) -> str:
        """What to say after the figure; "" where the machine was quiet."""
        return " (by CPU time: the machine is busy)" if self.by_cpu_time else ""


def rate_of(rounds: Sequence[Timing], work: int, threads: int, device_type: str) -> Rate:
    """The rate of rounds of so much work each, judged by the rule of all speeds (`evaluation.speed`)."""
    speed = speed_of(rounds, work, threads, device_type)
    if speed.images_per_second is not None:
        return Rate(speed.images_per_second, by_cpu_time=False)
    if device_type != "cpu":  # another program on the card: what it reached once
        return Rate(work / min(one.wall for one in rounds), by_cpu_time=False)
    return Rate(work * threads / max(1e-9, median(one.cpu for one in rounds)), by_cpu_time=True)
