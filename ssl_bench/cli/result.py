"""What a finished run prints: untrained beside trained, and what can be done next."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

from ssl_bench.system.hints import command, results_of

if TYPE_CHECKING:
    from ssl_bench.measurement import Measurement
    from ssl_bench.records.record import RunRecord


def show_result(record: RunRecord, run_dir: Path) -> None:
    """The run's row: untrained beside trained for every primary measurement."""
    from ssl_bench.measurement import within_noise

    primary: dict[tuple[str, str], dict[str, Any]] = {}
    for evaluation in record.evaluations:
        for one in evaluation.measurements:
            if one.primary:
                itself = evaluation.data_fingerprint == record.data.fingerprint and record.data.test_images
                itself = itself and one.unit == "%"  # ranks and the like are of training images
                key = (f"{evaluation.evaluator} ({one.metric})", "test" if itself else evaluation.data)
                primary.setdefault(key, {})["before" if evaluation.before_training else "trained"] = one
    print()
    print(f"{'':34}{record.backbone.start:>12}{'trained':>12}{'change':>10}" if primary else "nothing was evaluated")
    for (name, data), values in primary.items():
        both = "before" in values and "trained" in values
        change = f"{values['trained'].value - values['before'].value:+.1f}" if both else ""
        cells = [f"{values[subject].value:.1f}" if subject in values else "" for subject in ("before", "trained")]
        unit = next(iter(values.values()))
        print(
            f"  {name:32}{cells[0]:>12}{cells[1]:>12}{change:>10}   {f'{data} {unit.unit_text}'.strip()}, n {unit.n:,}"
        )
        ends = [interval_text(values[subject]) if subject in values else "" for subject in ("before", "trained")]
        if any(ends):
            noise = "the difference is within noise" if both and within_noise(*values.values()) else ""
            print(f"  {'  95 % interval':32}{ends[0]:>12}{ends[1]:>12}{'':10}   {noise}".rstrip())
    if record.backbone.pretrained:
        print(f"\nstart   {record.backbone.pretrained}")
    synthetic = " (synthetic: says nothing about real images)" if record.data.synthetic else ""
    print(f"\ndata    {record.data.name}{synthetic}")
    if record.eval_data:
        print(f"        evaluated on {', '.join(one.name for one in record.eval_data)}")
    print(f"record  {run_dir / 'record.json'}")
    remark = below_the_start(primary, record.backbone.start)
    if remark:
        print(f"\nremark  {remark}")
    for label, advised in zip(("next", "", ""), next_commands(record, run_dir), strict=False):
        print(f"{label:8}{advised}")


def below_the_start(primary: Mapping[tuple[str, str], Mapping[str, Any]], start: str) -> str:
    """What to say of a run whose training made every accuracy worse; "" where one is as good as before, or better.

    `primary` is (name, data) -> "before" or "trained" -> measurement, `start` "untrained" or "pretrained". Evaluators
    of other kinds than k-NN and probe are left out where those two are there: masks and clips are known to fall while
    accuracy grows.
    """
    accuracies = [values for (name, _), values in primary.items() if name.startswith(("knn ", "linear-probe "))]
    pairs = [values for values in accuracies if {"before", "trained"} <= values.keys()]
    falls = [pair["trained"].value < pair["before"].value for pair in pairs]
    if not falls or not all(falls):
        return ""
    lost = "taught the network less than its random weights know"
    if start == "pretrained":
        lost = "lost some of what the weights it started from know"
    return (
        f"every accuracy is below the {start} network's: this training {lost}. Common causes: too few steps "
        "(--epochs), a learning rate that does not suit the batch (--set optimizer.base_lr=...), crops too small to "
        "show the object, or a preset for other data (--preset)."
    )


def next_commands(record: RunRecord, run_dir: Path) -> list[str]:
    """What can be done with a run, as commands that work as they stand from the current folder.

    After a run without labels the evaluation names the data that it still needs, as LABELED.
    """
    kept = run_dir.parent.name == "runs"
    run = run_dir.name if kept else str(run_dir)
    results = results_of(run_dir) if kept else None
    commands = [command("show", run, results=results)]
    if kept:
        commands.append(command("table", results=results))
    if record.status == "finished" and not record.eval_data and not (record.data.classes and record.data.test_images):
        labeled = command("eval", run, "--data", "LABELED", results=results)
        commands.append(f"{labeled}  # accuracy, on images with labels")
    elif record.status == "finished" and record.recipe["evaluators"]:
        commands.append(command("eval", run, results=results))
    return commands


def interval_text(measurement: Measurement) -> str:
    """The ends of a measurement's interval, e.g. "54.5-58.9"; empty where it has none."""
    return "" if measurement.interval is None else "-".join(f"{end:.1f}" for end in measurement.interval)
