"""A record as a reader sees it: facts, numbers before and after training, curves, pictures, recipe."""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from itertools import pairwise
from pathlib import Path
from typing import TYPE_CHECKING

from ssl_bench.cli.result import interval_text
from ssl_bench.errors import UserError
from ssl_bench.measurement import unit_text
from ssl_bench.records.cost import MicroBatchRecord
from ssl_bench.records.record import DataRecord, EvaluationRecord, RunRecord
from ssl_bench.tables.paths import flatten, plain_text, singular
from ssl_bench.tables.table import TableData, data_title

if TYPE_CHECKING:
    from ssl_bench.measurement import Measurement

POINTS = 8
"""Values of a curve that are shown."""
BARS = "▁▂▃▄▅▆▇█"
SPARKS = 32
SCHEDULED = ("lr", "weight_decay", "teacher_momentum", "target_momentum", "teacher_temperature")
"""Logged values that the recipe decides: their course says nothing about the run."""


@dataclass
class Number:
    """A metric under one protocol on one dataset, of the network before and after training."""

    evaluator: str
    data: str
    last: Measurement
    """The measurement that was read last: name, unit, n and protocol."""
    before: Measurement | None = None
    after: Measurement | None = None

    @property
    def values(self) -> tuple[str, str]:
        """Both values as texts; "" for one that was not measured."""
        before, after = ("" if one is None else f"{one.value:.2f}" for one in (self.before, self.after))
        return before, after

    @property
    def intervals(self) -> tuple[str, str]:
        """Both 95 % intervals as texts."""
        before, after = ("" if one is None else interval_text(one) for one in (self.before, self.after))
        return before, after


@dataclass(frozen=True)
class RecordView:
    """What `sslbench show` prints."""

    name: str
    outcome: str
    """How the run ended, and why."""
    start: str
    """What the network is called before its first step."""
    facts: tuple[tuple[str, str], ...]
    numbers: tuple[Number, ...]
    curves: tuple[tuple[str, str], ...]
    """Network -> its main metric over training; logged value -> its course."""
    pictures: tuple[Path, ...]
    recipe: tuple[tuple[str, str], ...]
    path: Path


def view_of(record: RunRecord, path: Path, problems: list[str]) -> RecordView:
    """The view of a record at `path`; a line in `problems` for a file of curves that cannot be used."""
    outcome = record.status + (f": {record.status_reason}" if record.status_reason else "")
    return RecordView(
        name=record.run_id,
        outcome=outcome,
        start=record.backbone.start,
        facts=tuple((name, text) for name, text in _facts(record) if text),
        numbers=tuple(_numbers(record.evaluations)),
        curves=(*_curves(record, path.parent, problems), *_step_curves(record, path.parent, problems)),
        pictures=tuple(path.parent / one for evaluation in record.evaluations for one in evaluation.pictures),
        recipe=tuple((name, plain_text(value) or "none") for name, value in _recipe(record)),
        path=path,
    )


def _facts(record: RunRecord) -> list[tuple[str, str]]:
    network, data, machine = record.backbone, record.data, record.machine
    tokens = "" if network.tokens is None else f", {network.tokens:,} tokens per image"
    speed = network.inference_images_per_second
    inference = f", images/s {network.inference_note}" if network.inference_note else ""
    if speed is not None:
        checked = "" if network.inference_cpu_share is not None else " (measured without a look at other load)"
        inference = f", {speed:,.0f} images/s at {network.inference_batch} per forward pass{checked}"
    reason = f": {record.preset_reason}" if record.preset_reason else ""
    parameters = f"{network.parameters / 1e6:.1f} M parameters" if record.features is None else "known by its features"
    return [
        (
            "method",
            f"{record.method} ({record.method_plugin}){f', preset {record.preset}' * bool(record.preset)}{reason}",
        ),
        *_origin(record),
        (
            "network",
            f"{network.name} ({network.plugin}), {parameters}{tokens}{inference}"
            + (f", started from {network.pretrained}" if network.pretrained else ""),
        ),
        ("data", _data_text(data)),
        ("evaluated", "; ".join(f"on {_data_text(one)}" for one in record.eval_data)),
        *_training(record),
        (
            "machine",
            singular(f"{machine.device}, {machine.cores} cores, {machine.threads} threads")
            + (f", {machine.precision}" if machine.precision else "")
            + (f" ({machine.precision_reason})" if machine.precision_reason else "")
            + (", activations computed again" if machine.activation_checkpointing else "")
            + (", TF32" if machine.tf32 else "")
            + (", compiled" if machine.compiled else "")
            + (", color of views on the device" if machine.augment_on == "device" else "")
            + f", {machine.platform}",
        ),
        ("note", "; ".join(dict.fromkeys([*record.notes, *(n for one in record.evaluations for n in one.notes)]))),
        ("when", f"{record.started_utc} to {record.finished_utc}"),
        ("code", ", ".join(f"{name} {version}" for name, version in record.versions.items())),
        ("commit", record.git_commit or ""),
        ("command", record.command),
        ("digest", record.digest),
    ]


def _training(record: RunRecord) -> list[tuple[str, str]]:
    """What training cost and how it ended; nothing for weights from elsewhere."""
    training = record.training
    if training is None:
        return []
    often = "once" if training.resumed == 1 else f"{training.resumed} times"
    return [
        (
            "training",
            singular(f"{training.steps:,} steps, {training.epochs:g} epochs, seed {record.seed}, ")
            + f"{_clock(training.seconds)} h, {training.images_per_second:,.1f} images/s, "
            f"peak memory {training.peak_memory_mb:,.0f} MiB"
            + (f", resumed {often}" if training.resumed else "")
            + (f", {training.skipped_steps:,} steps skipped (overflow in fp16)" if training.skipped_steps else ""),
        ),
        ("micro-batches", "; ".join(_micro_batch_text(one, training.steps) for one in training.micro_batches)),
        ("at the end", ", ".join(f"{name} {value:.4g}" for name, value in training.final_logs.items())),
    ]


def _micro_batch_text(part: MicroBatchRecord, steps: int) -> str:
    """E.g. "of 32 images, exact: the gradients are those of the whole batch"."""
    which = "" if part.steps == steps else f" in {part.steps:,} of {steps:,} steps"
    how = "exact: the gradients are those of the whole batch" if part.exact else f"approximate: {part.reason}"
    return f"of {part.images} image{'s' * (part.images > 1)}{which}, {how}"


def _origin(record: RunRecord) -> list[tuple[str, str]]:
    """Where weights from elsewhere are from; nothing for a run."""
    if record.features is not None:
        files = (record.features.train, record.features.test)
        shown = [
            f"{one.name} ({one.shape[0]:,} x {one.shape[1]:,} {one.dtype}, sha256 {one.sha256[:12]})" for one in files
        ]
        return [("features", f"from elsewhere: {', '.join(shown)}")]
    origin = record.weights
    if origin is None:
        return []
    left_out = ", ".join(f"{name} ({count})" for name, count in origin.left_out.items())
    return [
        ("weights", f"from elsewhere: {origin.file}, sha256 {origin.sha256[:12]}, {origin.container}"),
        ("name", " at ".join(filter(None, (origin.name, origin.revision or origin.address)))),
        ("format", f"{origin.format} ({origin.source})" if origin.source else origin.format),
        (
            "loaded",
            f"{origin.network}: all {origin.tensors_used} tensors" + (f"; left out: {left_out}" if left_out else ""),
        ),
        ("changed", "; ".join(origin.notes)),
        ("seen as", origin.preprocessing_source),
    ]


def _data_text(data: DataRecord) -> str:
    test = f" and {data.test_images:,} test" if data.test_images else ""
    classes = f"{data.classes:,} class{'es' * (data.classes != 1)}" if data.classes else "without labels"
    side = f"{data.image_px} px, " if data.image_px else ""  # 0: features alone are known
    return (
        f"{data_title(data.name, data.synthetic)}: {data.train_images:,} training{test} images, {classes}, "
        f"{side}fingerprint {data.fingerprint[:8]}" + "".join(f"; {note}" for note in data.notes)
    )


def _numbers(evaluations: Iterable[EvaluationRecord]) -> Iterable[Number]:
    """Measurements in the order in which they were made, those of both networks together."""
    found: dict[tuple[object, ...], Number] = {}
    for evaluation in sorted(evaluations, key=lambda evaluation: evaluation.made_utc):
        data = TableData.measured_on(evaluation)
        for one in evaluation.measurements:
            key = (evaluation.evaluator, one.metric, one.protocol, data)
            number = found.setdefault(key, Number(evaluation.evaluator, data.title, one))
            number.last = one
            if evaluation.before_training:
                number.before = one
            else:
                number.after = one
    return found.values()


def _curves(record: RunRecord, folder: Path, problems: list[str]) -> list[tuple[str, str]]:
    """One line for the main metric of every network over training; a line in `problems` for a file not to be used."""
    from ssl_bench.records.curves import read_curves

    if record.curves is None:
        return []
    try:
        curves = read_curves(folder, record.curves.sha256)
    except UserError as error:
        problems.append(str(error))
        return []
    lines = []
    for one in curves.series:
        if one.primary:
            points = "  ".join(f"{one.epochs[i]}: {one.values[i]:.1f}" for i in _spread_out(len(one.values)))
            best = f"best {one.values[one.best]:.1f} after epoch {one.epochs[one.best]}"
            unit = unit_text(one.unit)
            words = f"{one.evaluator} {one.metric}{f', {unit}' if unit else ''} by epoch  {points}  ({best})"
            lines.append((one.network, words))
    return lines


def _step_curves(record: RunRecord, folder: Path, problems: list[str]) -> list[tuple[str, str]]:
    """The course of what training logged, in `BARS`; a line in `problems` for a file not to be used."""
    from ssl_bench.records.steps import read_step_curves

    if record.step_curves is None:
        return []
    try:
        curves = read_step_curves(folder, record.step_curves.sha256)
    except UserError as error:
        problems.append(str(error))
        return []
    lines = []
    for name in curves.values:
        values = [value for _, value in curves.curve(name) if math.isfinite(value)]
        if values and name not in SCHEDULED:
            lines.append((name.replace("_", " "), f"{sparkline(values)}  {values[0]:.4g} → {values[-1]:.4g}"))
    return lines


def sparkline(values: Sequence[float]) -> str:
    """At most `SPARKS` bars between the least and the largest mean of as many stretches of `values`.

    >>> sparkline([0.0, 1.0, 2.0, 7.0])
    '▁▂▃█'
    """
    count = min(SPARKS, len(values))
    ends = [round(index * len(values) / count) for index in range(count + 1)]
    means = [math.fsum(values[low:high]) / (high - low) for low, high in pairwise(ends)]
    least, most = min(means), max(means)
    scale = (len(BARS) - 1) / (most - least) if most > least else 0.0
    return "".join(BARS[round((mean - least) * scale)] for mean in means)


def _spread_out(count: int) -> list[int]:
    """At most `POINTS` indices below `count`, evenly spread, the first and the last among them."""
    if count <= POINTS:
        return list(range(count))
    return [round(i * (count - 1) / (POINTS - 1)) for i in range(POINTS)]


def _clock(seconds: float) -> str:
    """Hours, minutes and seconds of any length, e.g. "0:09:00"."""
    minutes, rest = divmod(round(seconds), 60)
    return f"{minutes // 60}:{minutes % 60:02}:{rest:02}"


def _recipe(record: RunRecord) -> Iterable[tuple[str, object]]:
    """Every value under the name that --set takes."""
    flat = flatten({key: value for key, value in record.recipe.items() if key != "eval_data"})
    for number, part in enumerate(record.recipe.get("eval_data") or (), start=1):
        flat |= flatten(part, f"eval_data.{number}")
    for part in record.recipe.get("evaluators") or ():
        settings = part.get("settings") or {}
        flat |= {f"evaluators.{part['name']}.{name}": value for name, value in settings.items()}
    flat.pop("evaluators", None)
    return ((name.replace(".settings.", ".", 1), value) for name, value in flat.items())
