"""Evaluating weights that were trained elsewhere: a record of its own, which tables fold like any other row."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, Literal

from ssl_bench.backbone import Backbone
from ssl_bench.blocks.preprocessing import Preprocessing
from ssl_bench.dataset import Dataset
from ssl_bench.errors import UserError
from ssl_bench.evaluation.evaluate import build_evaluators, evaluate_network, refuse_unsupported
from ssl_bench.evaluation.features import UnusableFeatures
from ssl_bench.evaluator import Evaluator
from ssl_bench.recipes.evaluation_data import DEFAULT_EVALUATORS, WITHOUT_LABELS
from ssl_bench.recipes.evaluators import require_own_evaluators
from ssl_bench.records.elsewhere import WeightsRecipe
from ssl_bench.records.reading import read_record
from ssl_bench.records.recipe import MachineSettings
from ssl_bench.records.record import EvaluationRecord, RunRecord, write_record
from ssl_bench.registry.capabilities import why_missing
from ssl_bench.runs.evaluation_fitting import images_per_pass
from ssl_bench.runs.machine import choose_device, choose_workers, set_up
from ssl_bench.runs.trial import require_images_fit
from ssl_bench.runs.weights_data import OpenedSets, at_size_of_data, changed_preprocessing
from ssl_bench.runs.weights_network import SEED, loaded_in_words, require_sections, untrained_network, weights_network
from ssl_bench.runs.weights_record import Subject, weights_recipe, weights_record
from ssl_bench.runs.whole_folder import whole_or_not_at_all
from ssl_bench.settings import parse_settings, section_of
from ssl_bench.weights.exported import MANIFEST
from ssl_bench.weights.loaded import Loaded
from ssl_bench.weights.named.finding import is_name
from ssl_bench.weights.reading import CONFIG

SECTIONS = ("backbone", "data", "evaluators", "machine", "preprocessing")


@dataclass(frozen=True)
class WeightsRequest:
    """What is to be evaluated, as a user gives it."""

    path: Path
    data: str = "shapes"
    arch: str | None = None
    """None: the registered architecture that fits."""
    key: str | None = None
    method: str | None = None
    """What trained them; None: as the format says."""
    evaluators: Sequence[str] | None = None
    values: Mapping[str, Any] = field(default_factory=dict)
    """Settings by `section.setting`."""
    accept_mismatch: bool = False
    baseline: bool = False
    """Also evaluate the same architecture with random weights."""
    of_several: bool = False
    """Whether other weights are evaluated alike: evaluators that this architecture cannot serve are then left out."""
    own_sets: bool = True
    """Whether evaluators that read a set of their own run; not on the second and further `--data`."""
    command: str = ""

    @property
    def name(self) -> str:
        """What messages call the weights."""
        return f"{self.path.name}:{self.key}" if self.key else self.path.name


def is_weights(text: str) -> bool:
    """Whether an argument names weights (a file, a folder or a published name), and not a run."""
    if is_name(text):
        return True
    path = Path(text).expanduser()
    if path.is_dir():
        known = any((path / name).exists() for name in (CONFIG, MANIFEST))
        return known and not (path / "record.json").exists()
    return path.is_file() and path.name != "record.json"


def evaluate_weights(
    request: WeightsRequest, results: Path, say: Callable[[str], None] = lambda line: None
) -> tuple[Path, RunRecord]:
    """Evaluate, record under `results/runs` and return the folder with the record; one that exists is read.

    Raises `UserError` before anything is written for all that can be known by then.
    """
    check_settings(request)
    return evaluate_subject(request, load_subject(request, OpenedSets(), say), results, say)


def check_settings(request: WeightsRequest) -> None:
    """Raises `UserError` for settings, evaluators and a device that are wrong whatever the weights and data are."""
    require_sections(request.values, SECTIONS, "an evaluation")
    changed_preprocessing(Preprocessing(), section_of(request.values, "preprocessing"))
    choose_device(_machine_settings(request).device)
    names = request.evaluators
    if names is None:  # depends on the data: those with settings are checked
        names = sorted({key.split(".")[1] for key in request.values if key.startswith("evaluators.")})
    require_own_evaluators(request.values, names)
    build_evaluators([(name, section_of(request.values, f"evaluators.{name}")) for name in names])


def load_subject(request: WeightsRequest, sets: OpenedSets, say: Callable[[str], None]) -> Subject:
    """The weights as a network, with the data and evaluators: none where all that are asked for ran on other data.

    Raises `UserError` for whatever does not fit together.
    """
    loaded, preprocessing = weights_network(
        request.path, arch=request.arch, key=request.key, method=request.method, values=request.values,
        accept_mismatch=request.accept_mismatch,
    )  # fmt: skip
    if request.baseline and not loaded.backbone.trainable:
        raise UserError(f"{loaded.arch} has no random weights to compare with: leave --baseline out")
    found, dataset = sets.open(request.data, section_of(request.values, "data"), preprocessing.crop_px)
    preprocessing = at_size_of_data(preprocessing, dataset)
    say(loaded_in_words(loaded))
    for note in (*loaded.notes, *dataset.notes):
        say(note)
    evaluators = _evaluators(request, dataset)
    if request.of_several:
        evaluators = _offered(evaluators, loaded, say)
    refuse_unsupported(loaded.backbone, loaded.arch, evaluators)
    require_images_fit(loaded.backbone, dataset.image_px, loaded.arch)
    return Subject(loaded, found, dataset, preprocessing, evaluators)


def evaluate_subject(
    request: WeightsRequest, subject: Subject, results: Path, say: Callable[[str], None]
) -> tuple[Path, RunRecord]:
    """Evaluate what is loaded; the folder and the record, read where the same was done before."""
    recipe = weights_recipe(subject, request.method, baseline=request.baseline)
    folder = results / "runs" / recipe.run_id
    if (folder / "record.json").exists():
        say(f"done before; remove {folder} to do it again")
        return folder, read_record(folder / "record.json")
    with whole_or_not_at_all(folder) as part:
        record = _evaluated(request, subject, recipe, part, say)
    return folder, record


def _evaluated(
    request: WeightsRequest, subject: Subject, recipe: WeightsRecipe, folder: Path, say: Callable[[str], None]
) -> RunRecord:
    started = datetime.now(UTC).isoformat(timespec="seconds")
    loaded, dataset, evaluators = subject.loaded, subject.dataset, subject.evaluators
    settings = _machine_settings(request)
    device = choose_device(settings.device)
    set_up(device, tf32=settings.tf32)
    workers = choose_workers(settings.workers, dataset.image_px)
    networks: list[tuple[Literal["trained", "untrained"], Backbone]] = [("trained", loaded.backbone)]
    if request.baseline:
        networks.append(("untrained", untrained_network(loaded)))
    done: list[EvaluationRecord] = []
    for called, backbone in networks:
        batch_size = images_per_pass(backbone, [dataset], device, settings.memory, say)
        try:
            done += evaluate_network(
                backbone.to(device), called, evaluators, dataset,
                network=loaded.candidate.name if called == "trained" else None, preprocessing=subject.preprocessing,
                batch_size=batch_size, seed=SEED, device=device, workers=workers, run_dir=folder,
                places=[f"evaluations/{name}-{called}" for name, _ in evaluators], say=say,
            )  # fmt: skip
        except UnusableFeatures as error:
            raise UserError(f"{request.path}: {error}") from error
    record = weights_record(subject, recipe, done, device, command=request.command, started_utc=started)
    write_record(record, folder / "record.json")
    return record


def _machine_settings(request: WeightsRequest) -> MachineSettings:
    return parse_settings(MachineSettings, section_of(request.values, "machine"), "machine", "the machine")


def _evaluators(request: WeightsRequest, dataset: Dataset) -> list[tuple[str, Evaluator]]:
    default = DEFAULT_EVALUATORS if dataset.labeled else WITHOUT_LABELS
    names = list(request.evaluators if request.evaluators is not None else default)
    require_own_evaluators(request.values, names)
    evaluators = build_evaluators([(name, section_of(request.values, f"evaluators.{name}")) for name in names])
    if not request.own_sets:
        evaluators = [one for one in evaluators if one[1].data(dataset).fingerprint == dataset.fingerprint]
    need = [name for name, evaluator in evaluators if evaluator.needs_labels]
    if need and not dataset.labeled:
        raise UserError(
            f"{dataset.name} has no labels or no test images, which {', '.join(need)} need: give other --data"
        )
    return evaluators


def _offered(
    evaluators: list[tuple[str, Evaluator]], loaded: Loaded, say: Callable[[str], None]
) -> list[tuple[str, Evaluator]]:
    """Without those that the architecture cannot serve, unless these are all."""
    kept = []
    for name, evaluator in evaluators:
        missing = evaluator.requires - loaded.backbone.supports
        if missing:
            why = why_missing(loaded.backbone, missing)
            say(f"{name} is left out: {loaded.arch} has no {' and '.join(sorted(missing))}{why}")
        else:
            kept.append((name, evaluator))
    return kept or evaluators
