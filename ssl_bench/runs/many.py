"""Many weights and runs on many datasets: what is done is skipped, and a failure stops nothing but itself."""

from __future__ import annotations

import dataclasses
import os
import traceback
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from ssl_bench.datasets.opening import find_dataset
from ssl_bench.errors import UserError
from ssl_bench.recipes.evaluation_data import dataset_loaders
from ssl_bench.records.reading import read_record, with_later_evaluations
from ssl_bench.records.record import RunRecord
from ssl_bench.runs.elsewhere import WeightsRequest, check_settings, evaluate_subject, load_subject
from ssl_bench.runs.reevaluate import reevaluate
from ssl_bench.runs.weights_data import OpenedSets


@dataclass(frozen=True)
class RunRequest:
    """A finished run that is to be evaluated again."""

    folder: Path
    evaluators: list[str] | None
    data: Sequence[str]
    values: Mapping[str, Any]

    @property
    def name(self) -> str:
        """What messages call it."""
        return self.folder.name


@dataclass(frozen=True)
class Failure:
    """An evaluation that did not come to an end."""

    name: str
    """Of weights or run."""
    data: str
    """As `--data` was given; empty for a run's own."""
    reason: str

    def __str__(self) -> str:
        return f"{self.name}{f' on {self.data}' if self.data else ''}: {self.reason}"


@dataclass
class Outcome:
    """What came of all requests, in their order."""

    evaluated: list[tuple[Path, RunRecord]] = field(default_factory=list)
    failures: list[Failure] = field(default_factory=list)


def requests_for_all(weights: Sequence[WeightsRequest], data: Sequence[str]) -> list[WeightsRequest]:
    """Every one of `weights` on every one of `data`, one dataset after the other.

    Evaluators that read a set of their own run with the first dataset alone.
    """
    several = len(weights) > 1
    return [
        dataclasses.replace(one, data=text, own_sets=not number, of_several=several)
        for number, text in enumerate(data)
        for one in weights
    ]


def without_repeated(weights: Sequence[WeightsRequest]) -> list[WeightsRequest]:
    """Each network of each file once."""
    return list({(one.path.resolve(), one.key, one.arch): one for one in weights}.values())


def evaluate_all(
    requests: Sequence[WeightsRequest | RunRequest], results: Path, say: Callable[[str], None] = lambda line: None
) -> Outcome:
    """Evaluate every request; what fails is kept in the outcome, and the rest is still evaluated.

    Raises `UserError` before the first for what is wrong whatever the weights are: settings, evaluators, missing data.
    """
    sets = OpenedSets()
    _check(requests)
    outcome = Outcome()
    for number, request in enumerate(requests, start=1):
        on = f" on {request.data}" if isinstance(request, WeightsRequest) else ""
        say(f"[{number}/{len(requests)}] {request.name}{on}")
        try:
            outcome.evaluated += _evaluate(request, results, sets, say)
        except Exception as error:
            if os.environ.get("SSLBENCH_DEBUG"):
                traceback.print_exc()
            reason = str(error) if isinstance(error, UserError) else f"{type(error).__name__}: {error}"
            data = request.data if isinstance(request, WeightsRequest) else " ".join(request.data)
            outcome.failures.append(Failure(request.name, data, reason))
            say(f"failed: {reason}")
    return outcome


def _check(requests: Sequence[WeightsRequest | RunRequest]) -> None:
    of_weights = [one for one in requests if isinstance(one, WeightsRequest)]
    for request in of_weights:
        check_settings(request)
    for text in dict.fromkeys(one.data for one in of_weights):
        find_dataset(text, dataset_loaders())


def _evaluate(
    request: WeightsRequest | RunRequest, results: Path, sets: OpenedSets, say: Callable[[str], None]
) -> Iterator[tuple[Path, RunRecord]]:
    if isinstance(request, RunRequest):
        reevaluate(request.folder, request.evaluators, request.data, request.values, say)
        record = read_record(request.folder / "record.json")
        yield request.folder, with_later_evaluations(record, request.folder, [])
        return
    subject = load_subject(request, sets, say)
    if subject.evaluators:
        yield evaluate_subject(request, subject, results, say)
    else:
        say(f"nothing to do on {request.data}: the evaluators read sets of their own, once")
