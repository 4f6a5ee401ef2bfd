"""Records as pandas data frames: one row per measurement, typed, with every setting in a column of its own."""

from __future__ import annotations

import os
import warnings
from collections.abc import Iterable, Iterator, Mapping, Sequence
from datetime import datetime
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

from ssl_bench.errors import UserError
from ssl_bench.records.curves import read_curves
from ssl_bench.records.reading import read_usable
from ssl_bench.records.record import EvaluationRecord, RunRecord
from ssl_bench.system import hints

MEASURED = {
    "evaluator": "string",
    "metric": "string",
    "value": "float64",
    "unit": "string",
    "n": "int64",
    "interval_low": "float64",
    "interval_high": "float64",
    "primary": "bool",
    "higher_is_better": "bool",
    "subject": "string",
    "network": "string",
    "step": "Int64",
    "eval_data": "string",
    "eval_synthetic": "bool",
    "eval_image_px": "int64",
    "eval_fingerprint": "string",
    "protocol": "string",
    "details": "string",
}
"""Columns of a measurement, with their types."""
CURVES = {
    "network": "string",
    "evaluator": "string",
    "metric": "string",
    "epoch": "int64",
    "step": "int64",
    "value": "float64",
    "unit": "string",
    "n": "int64",
    "primary": "bool",
    "higher_is_better": "bool",
    "protocol": "string",
}
"""Columns of a point of a curve, with their types."""
RUN = {
    "run": "string",
    "method": "string",
    "arch": "string",
    "data": "string",
    "seed": "int64",
    "status": "string",
    "status_reason": "string",
    "preset": "string",
    "digest": "string",
    "synthetic": "bool",
    "data_fingerprint": "string",
    "train_images": "Int64",
    "test_images": "Int64",
    "classes": "Int64",
    "image_px": "Int64",
    "kind": "string",
    "parameters": "int64",
    "tokens": "Int64",
    "pretrained": "string",
    "inference_images_per_second": "float64",
    "steps": "Int64",
    "epochs": "float64",
    "train_seconds": "float64",
    "train_images_per_second": "float64",
    "peak_memory_mb": "float64",
    "resumed": "Int64",
    "machine.device": "string",
    "machine.cores": "int64",
    "machine.threads": "int64",
    "machine.precision": "string",
    "machine.platform": "string",
    "started": "datetime64[us, UTC]",
    "finished": "datetime64[us, UTC]",
    "command": "string",
    "git_commit": "string",
    "notes": "string",
    "folder": "string",
}
"""Columns of a run, with their types; settings, logs and versions come after them."""
FIRST = ("run", "method", "arch", "data")
"""Columns that stand before those of a measurement."""


def load_results(results: str | os.PathLike[str] = hints.RESULTS) -> pd.DataFrame:
    """Every measurement of every run below `results`, as a data frame with one row per measurement.

    - What was measured: `evaluator`, `metric`, `value`, `unit`, `n` (test items), `interval_low` and `interval_high`
      (95 %, NaN where there is none), `primary` (what tables show), `eval_data`, `protocol` (two values compare only
      where it agrees).
    - Of which network: `subject` (trained; untrained, or pretrained where it started from weights), `network`, `step`.
    - The run: `run`, `method`, `arch`, `data`, `seed`, `status` (finished, collapsed, failed), `digest`, cost, machine.
    - Settings under the names that `--set` takes, e.g. `method.local_views`, `training.batch_size`,
      `evaluators.knn.temperature`; lists are tuples, and a setting that a run does not have is missing.
    - `log.NAME`: what training logged, mean of the last epoch. `version.PACKAGE`: versions of packages.

    What `sslbench eval` added is in it; a run without measurements has no row. A damaged record is left out with a
    warning. Raises `UserError` for a folder that holds no runs.
    """
    records = _read(results)
    measured = [
        (index, row)
        for index, (_, record) in enumerate(records)
        for evaluation in record.evaluations
        for row in _measurements(record, evaluation)
    ]
    return _joined(records, measured, MEASURED)


def load_curves(results: str | os.PathLike[str] = hints.RESULTS) -> pd.DataFrame:
    """What runs with `training.eval_every` measured during training, one row per network, metric and epoch.

    Columns `network`, `evaluator`, `metric`, `epoch`, `step`, `value`, `unit`, `n`, `primary`, `protocol`, and those of
    the run as in `load_results`. A damaged file is left out with a warning. Raises `UserError` as `load_results`.
    """
    records = _read(results)
    points = [(index, row) for index, (path, record) in enumerate(records) for row in _points(path.parent, record)]
    return _joined(records, points, CURVES)


def _read(results: str | os.PathLike[str]) -> list[tuple[Path, RunRecord]]:
    folder = Path(results).expanduser()
    if not (folder / "runs").is_dir():
        raise UserError(_no_runs(folder))
    records, problems = read_usable(folder)
    for problem in problems:
        warnings.warn(f"left out: {problem}", stacklevel=3)
    return records


def _no_runs(folder: Path) -> str:
    if not folder.is_dir():
        return f"{folder} is {'a file' if folder.exists() else 'not there'}: give the folder that holds runs/"
    around = next((above for above in folder.absolute().parents if (above / "runs").is_dir()), None)
    advice = f" Did you mean {os.path.relpath(around)!r}?" if around and "runs" in folder.absolute().parts else ""
    return f"{folder} holds no runs/: give the folder that --results names, by default 'results'.{advice}"


def _measurements(record: RunRecord, evaluation: EvaluationRecord) -> Iterator[tuple[Any, ...]]:
    """The values of `MEASURED`, in its order."""
    subject = record.backbone.start if evaluation.subject == "untrained" else evaluation.subject
    for one in evaluation.measurements:
        low, high = one.interval or (np.nan, np.nan)
        yield (
            evaluation.evaluator, one.metric, one.value, one.unit, one.n, low, high, one.primary, one.higher_is_better,
            subject, evaluation.network, evaluation.step, evaluation.data, evaluation.synthetic, evaluation.image_px,
            evaluation.data_fingerprint, str(one.protocol), one.details,
        )  # fmt: skip


def _points(folder: Path, record: RunRecord) -> Iterator[tuple[Any, ...]]:
    """The values of `CURVES`, in its order."""
    if record.curves is None:
        return
    try:
        curves = read_curves(folder, record.curves.sha256)
    except UserError as error:
        warnings.warn(f"left out: {error}", stacklevel=4)
        return
    for one in curves.series:
        for step, epoch, value in zip(one.steps, one.epochs, one.values, strict=True):
            yield (
                one.network, one.evaluator, one.metric, epoch, step, value, one.unit, one.n, one.primary,
                one.higher_is_better, str(one.protocol),
            )  # fmt: skip


def _joined(
    records: Sequence[tuple[Path, RunRecord]], rows: Sequence[tuple[int, tuple[Any, ...]]], types: Mapping[str, str]
) -> pd.DataFrame:
    """The rows, each beside the columns of the run whose index it has."""
    columns = zip(*(row for _, row in rows), strict=True) if rows else ((),) * len(types)
    values = pd.DataFrame(
        {name: pd.Series(list(column), dtype=types[name]) for name, column in zip(types, columns, strict=True)}
    )
    runs = _runs(records).take([index for index, _ in rows]).reset_index(drop=True)
    rest = [name for name in runs.columns if name not in FIRST]
    return pd.concat([runs[list(FIRST)], values, runs[rest]], axis=1)


def _runs(records: Sequence[tuple[Path, RunRecord]]) -> pd.DataFrame:
    """One row per run: `RUN`, then settings, logs and versions."""
    facts = [_facts(path, record) for path, record in records]
    columns = {name: pd.Series([fact[name] for fact in facts], dtype=kind) for name, kind in RUN.items()}
    free = [_free_values(record) for _, record in records]
    for name in dict.fromkeys(name for values in free for name in values):
        columns[name] = typed([values.get(name) for values in free])
    return pd.DataFrame(columns)


def _facts(path: Path, record: RunRecord) -> dict[str, Any]:
    """The values of `RUN`."""
    data, network, training, machine = record.data, record.backbone, record.training, record.machine
    return {
        "run": record.run_id,
        "method": record.method,
        "arch": network.name,
        "data": data.name,
        "seed": record.seed,
        "status": record.status,
        "status_reason": record.status_reason,
        "preset": record.preset,
        "digest": record.digest,
        "synthetic": data.synthetic,
        "data_fingerprint": data.fingerprint,
        "train_images": data.train_images,
        "test_images": data.test_images,
        "classes": data.classes,
        "image_px": data.image_px,
        "kind": network.kind,
        "parameters": network.parameters,
        "tokens": network.tokens,
        "pretrained": network.pretrained or None,
        "inference_images_per_second": network.inference_images_per_second,
        "steps": training and training.steps,
        "epochs": training and training.epochs,
        "train_seconds": training and training.seconds,
        "train_images_per_second": training and training.images_per_second,
        "peak_memory_mb": training and training.peak_memory_mb,
        "resumed": training and training.resumed,
        "machine.device": machine.device,
        "machine.cores": machine.cores,
        "machine.threads": machine.threads,
        "machine.precision": machine.precision,
        "machine.platform": machine.platform,
        "started": _time(record.started_utc),
        "finished": _time(record.finished_utc),
        "command": record.command,
        "git_commit": record.git_commit,
        "notes": "; ".join(record.notes) or None,
        "folder": os.fspath(path.parent),
    }


def _time(text: str) -> datetime | None:
    try:
        return datetime.fromisoformat(text)
    except ValueError:
        return None


def _free_values(record: RunRecord) -> dict[str, Any]:
    """Every setting under the name that `--set` takes, every log and every version."""
    recipe = record.recipe
    values: dict[str, Any] = {}
    for section in ("method", "backbone", "data"):
        values |= _prefixed(section, recipe[section]["settings"])
    for section in ("optimizer", "training"):
        values |= _prefixed(section, recipe.get(section, {}))  # weights from elsewhere have neither
    for part in recipe["evaluators"]:
        values |= _prefixed(f"evaluators.{part['name']}", part["settings"])
    return (
        values
        | _prefixed("log", record.training.final_logs if record.training else {})
        | _prefixed("version", record.versions)
    )


def _prefixed(prefix: str, values: Mapping[str, Any]) -> dict[str, Any]:
    return {f"{prefix}.{name}": value for name, value in values.items()}


def typed(values: Sequence[Any]) -> pd.Series[Any]:
    """The values as a column of the narrowest type that holds them all and lets some be missing (None).

    Lists become tuples, so that rows can be grouped by them.
    """
    kinds = {type(value) for value in values if value is not None}
    if kinds and kinds <= {bool}:
        return pd.Series(values, dtype="boolean")
    if kinds and kinds <= {int}:
        return pd.Series(values, dtype="Int64")
    if kinds and kinds <= {int, float}:
        return pd.Series([np.nan if value is None else float(value) for value in values], dtype="float64")
    if kinds and kinds <= {str}:
        return pd.Series(values, dtype="string")
    return pd.Series([_hashable(value) for value in values], dtype="object")


def _hashable(value: Any) -> Any:
    if isinstance(value, Mapping):
        return tuple((key, _hashable(inner)) for key, inner in value.items())
    if isinstance(value, Iterable) and not isinstance(value, str):
        return tuple(_hashable(inner) for inner in value)
    return value
