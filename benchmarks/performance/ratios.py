"""A figure of ours against a peer's, both measured in one run by turns, with the evidence for it."""

from __future__ import annotations

import statistics
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass

from ssl_bench.evaluation.speed import BUSY, Timing, cpu_share


@dataclass(frozen=True)
class Goal:
    """Where a ratio should lie; without bounds it is only shown."""

    at_least: float | None = None
    at_most: float | None = None

    def met(self, ratio: float) -> bool | None:
        """None without bounds."""
        if self.at_least is None and self.at_most is None:
            return None
        return (self.at_least is None or ratio >= self.at_least) and (self.at_most is None or ratio <= self.at_most)

    @property
    def words(self) -> str:
        """E.g. "at least 1.25"."""
        if self.at_least is not None and self.at_most is not None:
            return f"{self.at_least:g} to {self.at_most:g}"
        if self.at_least is not None:
            return f"at least {self.at_least:g}"
        return "" if self.at_most is None else f"at most {self.at_most:g}"


@dataclass(frozen=True)
class Ratio:
    """One row of the table. `ratio` is the median over `n` turns; `spread` the lowest and the highest of them."""

    name: str
    """What is compared, e.g. "DINO step, deit_s16, fp32"."""
    against: str
    """The peer, e.g. "lightly's step"."""
    ours: float
    peer: float
    """Medians, in `unit`."""
    unit: str
    ratio: float
    """How many times as good as the peer where `goal` is a lower bound; ours / peer where it is an upper one."""
    spread: tuple[float, float]
    n: int
    goal: Goal
    cpu_share: float | None = None
    """CPU time / (clock time x threads) of both: near 1 where nothing else ran. None where no time was compared."""
    ratio_by_cpu_time: float | None = None
    """The same ratio from CPU seconds, which other processes disturb little."""

    @property
    def busy(self) -> bool:
        """Whether something else used the cores meanwhile."""
        return self.cpu_share is not None and self.cpu_share < BUSY


def by_turns(
    ours: Callable[[], object],
    peer: Callable[[], object],
    repeats: int,
    *,
    warm_up: bool = True,
    after: Callable[[], object] = lambda: None,
) -> list[tuple[Timing, Timing]]:
    """(ours, peer) timed `repeats` times, the one that begins alternating; `after` each turn may compare results."""
    if warm_up:
        ours()
        peer()
    pairs = []
    for turn in range(repeats):
        timings = {}
        for side, work in (("ours", ours), ("peer", peer))[:: 1 if turn % 2 == 0 else -1]:
            begun = time.perf_counter(), time.process_time()
            work()
            timings[side] = Timing(time.perf_counter() - begun[0], time.process_time() - begun[1])
        after()
        pairs.append((timings["ours"], timings["peer"]))
    return pairs


def faster(
    name: str, against: str, pairs: Sequence[tuple[Timing, Timing]], threads: int, goal: Goal, *, work: int = 1
) -> Ratio:
    """How many times as fast as the peer, from `by_turns`; `work` is what one timing did, so that ms are of one."""
    ratios = [peer.wall / max(1e-12, ours.wall) for ours, peer in pairs]
    return Ratio(
        name=name,
        against=against,
        ours=1000 * statistics.median(ours.wall for ours, _ in pairs) / work,
        peer=1000 * statistics.median(peer.wall for _, peer in pairs) / work,
        unit="ms",
        ratio=statistics.median(ratios),
        spread=(min(ratios), max(ratios)),
        n=len(pairs),
        goal=goal,
        cpu_share=cpu_share([one for pair in pairs for one in pair], threads),
        ratio_by_cpu_time=statistics.median(peer.cpu / max(1e-12, ours.cpu) for ours, peer in pairs),
    )


def share(
    name: str,
    against: str,
    values: Sequence[tuple[float, float]],
    unit: str,
    goal: Goal,
    *,
    cpu_share: float | None = None,
) -> Ratio:
    """Ours as a share of the peer's, e.g. memory or floating-point operations per second; not of times."""
    ratios = [ours / peer for ours, peer in values]
    ours, peer = (statistics.median(pair[side] for pair in values) for side in (0, 1))
    return Ratio(
        name, against, ours, peer, unit, statistics.median(ratios), (min(ratios), max(ratios)), len(values), goal,
        cpu_share,
    )  # fmt: skip
