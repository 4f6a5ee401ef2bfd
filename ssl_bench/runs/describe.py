"""A run in words for the screen and in parts for its record."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable
from pathlib import Path

from ssl_bench import registry
from ssl_bench.backbone import Backbone
from ssl_bench.dataset import Dataset
from ssl_bench.logger import LoggedRun
from ssl_bench.method import Method
from ssl_bench.recipes.resolve import Resolved
from ssl_bench.records.cost import MemoryRecord, MicroBatchRecord, TrainingRecord
from ssl_bench.records.record import BackboneRecord, DataRecord
from ssl_bench.runs import machine
from ssl_bench.tables.paths import flatten
from ssl_bench.training.micro_batches import exactness
from ssl_bench.training.plan import Plan
from ssl_bench.training.state import TrainingState


def announce(
    line: Callable[[str, str], None],
    resolved: Resolved,
    steps_per_epoch: int,
    backbone: BackboneRecord,
    network: Backbone,
) -> None:
    """Show before training what the run is about to do; `backbone` describes `network`."""
    data, recipe = resolved.dataset, resolved.recipe
    made = "synthetic, " if data.synthetic else ""
    line(
        "data",
        f"{data.name} ({made}{images_in_words(data)}, {data.image_px} px)",
    )
    for note in data.notes:
        line("data", note)
    for one in resolved.eval_data:
        line("evaluated", f"on {one.name} ({images_in_words(one)}, {one.image_px} px)")
        for note in one.notes:
            line("evaluated", f"{one.name}: {note}")
    if not resolved.eval_data and not data.labeled:
        names = " and ".join(part.name for part in recipe.evaluators)
        line("evaluated", f"without labels, by {names}" if names else "not at all: there are no labels")
        line("evaluated", "for accuracy add --eval-data with labeled images, now or later: sslbench eval RUN --data")
    line("method", f"{recipe.method.name}, preset {resolved.preset} ({resolved.preset_reason})")
    tokens = tokens_in_words(network, data.image_px)
    start = f", starts from {backbone.pretrained}" if backbone.pretrained else ""
    line("network", f"{recipe.arch}, {_count(backbone.parameters)} parameters{tokens}{start}")
    training = recipe.training
    line(
        "training",
        f"{training.epochs} epoch{'s' * (training.epochs != 1)} of {steps_per_epoch:,} "
        f"step{'s' * (steps_per_epoch != 1)}, "
        f"batch {training.batch_size}, {recipe.optimizer['name']}, seed {training.seed}",
    )


def images_in_words(data: Dataset) -> str:
    """E.g. "600 train, 200 test, 10 classes" or "5,000 unlabeled images"."""
    extra = "" if data.pretraining is data.train else f"{len(data.pretraining):,} to train on, "
    if not data.labeled:
        return f"{extra}{len(data.train):,} unlabeled images"
    assert data.test is not None, "labeled data have a test split"
    return f"{extra}{len(data.train):,} train, {len(data.test):,} test, {count_of_classes(len(data.classes))}"


def count_of_classes(count: int) -> str:
    """E.g. "10 classes" or "1 class"."""
    return f"{count:,} class{'es' * (count != 1)}"


def _count(number: int) -> str:
    return f"{number / 1e6:.1f} M" if number >= 100_000 else f"{number:,}"


def tokens_in_words(network: Backbone, image_px: int) -> str:
    """E.g. ", 21 tokens per image (16 patches, CLS, 4 registers)"; empty for a network without tokens."""
    tokens = network.token_count(image_px, image_px)
    if tokens is None:
        return ""
    if network.patch_px is None:
        return f", {tokens} tokens in the last block"
    counts = Counter(network.prefix_tokens)
    names = [name if count == 1 else f"{count} {name}s" for name, count in counts.items()]
    return f", {tokens} tokens per image ({', '.join([f'{tokens - counts.total()} patches', *names])})"


def describe_backbone(resolved: Resolved, backbone: Backbone) -> BackboneRecord:
    """The evaluated network as a record holds it; its throughput is measured by the runner."""
    recipe = resolved.recipe
    return BackboneRecord(
        name=recipe.arch,
        plugin=registry.find("backbone", recipe.backbone.name).origin,
        kind=backbone.kind,
        parameters=backbone.parameter_count,
        tokens=backbone.token_count(resolved.dataset.image_px, resolved.dataset.image_px),
        inference_images_per_second=None,
        inference_batch=None,
        pretrained=backbone.pretrained,
    )


def describe_data(resolved: Resolved) -> tuple[DataRecord, ...]:
    """The training data, then the evaluation data, as a record holds them."""
    recipe = resolved.recipe
    described = [describe_dataset(resolved.dataset, recipe.data.plugin, len(resolved.training_split))]
    for one, part in zip(resolved.eval_data, recipe.eval_data, strict=True):
        described.append(describe_dataset(one, part.plugin, len(one.train)))
    return tuple(described)


def describe_dataset(data: Dataset, plugin: str, trained_on: int) -> DataRecord:
    """Data as a record holds them; `trained_on` is how many images the split in use has."""
    return DataRecord(
        name=data.name,
        plugin=registry.find("dataset", plugin).origin,
        fingerprint=data.fingerprint,
        synthetic=data.synthetic,
        train_images=trained_on,
        test_images=0 if data.test is None else len(data.test),
        classes=len(data.classes),
        image_px=data.image_px,
        notes=data.notes,
    )


BUSY_WAIT = 0.1
"""Part of the training time spent waiting for a core above which the time says nothing of a method or a network."""


def describe_micro_batches(state: TrainingState, plan: Plan, method: Method) -> tuple[MicroBatchRecord, ...]:
    """Which steps saw their batch in micro-batches, and whether they were exact."""
    described = []
    for images, steps in state.micro_batches.items():
        found = exactness(method, int(images), plan.batch_size)
        described.append(MicroBatchRecord(images=int(images), steps=steps, exact=found.exact, reason=found.reason))
    return tuple(described)


def describe_training(
    state: TrainingState, plan: Plan, method: Method, memory: MemoryRecord | None = None
) -> TrainingRecord:
    """What training cost, as a record holds it, with the evidence that nothing else slowed it down."""
    waited = None if state.waited_seconds is None else state.waited_seconds / max(1e-9, state.seconds)
    note = ""
    if waited is None:
        note = "left out: the system does not tell whether the machine was busy"
    elif waited > BUSY_WAIT:
        note = f"left out, the machine was busy: {waited:.0%} of the time another process had the core"
    peak = state.peak_memory_mb if plan.device.type == "cuda" else 0.0
    return TrainingRecord(
        steps=state.step,
        epochs=state.step / max(1, plan.steps_per_epoch),
        seconds=round(state.seconds, 1),
        cpu_seconds=round(state.cpu_seconds, 1),
        waited_share=None if waited is None else round(max(0.0, waited), 4),
        undisturbed_seconds=None if note else round(state.seconds, 1),
        timing_note=note,
        images_per_second=round(state.step * plan.batch_size / max(1e-9, state.seconds), 2),
        peak_memory_mb=round(peak or machine.peak_memory_mb(plan.device), 1),
        resumed=state.resumed,
        final_logs=state.final_logs,
        micro_batches=describe_micro_batches(state, plan, method),
        memory=memory,
        skipped_steps=state.scaling.skipped_steps,
    )


def describe_logged(resolved: Resolved, run_dir: Path, first_step: int, say: Callable[[str], None]) -> LoggedRun:
    """The run as loggers know it; `say` prints a line of theirs."""
    settings = flatten(resolved.recipe.model_dump(mode="json"))
    named = {name.replace(".settings.", ".", 1): value for name, value in settings.items()}
    return LoggedRun(run_dir.name, run_dir, named, first_step, say)
