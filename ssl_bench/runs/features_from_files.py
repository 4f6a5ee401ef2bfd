"""Evaluating features that any framework made: the same evaluators and the same record, without a network."""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import torch

from ssl_bench.errors import UserError, did_you_mean
from ssl_bench.evaluation.evaluate import build_evaluators, evaluate_network
from ssl_bench.evaluation.feature_files import Matrix, matrix, read_matrix
from ssl_bench.evaluation.given_features import GivenData, GivenFeatures, GivenNetwork, check_together, name_of
from ssl_bench.evaluator import Evaluator
from ssl_bench.recipes.evaluation_data import DEFAULT_EVALUATORS, WITHOUT_LABELS
from ssl_bench.recipes.evaluators import require_own_evaluators
from ssl_bench.records.elsewhere import FeatureFile, FeaturesOrigin, WeightsRecipe
from ssl_bench.records.reading import read_record
from ssl_bench.records.recipe import DataPart, Part
from ssl_bench.records.record import BackboneRecord, DataRecord, RunRecord, write_record
from ssl_bench.runs.weights_data import OpenedSets
from ssl_bench.runs.weights_network import SEED
from ssl_bench.runs.weights_record import ELSEWHERE, evaluator_parts, record_without_training
from ssl_bench.runs.whole_folder import whole_or_not_at_all
from ssl_bench.settings import section_of

FEATURES = "features"
"""What records call the architecture of a network of which nothing else is known."""
SECTIONS = ("evaluators", "data")
Given = Path | Mapping[str, Any]
"""A file, or arrays by name."""


@dataclass(frozen=True)
class FeaturesRequest:
    """What is to be evaluated, as a user gives it."""

    train: Given
    test: Given
    data: str | None = None
    """The dataset whose images these are, so that rows of networks evaluated here stand beside; None: as files say."""
    method: str | None = None
    arch: str | None = None
    """What made the features, for tables."""
    evaluators: Sequence[str] | None = None
    values: Mapping[str, Any] = field(default_factory=dict)
    """Settings by `section.setting`."""
    command: str = ""


def evaluate_features(
    request: FeaturesRequest, results: Path, say: Callable[[str], None] = lambda line: None
) -> tuple[Path, RunRecord]:
    """Evaluate, record under `results/runs` and return the folder with the record; one that exists is read.

    Raises `UserError` before anything is written for whatever is wrong with files, names and settings.
    """
    for key in request.values:
        section = key.partition(".")[0]
        if section not in SECTIONS:
            raise UserError(
                f"{key!r} is no setting of an evaluation of features.{did_you_mean(section, SECTIONS)} It takes "
                "evaluators.* and data.*"
            )
    train, test = _read(request.train, "train"), _read(request.test, "test")
    check_together(train, test)
    data = _data(request, train, test)
    for part in (train, test):
        if part.dtype != "float32":
            say(f"{part.name}: {part.dtype}, computed in float32")
    evaluators = _evaluators(request, data)
    recipe = _recipe(request, data, train, test, evaluators)
    folder = results / "runs" / recipe.run_id
    if (folder / "record.json").exists():
        say(f"done before; remove {folder} to do it again")
        return folder, read_record(folder / "record.json")
    started, device = datetime.now(UTC).isoformat(timespec="seconds"), torch.device("cpu")
    with whole_or_not_at_all(folder) as part_folder:
        done = evaluate_network(
            GivenNetwork(train.vectors.shape[1]), "trained", evaluators, data, network=FEATURES,
            features=GivenFeatures(train, test, data), seed=SEED, device=device, workers=0, run_dir=part_folder,
            places=[f"evaluations/{name}-trained" for name, _ in evaluators], say=say,
        )  # fmt: skip
        record = record_without_training(
            recipe, _backbone(recipe), _data_record(data), done, device, command=request.command, started_utc=started
        ).model_copy(update={"features": _origin(train, test)})
        write_record(record, part_folder / "record.json")
    return folder, record


def _read(given: Given, name: str) -> Matrix:
    return matrix(name, given) if isinstance(given, Mapping) else read_matrix(given)


def _data(request: FeaturesRequest, train: Matrix, test: Matrix) -> GivenData:
    name = FEATURES
    if isinstance(request.train, Path) and isinstance(request.test, Path):
        name = name_of(request.train, request.test)
    data = GivenData(name, train, test)
    if request.data is not None:
        _, known = OpenedSets().open(request.data, section_of(request.values, "data"), 224)
        data.be(known)
    return data


def _evaluators(request: FeaturesRequest, data: GivenData) -> list[tuple[str, Evaluator]]:
    names = list(request.evaluators or (DEFAULT_EVALUATORS if data.labeled else WITHOUT_LABELS))
    require_own_evaluators(request.values, names)
    evaluators = build_evaluators([(name, section_of(request.values, f"evaluators.{name}")) for name in names])
    for name, evaluator in evaluators:
        if evaluator.reads_images or evaluator.requires:
            raise UserError(f"{name} reads images or the network, and only features were given: leave it out of --with")
        if evaluator.needs_labels and not data.labeled:
            raise UserError(f"{name} needs labels, and the features have none: add an array 'labels' to both files")
    return evaluators


def _recipe(
    request: FeaturesRequest, data: GivenData, train: Matrix, test: Matrix, evaluators: Sequence[tuple[str, Evaluator]]
) -> WeightsRecipe:
    plugin, colon, name = (request.arch or FEATURES).partition(":")
    settings: dict[str, Any] = {"name": name} if colon else {}
    return WeightsRecipe(
        method=Part(name=request.method or ELSEWHERE, settings={}),
        backbone=Part(name=plugin, settings=settings | {"feature_dim": train.vectors.shape[1]}),
        data=DataPart(
            name=data.name,
            path=str(data.path) if data.path else None,
            fingerprint=data.fingerprint,
            image_px=data.image_px,
            settings={},
            plugin=FEATURES,
            train_images=len(data.train),
            test_images=len(test.vectors),
        ),
        preprocessing={},
        evaluators=evaluator_parts(evaluators, data),
        weights={
            "sha256": hashlib.sha256(f"{train.sha256} {test.sha256}".encode()).hexdigest(),
            "network": FEATURES,
        },
    )


def _backbone(recipe: WeightsRecipe) -> BackboneRecord:
    return BackboneRecord(name=recipe.arch, plugin=ELSEWHERE, kind=FEATURES, parameters=0, tokens=None)


def _data_record(data: GivenData) -> DataRecord:
    return DataRecord(
        name=data.name,
        plugin=FEATURES,
        fingerprint=data.fingerprint,
        synthetic=data.synthetic,
        train_images=len(data.train),
        test_images=0 if data.test is None else len(data.test),
        classes=len(data.classes),
        image_px=data.image_px,
    )


def _origin(train: Matrix, test: Matrix) -> FeaturesOrigin:
    files = [
        FeatureFile(
            name=part.name,
            sha256=part.sha256,
            shape=(part.vectors.shape[0], part.vectors.shape[1]),
            dtype=part.dtype,
        )
        for part in (train, test)
    ]
    return FeaturesOrigin(files=f"{train.name}, {test.name}", train=files[0], test=files[1])
