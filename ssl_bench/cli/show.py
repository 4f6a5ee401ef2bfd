"""`sslbench show`: one run's record in words."""

from __future__ import annotations

import sys
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from ssl_bench.cli.encodings import print_json
from ssl_bench.cli.options import RESULTS
from ssl_bench.cli.result import interval_text
from ssl_bench.cli.width import print_folded
from ssl_bench.errors import UserError
from ssl_bench.hints import resume_command

HANG = 13
"""Where the text of a fact begins."""
POINTS = 8
"""Values of a curve that are shown."""

if TYPE_CHECKING:
    from ssl_bench.records.record import EvaluationRecord, RunRecord


def register(app: typer.Typer) -> None:
    """Add the verb."""

    @app.command(epilog="Example, after `sslbench run dino --arch deit_s16`: sslbench show dino")
    def show(
        run: Annotated[
            str,
            typer.Argument(metavar="RUN", help="a run's id, the beginning of one, its folder or its record.json"),
        ],
        results: Annotated[Path, typer.Option(metavar="DIR", help="where runs are kept")] = RESULTS,
        as_json: Annotated[
            bool, typer.Option("--json", help="the whole record as JSON, later evaluations joined in")
        ] = False,
    ) -> None:
        """Show one run: what, when and where, its recipe, untrained against trained with the protocol, and its cost."""
        from ssl_bench.records.odd_values import require_usable
        from ssl_bench.records.record import read_record, with_later_evaluations
        from ssl_bench.runs.folder import find_run

        folder = find_run(run, results)
        path = folder / "record.json"
        if not path.exists():
            print(f"{folder} is an unfinished run: it has no record yet. Resume with: {resume_command(folder)}")
            raise typer.Exit(1)
        problems: list[str] = []
        record = with_later_evaluations(read_record(path), folder, problems)
        require_usable(record, path)
        if as_json:
            print_json(record.model_dump(mode="json"))
        else:
            print_folded(describe_record(record, path, _curves(record, folder, problems)), HANG)
        for problem in problems:
            print(f"warning: left out: {problem}", file=sys.stderr)
        if problems:
            raise typer.Exit(1)


def _curves(record: RunRecord, folder: Path, problems: list[str]) -> list[str]:
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
            lines.append(f"  {one.network:<11}{one.evaluator} {one.metric}, {one.unit} by epoch  {points}  ({best})")
    return lines


def _spread_out(count: int) -> list[int]:
    """At most `POINTS` indices below `count`, evenly spread, the first and the last among them."""
    if count <= POINTS:
        return list(range(count))
    return [round(i * (count - 1) / (POINTS - 1)) for i in range(POINTS)]


def _training(record: RunRecord) -> list[tuple[str, str]]:
    """What training cost and how it ended; nothing for weights from elsewhere."""
    from ssl_bench.tables.paths import singular

    training = record.training
    if training is None:
        return []
    return [
        (
            "training",
            singular(f"{training.steps:,} steps, {training.epochs:g} epochs, seed {record.seed}, ")
            + f"{_clock(training.seconds)} h, {training.images_per_second:,.1f} images/s, "
            f"peak memory {training.peak_memory_mb:,.0f} MiB"
            + (f", resumed {training.resumed} times" if training.resumed else ""),
        ),
        ("at the end", ", ".join(f"{name} {value:.4g}" for name, value in training.final_logs.items())),
    ]


def _origin(record: RunRecord) -> list[tuple[str, str]]:
    """Where weights from elsewhere are from; nothing for a run."""
    origin = record.weights
    if origin is None:
        return []
    left_out = ", ".join(f"{name} ({count})" for name, count in origin.left_out.items())
    return [
        ("weights", f"from elsewhere: {origin.file}, sha256 {origin.sha256[:12]}, {origin.container}"),
        ("format", f"{origin.format} ({origin.source})" if origin.source else origin.format),
        (
            "loaded",
            f"{origin.network}: all {origin.tensors_used} tensors" + (f"; left out: {left_out}" if left_out else ""),
        ),
        ("changed", "; ".join(origin.notes)),
        ("seen as", origin.preprocessing_source),
    ]


def describe_record(record: RunRecord, path: Path, curves: Sequence[str] = ()) -> list[str]:
    """The record in lines for a reader; `curves` are the lines on what was measured during training."""
    from ssl_bench.tables.paths import flatten, plain_text, singular
    from ssl_bench.tables.table import data_title

    network, data, machine = record.backbone, record.data, record.machine
    tokens = "" if network.tokens is None else f", {network.tokens:,} tokens per image"
    speed = network.inference_images_per_second
    inference = f", images/s {network.inference_note}" if network.inference_note else ""
    if speed is not None:
        checked = "" if network.inference_cpu_share is not None else " (measured without a look at other load)"
        inference = f", {speed:,.0f} images/s at {network.inference_batch} per forward pass{checked}"
    reason = f": {record.preset_reason}" if record.preset_reason else ""
    facts = [
        (
            "method",
            f"{record.method} ({record.method_plugin}){f', preset {record.preset}' * bool(record.preset)}{reason}",
        ),
        *_origin(record),
        (
            "network",
            f"{network.name} ({network.plugin}), {network.parameters / 1e6:.1f} M parameters{tokens}{inference}"
            + (f", started from {network.pretrained}" if network.pretrained else ""),
        ),
        (
            "data",
            f"{data_title(data.name, data.synthetic)}: {data.train_images:,} training and {data.test_images:,} test "
            f"images, {data.classes} classes, {data.image_px} px, fingerprint {data.fingerprint[:8]}"
            + "".join(f"; {note}" for note in data.notes),
        ),
        *_training(record),
        (
            "machine",
            singular(f"{machine.device}, {machine.cores} cores, {machine.threads} threads, {machine.precision}")
            + (f" ({machine.precision_reason})" if machine.precision_reason else "")
            + f", {machine.platform}",
        ),
        ("note", "; ".join(record.notes)),
        ("when", f"{record.started_utc} to {record.finished_utc}"),
        ("code", ", ".join(f"{name} {version}" for name, version in record.versions.items())),
        ("commit", record.git_commit or ""),
        ("command", record.command),
        ("digest", record.digest),
    ]
    outcome = record.status + (f": {record.status_reason}" if record.status_reason else "")
    lines = [f"{record.run_id}  {outcome}", ""]
    lines += [f"  {name:<11}{text}" for name, text in facts if text]
    lines += ["", *_measured(record.evaluations, network.start), ""]
    lines += ["during training", *curves, ""] if curves else []
    pictures = [picture for evaluation in record.evaluations for picture in evaluation.pictures]
    lines += ["pictures", *(f"  {path.parent / picture}" for picture in pictures), ""] if pictures else []
    lines += ["recipe"]
    lines += [f"  {name} = {plain_text(value) or 'none'}" for name, value in _recipe(record, flatten(record.recipe))]
    return [*lines, "", f"record  {path}"]


def _clock(seconds: float) -> str:
    """Hours, minutes and seconds of any length, e.g. "0:09:00"."""
    minutes, rest = divmod(round(seconds), 60)
    return f"{minutes // 60}:{minutes % 60:02}:{rest:02}"


def _recipe(record: RunRecord, flat: dict[str, object]) -> Iterable[tuple[str, object]]:
    """Every value under the name that --set takes."""
    for part in record.recipe.get("evaluators") or ():
        settings = part.get("settings") or {}
        flat |= {f"evaluators.{part['name']}.{name}": value for name, value in settings.items()}
    flat.pop("evaluators", None)
    return ((name.replace(".settings.", ".", 1), value) for name, value in flat.items())


def _measured(evaluations: Iterable[EvaluationRecord], start: str) -> list[str]:
    """One line a metric, before and after training side by side, with the protocol under it; main numbers with a star.

    `start` is what the network is called before its first step.
    """
    from ssl_bench.tables.table import data_title

    found: dict[tuple[str, str, str, str], dict[str, float]] = {}
    about: dict[tuple[str, str, str, str], tuple[str, str, int]] = {}
    intervals: dict[tuple[str, str, str, str], dict[str, str]] = {}
    for evaluation in sorted(evaluations, key=lambda evaluation: evaluation.made_utc):
        subject = start if evaluation.before_training else "trained"
        for m in evaluation.measurements:
            on = data_title(evaluation.data, evaluation.synthetic)
            key = (evaluation.evaluator, m.metric, m.protocol.text, on)
            found.setdefault(key, {})[subject] = m.value
            about[key] = ("*" if m.primary else " ", m.unit, m.n)
            if m.interval is not None:
                intervals.setdefault(key, {})[subject] = interval_text(m)
    if not found:
        return ["  nothing was measured"]
    width = max(len(f"{evaluator} {metric}") for evaluator, metric, _, _ in found)
    lines = [f"  {'':<{width + 2}}{start:>10}{'trained':>10}"]
    protocol = ""
    for key, values in found.items():
        if protocol not in ("", key[2]):
            lines.append(f"      {protocol}")  # once below all numbers that follow it
        protocol = key[2]
        star, unit, n = about[key]
        texts = [f"{values[subject]:.2f}" if subject in values else "" for subject in (start, "trained")]
        lines.append(f"  {star} {f'{key[0]} {key[1]}':<{width}}{texts[0]:>10}{texts[1]:>10}  {unit} of {n:,}, {key[3]}")
        if key in intervals:
            ends = ", ".join(f"{subject} {interval}" for subject, interval in intervals[key].items())
            lines.append(f"    {'95 % interval':<{width}}  {ends}")
    return [*lines, f"      {protocol}"]
