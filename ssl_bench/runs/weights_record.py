"""The recipe and the record of an evaluation of weights that were trained elsewhere."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import UTC, datetime

import torch

from ssl_bench import registry
from ssl_bench.blocks.preprocessing import Preprocessing
from ssl_bench.dataset import Dataset
from ssl_bench.datasets.opening import Found
from ssl_bench.evaluator import Evaluator
from ssl_bench.records.elsewhere import WeightsOrigin, WeightsRecipe
from ssl_bench.records.recipe import DataPart, EvaluatorPart, MachineSettings, Part
from ssl_bench.records.record import BackboneRecord, DataRecord, EvaluationRecord, RunRecord
from ssl_bench.runs import machine
from ssl_bench.runs.describe import describe_dataset
from ssl_bench.runs.precision import Precision
from ssl_bench.runs.weights_network import SEED
from ssl_bench.weights.loaded import Loaded
from ssl_bench.weights.recognize import grouped

ELSEWHERE = "elsewhere"
"""The method of weights of which nothing says how they were trained."""


@dataclass(frozen=True)
class Subject:
    """Loaded weights with the data that they are evaluated on."""

    loaded: Loaded
    found: Found
    dataset: Dataset
    preprocessing: Preprocessing
    """How the network sees images, at the size of the data."""
    evaluators: Sequence[tuple[str, Evaluator]]


def weights_recipe(subject: Subject, method: str | None, *, baseline: bool) -> WeightsRecipe:
    """What decides the evaluation. `method` None: as the format says; `baseline`: beside random weights."""
    loaded, dataset = subject.loaded, subject.dataset
    weights = {"sha256": loaded.recognized.stored.sha256, "network": loaded.candidate.name}
    if baseline:
        weights["beside"] = "untrained"
    return WeightsRecipe(
        method=Part(name=method or loaded.recognized.method or ELSEWHERE, settings={}),
        backbone=Part(name=loaded.plugin, settings=loaded.config.model_dump(mode="json")),
        data=DataPart(
            name=dataset.name,
            path=str(dataset.path) if dataset.path else None,
            fingerprint=dataset.fingerprint,
            image_px=dataset.image_px,
            settings=dataset.config.model_dump(mode="json"),
            plugin=subject.found.plugin,
            train_images=len(dataset.train),
            test_images=0 if dataset.test is None else len(dataset.test),
        ),
        preprocessing=subject.preprocessing.model_dump(mode="json", exclude={"source"}),
        evaluators=evaluator_parts(subject.evaluators, dataset),
        weights=weights,
    )


def evaluator_parts(evaluators: Sequence[tuple[str, Evaluator]], dataset: Dataset) -> tuple[EvaluatorPart, ...]:
    """Evaluators as a recipe holds them."""
    read = {name: evaluator.data(dataset).fingerprint for name, evaluator in evaluators}
    return tuple(
        EvaluatorPart(
            name=name,
            settings=evaluator.config.model_dump(mode="json"),
            fingerprint=None if read[name] == dataset.fingerprint else read[name],
            version=evaluator.version,
        )
        for name, evaluator in evaluators
    )


def weights_record(
    subject: Subject,
    recipe: WeightsRecipe,
    evaluations: Sequence[EvaluationRecord],
    device: torch.device,
    *,
    command: str,
    started_utc: str,
) -> RunRecord:
    """The record of a finished evaluation of weights, with their origin."""
    record = record_without_training(
        recipe, _backbone_record(subject.loaded, subject.dataset.image_px),
        describe_dataset(subject.dataset, recipe.data.plugin, len(subject.dataset.train)), evaluations, device,
        command=command, started_utc=started_utc,
    )  # fmt: skip
    return record.model_copy(update={"weights": _origin(subject.loaded, subject.preprocessing)})


def record_without_training(
    recipe: WeightsRecipe,
    backbone: BackboneRecord,
    data: DataRecord,
    evaluations: Sequence[EvaluationRecord],
    device: torch.device,
    *,
    command: str,
    started_utc: str,
) -> RunRecord:
    """The record of what was trained elsewhere; its origin is left to the caller."""
    precision = Precision("fp32", "", None)
    return RunRecord(
        run_id=recipe.run_id,
        status="finished",
        preset="",
        preset_reason="",
        changed_settings={},
        recipe=recipe.model_dump(mode="json"),
        digest=recipe.digest,
        seed=SEED,
        method=recipe.method.name,
        method_plugin=ELSEWHERE,
        backbone=backbone,
        data=data,
        machine=machine.record(device, precision, MachineSettings()).model_copy(
            update={"precision": "", "compiled": None, "augment_on": None}
        ),  # of training, which was elsewhere
        training=None,
        evaluations=tuple(evaluations),
        versions=machine.versions(),
        git_commit=machine.git_commit(),
        command=command,
        started_utc=started_utc,
        finished_utc=datetime.now(UTC).isoformat(timespec="seconds"),
    )


def _origin(loaded: Loaded, preprocessing: Preprocessing) -> WeightsOrigin:
    recognized, candidate, located = loaded.recognized, loaded.candidate, loaded.recognized.located
    others = [one for one in recognized.candidates if one is not candidate]
    left_out = grouped((*candidate.left_out, *recognized.others))
    left_out |= {one.name: len(one.tensors) + len(one.left_out) for one in others}
    return WeightsOrigin(
        file=located.name if located.revision else recognized.stored.path.resolve().name,
        name=located.name,
        address=located.address,
        revision=located.revision,
        sha256=recognized.stored.sha256,
        container=recognized.stored.container,
        format=recognized.words,
        source=recognized.format.source,
        network=candidate.name,
        tensors_used=loaded.used,
        left_out=left_out,
        notes=loaded.notes,
        preprocessing_source=preprocessing.source,
        settings=dict(recognized.settings),
    )


def _backbone_record(loaded: Loaded, image_px: int) -> BackboneRecord:
    backbone = loaded.backbone
    return BackboneRecord(
        name=loaded.arch,
        plugin=registry.find("backbone", loaded.plugin).origin,
        kind=backbone.kind,
        parameters=backbone.parameter_count,
        tokens=backbone.token_count(image_px, image_px),
    )
