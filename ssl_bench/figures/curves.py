"""Curves of one run, read from the files beside its record, and their mean over the seeds of a row."""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path

from ssl_bench.errors import UserError
from ssl_bench.figures.description import CurveSource
from ssl_bench.figures.values import Point
from ssl_bench.records.curves import Curves, read_curves
from ssl_bench.records.record import RunRecord
from ssl_bench.records.steps import StepCurves, read_step_curves, thinned
from ssl_bench.tables.cells import statistic
from ssl_bench.training.metrics_log import logged_steps

NO_STEPS = StepCurves(0, 1, (), (), {})


@dataclass
class RunCurves:
    """The curves of one run; a file is read once, and one that is damaged leaves a line in `problems`."""

    folder: Path
    record: RunRecord | None
    """None for a run that has not ended."""
    problems: list[str] = field(default_factory=list)

    @cached_property
    def steps(self) -> StepCurves:
        """What training logged: of steps.csv, or of metrics.jsonl where no record names a steps.csv."""
        stored = self.record.step_curves if self.record else None
        if stored is None:
            return thinned(logged_steps(self.folder))
        try:
            return read_step_curves(self.folder, stored.sha256)
        except UserError as error:
            self.problems.append(str(error))
            return NO_STEPS

    @cached_property
    def epochs(self) -> Curves:
        """What evaluators measured during training."""
        stored = self.record.curves if self.record else None
        if self.record and stored is None:
            return Curves()
        try:
            return read_curves(self.folder, stored.sha256 if stored else None)
        except UserError as error:
            self.problems.append(str(error))
            return Curves()

    def names(self) -> list[str]:
        """What a panel may show of this run, e.g. "step:loss" and "epoch:knn.top1_k20"."""
        of_epochs = [f"epoch:{one.evaluator}.{one.metric}" for one in self.epochs.series]
        return [f"step:{name}" for name in self.steps.values] + of_epochs

    def of(self, source: CurveSource, network: str = "") -> tuple[dict[str, list[tuple[float, float]]], str]:
        """Network ("" for logged values) -> its (x, value), and their unit; only `network` where one is named."""
        if source.by == "step":
            points = self.steps.curve(source.name)
            return ({"": [(float(step), value) for step, value in points]} if points else {}), ""
        found: dict[str, list[tuple[float, float]]] = {}
        unit = ""
        for one in self.epochs.series:
            wanted = one.primary if source.name == "primary" else one.metric == source.name
            if one.evaluator == source.evaluator and wanted and network in ("", one.network):
                found[one.network] = [(float(x), y) for x, y in zip(one.epochs, one.values, strict=True)]
                unit = one.unit
        return found, unit


def mean_curve(curves: Sequence[Iterable[tuple[float, float]]]) -> tuple[Point, ...]:
    """The mean at every x over those curves that have a finite value there; `n` says how many."""
    by_x: dict[float, list[float]] = {}
    for curve in curves:
        for x, y in curve:
            if math.isfinite(y):
                by_x.setdefault(x, []).append(y)
    points = []
    for x in sorted(by_x):
        value = statistic(by_x[x])
        points.append(Point(x, value.mean, value.std, value.n))
    return tuple(points)


def networks_of(runs: Iterable[Mapping[str, object]]) -> list[str]:
    """The networks that any of these runs has curves of, in their order."""
    return list(dict.fromkeys(name for run in runs for name in run))
