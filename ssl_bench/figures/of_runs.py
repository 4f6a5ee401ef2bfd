"""The curves of any runs side by side: `sslbench figure curves RUN...`."""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence
from typing import Any

from ssl_bench.errors import UserError, unknown_name
from ssl_bench.figures.curves import RunCurves
from ssl_bench.figures.values import Figure, Line, Panel, Point, Strip, in_brackets
from ssl_bench.records.record import RunRecord
from ssl_bench.tables.paths import plain_text

SCHEDULED = ("lr", "weight_decay", "teacher_momentum", "target_momentum", "teacher_temperature")
"""Logged values that the recipe decides; drawn only when they are asked for."""


def curves_figure(runs: Sequence[RunCurves], values: Sequence[str] | None = None) -> Figure:
    """Every evaluator's main metric by epoch, then every logged value by step, a line for each run and network.

    `values` names some of these panels, e.g. ["knn", "loss"]; None: all but the schedules. Raises `UserError` for an
    unknown name, and where no run has a curve.
    """
    names = short_names(runs) if len(runs) > 1 else [""]  # the title names a single one
    panels = {**_evaluation_panels(runs, names), **_step_panels(runs, names)}
    if not panels:
        folders = ", ".join(str(run.folder) for run in runs)
        raise UserError(
            f"no curve in {folders}: earlier versions wrote no steps.csv, and k-NN over training needs --eval-every"
        )
    for value in values or ():
        if value not in panels:
            raise unknown_name("curve", value, panels, "sslbench figure curves RUN without --values draws them")
    hidden = {*SCHEDULED, *(["cross_entropy"] if _is_the_loss(runs) else [])}
    chosen = values or [name for name in panels if name not in hidden]
    title = f"Curves of {runs[0].folder.name}" if len(runs) == 1 else f"Curves of {len(runs)} runs"
    return Figure("curves", title, "", (Strip("", tuple(panels[name] for name in chosen)),))


def short_names(runs: Sequence[RunCurves]) -> list[str]:
    """What tells the runs apart, e.g. "seed 1, method.local_views=0"; the run's id where that is not enough."""
    facts = [_facts(run.record) for run in runs if run.record]
    if len(facts) < len(runs):  # one still trains: its recipe is not recorded yet
        return [run.folder.name for run in runs]
    keys = list(dict.fromkeys(key for one in facts for key in one))
    differing = [key for key in keys if len({one.get(key, "") for one in facts}) > 1]
    names = [", ".join(one[key] for key in differing if one.get(key)) for one in facts]
    return [name if name and names.count(name) == 1 else run.folder.name for name, run in zip(names, runs, strict=True)]


def _facts(record: RunRecord) -> dict[str, str]:
    facts = {"method": record.method, "arch": record.backbone.name, "data": record.data.name}
    for key, value in (record.changed_settings or {}).items():
        if key != "training.seed":
            facts[key] = f"{key}={_value_text(value)}"
    return facts | {"seed": f"seed {record.seed}"}


def _value_text(value: Any) -> str:
    return f"[{plain_text(value)}]" if isinstance(value, list | tuple) else plain_text(value) or "none"


def _evaluation_panels(runs: Sequence[RunCurves], names: Sequence[str]) -> dict[str, Panel]:
    lines: dict[str, list[Line]] = {}
    titles: dict[str, str] = {}
    networks = list(dict.fromkeys(one.network for run in runs for one in run.epochs.series))
    for index, (run, name) in enumerate(zip(runs, names, strict=True)):
        for one in run.epochs.series:
            if one.primary:
                points = _points(zip(one.epochs, one.values, strict=True))
                several = len({other.network for other in run.epochs.series}) > 1
                called = ", ".join(filter(None, (name, one.network * several)))
                style = index if not several else index * len(networks) + networks.index(one.network)
                lines.setdefault(one.evaluator, []).append(Line(called, points, style, (run.folder.name,), one.unit))
                titles[one.evaluator] = " ".join(filter(None, (one.evaluator, one.metric, in_brackets(one.unit))))
    return {
        evaluator: Panel("lines", evaluator, "epoch", titles[evaluator], tuple(found))
        for evaluator, found in lines.items()
    }


def _step_panels(runs: Sequence[RunCurves], names: Sequence[str]) -> dict[str, Panel]:
    panels = {}
    for value in dict.fromkeys(value for run in runs for value in run.steps.values):
        lines = [
            Line(name, points, index, (run.folder.name,))
            for index, (run, name) in enumerate(zip(runs, names, strict=True))
            if (points := _points(run.steps.curve(value)))
        ]
        if lines:
            panels[value] = Panel("lines", value.replace("_", " "), "step", "", tuple(lines))
    return panels


def _is_the_loss(runs: Sequence[RunCurves]) -> bool:
    """Whether every run's loss is its cross-entropy, which then needs no panel of its own."""
    logged = [run.steps.values for run in runs]
    return all(values.get("cross_entropy") in (None, values.get("loss")) for values in logged)


def _points(pairs: Iterable[tuple[float, float]]) -> tuple[Point, ...]:
    return tuple(Point(float(x), y) for x, y in pairs if math.isfinite(y))
