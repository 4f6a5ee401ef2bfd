"""Runs made for tests of figures: records with their curves beside them."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from ssl_bench.records.curves import Curves, summarize_curves, write_curves
from ssl_bench.records.record import RunRecord, write_record
from ssl_bench.records.steps import summarize_step_curves, thinned, write_step_curves
from tests.example_records import evaluation, make_record, measured


def write_run(
    results: Path,
    name: str,
    *,
    logged: Mapping[str, Sequence[float]] | None = None,
    knn: Mapping[str, Sequence[float]] | None = None,
    **record: Any,
) -> RunRecord:
    """A run under `results` with logged values by step, and k-NN by epoch of each network."""
    folder = results / "runs" / name
    folder.mkdir(parents=True)
    if logged:
        count = max(len(values) for values in logged.values())
        rows = [
            {
                "step": step,
                "epoch": step // 4,
                **{key: values[step] for key, values in logged.items() if step < len(values)},
            }
            for step in range(count)
        ]
        write_step_curves(folder, thinned(rows))
    if knn:
        curves = Curves()
        for index in range(max(map(len, knn.values()))):
            done = [
                evaluation("knn", "trained", measured(values[index]), network=network, step=4 * (index + 1))
                for network, values in knn.items()
                if index < len(values)
            ]
            curves = curves.with_evaluations(4 * (index + 1), index + 1, done)
        write_curves(folder, curves)
    made = make_record(
        run_id=name, step_curves=summarize_step_curves(folder), curves=summarize_curves(folder), **record
    )
    write_record(made, folder / "record.json")
    return made
