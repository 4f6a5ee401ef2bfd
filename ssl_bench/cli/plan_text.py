"""A plan as lines for a terminal and as a JSON document."""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Iterator
from typing import Any

from ssl_bench.evaluation.speed import THROUGHPUT_BATCH
from ssl_bench.planning.choices import Way
from ssl_bench.planning.devices import GB, UTILIZATION
from ssl_bench.planning.step_memory import PARTS
from ssl_bench.recipes.resolve import Resolved
from ssl_bench.runs.planned_step import StepPlan

MB = 2**20


def lines(plan: StepPlan, resolved: Resolved, run: str, measured: float | None = None) -> Iterator[str]:
    """The whole plan; `run` is the command that does it where it fits, `measured` the seconds of an epoch, if known."""
    device, data, batch = plan.device, resolved.dataset, resolved.recipe.training.batch_size
    yield f"  data      {data.name}, {len(resolved.training_split):,} images, {data.image_px} px"
    yield f"  method    preset {resolved.preset} ({resolved.preset_reason}), batch {batch}"
    usable = f"{device.usable / GB:.1f} GB usable: an allowance of {device.allowance}"
    yield f"  memory    {device.memory / GB:.1f} GB of {device.name}, {usable}"
    if plan.note:
        yield f"  measured  {plan.note}"
    yield ""
    yield from _table(plan)
    yield from _time(plan, measured)
    yield from _evaluation(plan)
    yield ""
    yield from _conclusion(plan, run)


def _table(plan: StepPlan) -> Iterator[str]:
    ways, fastest = plan.ways, min(way.work for way in plan.ways)
    columns = [way.choice.words for way in ways]
    rows = [(part, [f"{way.memory.parts[part] / MB:,.0f} MB" for way in ways]) for part in PARTS]
    rows.append(("peak", [f"{way.memory.peak / MB:,.0f} MB" for way in ways]))
    rows.append(("fits", ["yes" if way.memory.peak <= plan.device.usable else "no" for way in ways]))
    rows.append(("exact", ["yes" if way.exact else "no" for way in ways]))
    rows.append(("time, relative", [f"{way.work / fastest:.2f}" for way in ways]))
    epochs = [plan.epoch_seconds(way) for way in ways]
    if None not in epochs:
        rows.append(("time per epoch, estimated", [duration(seconds or 0.0) for seconds in epochs]))
    width = max(len(cell) for cells in (columns, *(cells for _, cells in rows)) for cell in cells) + 2
    yield " " * 28 + "".join(words.rjust(width) for words in columns)
    for name, cells in rows:
        yield f"  {name:<26}" + "".join(cell.rjust(width) for cell in cells)


def _time(plan: StepPlan, measured: float | None) -> Iterator[str]:
    """Where the time of an epoch comes from."""
    device, way = plan.device, plan.chosen or plan.ways[0]
    precision, steps = way.choice.precision, f"{plan.steps_per_epoch:,} steps"
    yield ""
    if measured is not None:
        yield f"  time        {duration(measured)} per epoch of {steps}, measured here in a few steps"
    elif precision in device.teraflops:
        peak = f"{UTILIZATION[precision]:.0%} of the {device.teraflops[precision]:g} TFLOPS that are published"
        yield f"  time        {steps} of {way.memory.operations / 1e12:.2f} x 10^12 operations, at {peak}: an estimate"
        yield "              that can be half or twice the truth, and without loading images"
    elif device.is_cpu:
        yield "  time        relative only; --measure does a few steps here and says how long an epoch takes"
    else:
        yield "  time        relative only: name the card, e.g. --device 1050ti, for an estimate per epoch"


def duration(seconds: float) -> str:
    """E.g. "50 s", "12 min", "3.4 h" or "2.1 days"."""
    for unit, size in (("days", 86400), ("h", 3600)):
        if seconds >= 1.5 * size:
            return f"{seconds / size:,.1f} {unit}"
    return f"{seconds / 60:.0f} min" if seconds >= 90 else f"{seconds:.0f} s"


def _evaluation(plan: StepPlan) -> Iterator[str]:
    """Weights and moments stay where they are while the trained network is evaluated."""
    step = plan.step
    extraction, search = step.held + plan.evaluation.extraction, step.held + plan.evaluation.search
    images = f" with {plan.images_per_pass} images per forward pass" if plan.images_per_pass < THROUGHPUT_BATCH else ""
    on_device = search <= plan.device.usable
    yield ""
    features = f"features of all images take {plan.evaluation.features / GB:.1f} GB of RAM"
    yield f"  evaluation  {extraction / GB:.1f} GB{images}; {features}"
    yield f"  k-NN        {search / GB:.1f} GB for its search{'' if on_device else ', so it is done in RAM'}"
    sizes = {"training": step.peak, "evaluation": extraction, **({"k-NN": search} if on_device else {})}
    largest = max(sizes, key=lambda name: sizes[name])
    yield f"  largest     {largest}, {sizes[largest] / GB:.1f} GB"


def _conclusion(plan: StepPlan, run: str) -> Iterator[str]:
    if plan.chosen is not None:
        yield f"fits: {run}"
        if plan.approximate:
            yield f"Approximate: {plan.approximate}. The record and tables will say so."
        if plan.evaluation_peak > plan.device.usable:
            yield (
                f"Only training fits: evaluating takes {plan.evaluation_peak / GB:.1f} GB with {plan.images_per_pass} "
                f"image{'s' * (plan.images_per_pass > 1)} per forward pass. Take smaller images (--set data.image_px), "
                "a smaller network, or a set with fewer images."
            )
        return
    assert plan.smallest is not None
    least = plan.smallest
    needed = math.ceil(10 * plan.device.with_usable(least.memory.peak) / GB) / 10
    yield f"nothing fits. The smallest way takes {least.memory.peak / GB:.2f} GB ({least.choice.words})."
    yield (
        f"It needs a device of {needed} GB: --memory {needed}GB. Or take a smaller network (--arch), smaller images "
        "(--set data.image_px), or a smaller head or fewer views (sslbench run METHOD --help)."
    )


def as_document(plan: StepPlan, resolved: Resolved, measured: float | None = None) -> dict[str, Any]:
    """For `--json`; `measured` as in `lines`."""
    device, usable = plan.device, plan.device.usable
    return {
        "method": resolved.recipe.method.name,
        "arch": resolved.recipe.arch,
        "batch_size": resolved.recipe.training.batch_size,
        "device": device.name,
        "memory_bytes": device.memory,
        "usable_bytes": usable,
        "note": plan.note,
        "evaluation": {**dataclasses.asdict(plan.evaluation), "images_per_pass": plan.images_per_pass},
        "ways": [_way(way, plan) for way in plan.ways],
        "chosen": None if plan.chosen is None else _way(plan.chosen, plan),
        "steps_per_epoch": plan.steps_per_epoch,
        "measured_seconds_per_epoch": measured,
        "approximate": plan.approximate,
    }


def _way(way: Way, plan: StepPlan) -> dict[str, Any]:
    return {
        "precision": way.choice.precision,
        "activation_checkpointing": way.choice.checkpointing,
        "micro_batch": way.choice.micro_batch,
        "peak_bytes": way.memory.peak,
        "parts": dict(way.memory.parts),
        "operations": way.memory.operations,
        "estimated_seconds_per_epoch": plan.epoch_seconds(way),
        "fits": way.memory.peak <= plan.device.usable,
        "exact": way.exact,
    }
