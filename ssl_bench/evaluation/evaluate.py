"""Evaluating one frozen network: features once, then every evaluator, each with its protocol in the record."""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, Literal

import torch

from ssl_bench import registry
from ssl_bench.backbone import Backbone, eval_mode
from ssl_bench.blocks.preprocessing import Preprocessing
from ssl_bench.dataset import Dataset
from ssl_bench.errors import UserError
from ssl_bench.evaluation.features import FeatureStore
from ssl_bench.evaluation.speed import THROUGHPUT_BATCH
from ssl_bench.evaluator import Evaluation, Evaluator, FeatureSource
from ssl_bench.measurement import Measurement
from ssl_bench.records.bootstrap import mean_interval
from ssl_bench.records.outcomes import write_outcomes
from ssl_bench.records.record import EvaluationRecord
from ssl_bench.registry.capabilities import require_offered
from ssl_bench.settings import parse_settings
from ssl_bench.training.out_of_memory import out_of_memory_in_words


def build_evaluators(parts: Sequence[tuple[str, dict[str, Any]]]) -> list[tuple[str, Evaluator]]:
    """(name, settings) pairs to ready evaluators; raises `UserError` for wrong names and settings."""
    built = []
    for name, settings in parts:
        kind = registry.evaluator(name)
        built.append((name, kind(parse_settings(kind.Config, settings, f"evaluators.{name}", name))))
    return built


@dataclass(frozen=True)
class Assigned:
    """A dataset with the evaluators that are run on it."""

    dataset: Dataset
    evaluators: tuple[tuple[str, Evaluator], ...]
    folder: str = ""
    """What tells its pictures' folders from those of other sets; empty where there is one set only."""

    def place(self, evaluator: str, word: str) -> str:
        """The folder, below a run's, for what an evaluator writes; `word` says of what."""
        return f"evaluations/{evaluator}-{word}" + (f"-{self.folder}" if self.folder else "")


def assign(
    evaluators: Sequence[tuple[str, Evaluator]], training: Dataset, sets: Mapping[str, Dataset]
) -> tuple[Assigned, ...]:
    """Every evaluator to each of `sets` (folder name -> set), but those that read a set of their own once.

    Without `sets` all are run on the training data.
    """
    if not sets:
        return (Assigned(training, tuple(evaluators)),)
    with_own_data = tuple(one for one in evaluators if one[1].data(training).fingerprint != training.fingerprint)
    others = tuple(one for one in evaluators if one not in with_own_data)
    several = len(sets) > 1
    assigned = [Assigned(one, others, name if several else "") for name, one in sets.items() if others]
    return (*assigned, Assigned(training, with_own_data)) if with_own_data else tuple(assigned)


def refuse_unsupported(backbone: Backbone, arch: str, evaluators: Sequence[tuple[str, Evaluator]]) -> None:
    """Raises `UserError` where an evaluator needs what the network does not have."""
    for name, evaluator in evaluators:
        require_offered(evaluator, "evaluator", name, arch, backbone)


def evaluate_network(
    backbone: Backbone,
    subject: Literal["trained", "untrained"],
    evaluators: Sequence[tuple[str, Evaluator]],
    dataset: Dataset,
    *,
    network: str | None = None,
    step: int | None = None,
    preprocessing: Preprocessing | None = None,
    features: FeatureSource | None = None,
    batch_size: int = THROUGHPUT_BATCH,
    seed: int,
    device: torch.device,
    workers: int,
    run_dir: Path,
    places: Sequence[str],
    keep_outcomes: bool = True,
    keep_features: bool = True,
    say: Callable[[str], None] = lambda line: None,
) -> list[EvaluationRecord]:
    """Run every evaluator on one network, in fp32. The labels of the training split are read here, and only here.

    `places` are the folders below `run_dir`, one an evaluator, for what it writes; its pictures are those in the
    folder itself, PNG or GIF, and the record names them. What each test item scored is written beside that folder,
    unless `keep_outcomes` is False, and features stay in the cache, unless `keep_features` is. `network` is its name in
    the method, `step` the optimizer steps done, `preprocessing` how images are seen other than by default. An
    "untrained" network that starts from weights of another training is recorded as "pretrained". `features` stand in
    place of those that would be extracted, `batch_size` images per forward pass. Every module's mode is put back.
    Raises `UserError` where memory runs out.
    """
    called: Literal["trained", "untrained", "pretrained"] = subject
    if subject == "untrained" and backbone.pretrained:
        called = "pretrained"
    features = features or FeatureStore(
        backbone,
        dataset,
        image_px=dataset.image_px,
        device=device,
        autocast_dtype=None,
        batch_size=batch_size,
        workers=workers,
        preprocessing=preprocessing,
        kinds={kind for _, evaluator in evaluators for kind in evaluator.feature_kinds},
        keep=keep_features,
        say=say,
    )
    records = []
    with eval_mode(backbone):
        for (name, evaluator), place in zip(evaluators, places, strict=True):
            begun = time.monotonic()
            say(f"{name} of the {called} network")
            read = evaluator.data(dataset)
            with out_of_memory_in_words(f"in {name} of the {called} network"):
                measurements = evaluator.evaluate(Evaluation(backbone, features, dataset, seed, run_dir / place, say))
            _check(name, measurements)
            outcomes = write_outcomes(run_dir, place, measurements) if keep_outcomes else None
            records.append(
                EvaluationRecord(
                    evaluator=name,
                    subject=called,
                    network=network,
                    step=step,
                    settings=evaluator.config.model_dump(mode="json"),
                    data=read.name,
                    data_fingerprint=read.fingerprint,
                    synthetic=read.synthetic,
                    image_px=read.image_px,
                    measurements=tuple(map(_as_recorded, measurements)),
                    outcomes=outcomes,
                    seconds=round(time.monotonic() - begun, 2),
                    plugin=registry.find("evaluator", name).origin,
                    pictures=_pictures(run_dir, place),
                    made_utc=datetime.now(UTC).isoformat(timespec="seconds"),
                )
            )
    return records


def _pictures(run_dir: Path, place: str) -> tuple[str, ...]:
    found = [file for file in (run_dir / place).glob("*") if file.suffix in (".png", ".gif")]
    return tuple(sorted(file.relative_to(run_dir).as_posix() for file in found))


def _as_recorded(measurement: Measurement) -> Measurement:
    """Without its outcomes, which have a file of their own, and with the interval that they give where it has none."""
    if measurement.outcomes is None:
        return measurement
    interval = measurement.interval or mean_interval([measurement.outcomes])
    return measurement.model_copy(update={"outcomes": None, "interval": interval})


def _check(name: str, measurements: Sequence[Measurement]) -> None:
    if sum(measurement.primary for measurement in measurements) != 1:
        raise UserError(
            f"the evaluator {name!r} marked {sum(m.primary for m in measurements)} of its {len(measurements)} "
            "measurements as primary; its plugin must mark exactly one"
        )
