"""A cell's numbers, one a run, and their interval."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal, NamedTuple

from ssl_bench.measurement import Measurement, Outcomes
from ssl_bench.records.outcomes import OutcomesSource
from ssl_bench.records.record import EvaluationRecord, RunRecord

Ends = tuple[float, float]


class Interval(NamedTuple):
    """Ends of a 95 % interval in the column's unit, and how it was made (`intervals.HOW`)."""

    low: float
    high: float
    how: Literal["one seed", "bootstrap", "without outcomes"]


@dataclass(frozen=True)
class Number:
    """One run's value of a column, in the column's unit, with where it was measured."""

    value: float
    scale: float = 1.0
    """Factor that it was multiplied with."""
    record: RunRecord | None = None
    evaluation: EvaluationRecord | None = None
    measurement: Measurement | None = None
    """None, as the two above, for a number that no evaluator measured."""

    @property
    def interval(self) -> Ends | None:
        """Its own interval over test items."""
        ends = self.measurement.interval if self.measurement else None
        return None if ends is None else scaled(ends, self.scale)

    def outcomes(self, source: OutcomesSource) -> Outcomes | None:
        """What each test item scored, in the evaluator's unit."""
        if self.record is None or self.evaluation is None or self.measurement is None:
            return None
        return source(self.record, self.evaluation, self.measurement.metric)


def scaled(ends: Ends, scale: float) -> Ends:
    """Both ends times `scale`, the lower one first."""
    low, high = ends[0] * scale, ends[1] * scale
    return (low, high) if low <= high else (high, low)
