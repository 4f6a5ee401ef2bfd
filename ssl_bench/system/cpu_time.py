"""Wall clock, CPU time and time spent waiting for a core: whether another process used the machine meanwhile."""

from __future__ import annotations

import time
from dataclasses import dataclass

SCHEDSTAT = "/proc/self/schedstat"
"""Where Linux counts the nanoseconds in which the main thread waited on the run queue (proc(5))."""


@dataclass(frozen=True)
class Spent:
    """Seconds that something took."""

    wall: float
    cpu: float
    """Of all threads of this process."""
    waited: float | None
    """In which the main thread could have run and had no core; None where the system does not tell (not Linux)."""

    def __add__(self, other: Spent) -> Spent:
        waited = None if self.waited is None or other.waited is None else self.waited + other.waited
        return Spent(self.wall + other.wall, self.cpu + other.cpu, waited)

    def __sub__(self, other: Spent) -> Spent:
        waited = None if self.waited is None or other.waited is None else self.waited - other.waited
        return Spent(self.wall - other.wall, self.cpu - other.cpu, waited)


def clocks() -> Spent:
    """A reading of the clocks now: only differences of two readings mean something."""
    return Spent(time.monotonic(), time.process_time(), _waited())


def _waited() -> float | None:
    try:
        with open(SCHEDSTAT, "rb") as stream:
            return int(stream.read().split()[1]) / 1e9
    except (OSError, IndexError, ValueError):
        return None
