"""Evaluating weights that were trained elsewhere: a record of its own, which tables fold like any other row."""

from __future__ import annotations

import shutil
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, Literal

from pydantic import ValidationError

from ssl_bench.backbone import Backbone
from ssl_bench.blocks.preprocessing import Preprocessing
from ssl_bench.dataset import Dataset
from ssl_bench.datasets.opening import Found, find_dataset, open_found
from ssl_bench.errors import UserError, did_you_mean
from ssl_bench.evaluation.evaluate import build_evaluators, evaluate_network, refuse_unsupported
from ssl_bench.evaluation.features import UnusableFeatures
from ssl_bench.evaluator import Evaluator
from ssl_bench.recipes.evaluation_data import DEFAULT_EVALUATORS, WITHOUT_LABELS, dataset_loaders
from ssl_bench.recipes.evaluators import require_own_evaluators
from ssl_bench.records.elsewhere import WeightsRecipe
from ssl_bench.records.recipe import MachineSettings
from ssl_bench.records.record import EvaluationRecord, RunRecord, read_record, write_record
from ssl_bench.runs import machine
from ssl_bench.runs.building import seed_initial_weights
from ssl_bench.runs.folder import hold
from ssl_bench.runs.restart import LOCK
from ssl_bench.runs.trial import require_images_fit
from ssl_bench.runs.weights_record import SEED, Subject, weights_recipe, weights_record
from ssl_bench.settings import parse_settings, section_of
from ssl_bench.weights.loading import Loaded, load_network, open_weights
from ssl_bench.weights.named.finding import is_name

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
    command: str = ""


def is_weights(text: str) -> bool:
    """Whether an argument names weights (a file, a folder or a published name), and not a run."""
    if is_name(text):
        return True
    path = Path(text).expanduser()
    if path.is_dir():
        return (path / "config.json").exists() and not (path / "record.json").exists()
    return path.is_file() and path.name != "record.json"


def evaluate_weights(
    request: WeightsRequest, results: Path, say: Callable[[str], None] = lambda line: None
) -> tuple[Path, RunRecord]:
    """Evaluate, record under `results/runs` and return the folder with the record; one that exists is read.

    Raises `UserError` before anything is written for all that can be known by then.
    """
    for name in request.values:
        if name.partition(".")[0] not in SECTIONS:
            raise UserError(
                f"{name!r} is no setting of an evaluation.{did_you_mean(name.partition('.')[0], SECTIONS)} eval takes "
                f"{', '.join(f'{section}.*' for section in SECTIONS)}"
            )
    loaded = load_network(
        open_weights(request.path, request.arch, request.method), arch=request.arch, key=request.key,
        settings=section_of(request.values, "backbone"), accept_mismatch=request.accept_mismatch,
    )  # fmt: skip
    found, dataset, preprocessing = _opened(request, loaded)
    loaded.backbone.mean, loaded.backbone.std = preprocessing.mean, preprocessing.std
    say(f"{loaded.recognized.words}: {loaded.candidate.name} fills all {loaded.used} tensors of {loaded.arch}")
    for note in (*loaded.notes, *dataset.notes):
        say(note)
    evaluators = _evaluators(request, dataset)
    refuse_unsupported(loaded.backbone, loaded.arch, evaluators)
    require_images_fit(loaded.backbone, dataset.image_px, loaded.arch)
    subject = Subject(loaded, found, dataset, preprocessing, evaluators)
    recipe = weights_recipe(subject, request.method, baseline=request.baseline)
    folder = results / "runs" / recipe.run_id
    if (folder / "record.json").exists():
        say(f"done before; remove {folder} to do it again")
        return folder, read_record(folder / "record.json")
    with _whole_or_not_at_all(folder) as part:
        record = _evaluated(request, subject, recipe, part, say)
    return folder, record


@contextmanager
def _whole_or_not_at_all(folder: Path) -> Iterator[Path]:
    """A hidden folder to evaluate in, which becomes `folder` at the end: an evaluation that is stopped or killed leaves
    no run that lacks its record. What a killed one left hidden is replaced. Raises `UserError` where `folder` holds
    anything else, or another process does the same evaluation."""
    if folder.exists() and not {entry.name for entry in folder.iterdir()} <= {LOCK, "evaluations"}:
        raise UserError(f"{folder} holds files and no record.json: move them elsewhere")
    part = folder.with_name(f".{folder.name}.part")
    with hold(part):
        _clear(part)
        try:
            yield part
        except BaseException:
            _clear(part)
            raise
        if folder.exists():  # what an evaluation that was killed left in earlier versions
            shutil.rmtree(folder)
    part.rename(folder)


def _clear(part: Path) -> None:
    for entry in part.iterdir():
        if entry.is_dir():
            shutil.rmtree(entry)
        elif entry.name != LOCK:
            entry.unlink()


def _evaluated(
    request: WeightsRequest, subject: Subject, recipe: WeightsRecipe, folder: Path, say: Callable[[str], None]
) -> RunRecord:
    started = datetime.now(UTC).isoformat(timespec="seconds")
    loaded, dataset, evaluators = subject.loaded, subject.dataset, subject.evaluators
    settings = parse_settings(MachineSettings, section_of(request.values, "machine"), "machine", "the machine")
    device = machine.choose_device(settings.device)
    workers = machine.choose_workers(settings.workers, dataset.image_px)
    networks: list[tuple[Literal["trained", "untrained"], Backbone]] = [("trained", loaded.backbone)]
    if request.baseline:
        networks.append(("untrained", _untrained(loaded)))
    done: list[EvaluationRecord] = []
    for called, backbone in networks:
        try:
            done += evaluate_network(
                backbone.to(device), called, evaluators, dataset,
                network=loaded.candidate.name if called == "trained" else None, preprocessing=subject.preprocessing,
                seed=SEED, device=device, workers=workers, run_dir=folder,
                places=[f"evaluations/{name}-{called}" for name, _ in evaluators], say=say,
            )  # fmt: skip
        except UnusableFeatures as error:
            raise UserError(f"{request.path}: {error}") from error
    record = weights_record(subject, recipe, done, device, command=request.command, started_utc=started)
    write_record(record, folder / "record.json")
    return record


def _opened(request: WeightsRequest, loaded: Loaded) -> tuple[Found, Dataset, Preprocessing]:
    """The data, seen as the weights' source sees images unless settings say otherwise."""
    changes = section_of(request.values, "preprocessing")
    known = [name for name in Preprocessing.model_fields if name != "source"]
    for name in changes:
        if name not in known:
            raise UserError(
                f"'preprocessing.{name}' is not a setting.{did_you_mean(name, known)} Known: {', '.join(known)}"
            )
    try:
        preprocessing = Preprocessing.model_validate(
            {**loaded.preprocessing.model_dump(), **changes, **({"source": "as given"} if changes else {})}
        )
    except ValidationError as error:
        problem = error.errors()[0]
        raise UserError(f"'preprocessing.{problem['loc'][0]}': {problem['msg']}, not {problem['input']!r}") from None
    given = dict(section_of(request.values, "data"))
    found = find_dataset(request.data, dataset_loaders())
    sized = "image_px" in found.kind.Config.model_fields
    if sized:
        given.setdefault("image_px", preprocessing.crop_px)
    dataset = open_found(found, given)
    if not sized and dataset.image_px != preprocessing.crop_px:
        dataset.image_px = preprocessing.crop_px  # the evaluation resizes to it
    preprocessing = preprocessing.at(dataset.image_px)
    if preprocessing.resize_px < preprocessing.crop_px:
        raise UserError(
            f"preprocessing.resize_px = {preprocessing.resize_px} is smaller than the crop of "
            f"{preprocessing.crop_px} px: resize to at least the crop"
        )
    return found, dataset, preprocessing


def _evaluators(request: WeightsRequest, dataset: Dataset) -> list[tuple[str, Evaluator]]:
    default = DEFAULT_EVALUATORS if dataset.labeled else WITHOUT_LABELS
    names = list(request.evaluators if request.evaluators is not None else default)
    require_own_evaluators(request.values, names)
    evaluators = build_evaluators([(name, section_of(request.values, f"evaluators.{name}")) for name in names])
    need = [name for name, evaluator in evaluators if evaluator.needs_labels]
    if need and not dataset.labeled:
        raise UserError(
            f"{dataset.name} has no labels or no test images, which {', '.join(need)} need: give other --data"
        )
    return evaluators


def _untrained(loaded: Loaded) -> Backbone:
    """The same architecture with random weights, seen through the same preprocessing."""
    seed_initial_weights(SEED)
    backbone = type(loaded.backbone)(loaded.config, image_px=loaded.backbone.image_px)
    backbone.mean, backbone.std = loaded.backbone.mean, loaded.backbone.std
    return backbone
