"""Trials of a few steps: what they say, and that they are kept."""

from __future__ import annotations

import dataclasses
import multiprocessing
import time
from collections.abc import Callable
from multiprocessing.connection import Connection
from pathlib import Path

import pytest

from ssl_bench.recipes.resolve import resolve
from ssl_bench.runs.machine import choose_workers
from ssl_bench.studies import trial
from ssl_bench.studies.cells import Wish
from ssl_bench.studies.costs import START_SECONDS, Costs, Machine, Sample
from ssl_bench.studies.plan import StudyRun
from ssl_bench.studies.study import load_study, planned
from ssl_bench.system.cpu_time import Spent
from tests.studies.tiny import write_table

HERE = Machine("a processor", "here", cores=1, threads=1)


@pytest.fixture
def runs(tmp_path: Path) -> tuple[StudyRun, ...]:
    return planned(load_study(str(write_table(tmp_path))), Wish()).runs


def test_a_trial_tells_time_and_memory(runs: tuple[StudyRun, ...]) -> None:
    untrained, contrast = (trial.trial(resolve(run.request)) for run in runs[:2])
    assert untrained.seconds_per_epoch == 0
    assert contrast.seconds_per_epoch > 0
    assert min(contrast.other_seconds, untrained.other_seconds) > START_SECONDS
    assert contrast.memory_mb is not None
    assert contrast.memory_mb > 100
    assert contrast.seconds(10) > contrast.seconds(2)


def test_of_large_images_a_part_of_the_batch_is_tried_and_scaled(
    runs: tuple[StudyRun, ...], monkeypatch: pytest.MonkeyPatch
) -> None:
    whole = trial.trial(resolve(runs[1].request))
    monkeypatch.setattr(trial, "TRIED_PIXELS", 4 * 32 * 32)
    part = trial.trial(resolve(runs[1].request))
    assert (whole.memory_mb is None, part.memory_mb) == (False, None)
    assert 0.1 < part.seconds_per_epoch / whole.seconds_per_epoch < 20


def test_only_unknown_kinds_are_tried_and_what_was_tried_is_kept(
    runs: tuple[StudyRun, ...], monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setenv("SSLBENCH_CACHE", str(tmp_path / "cache"))
    monkeypatch.setattr(trial, "_in_a_process", lambda request, *_: trial.trial(resolve(request)))
    costs, said = Costs(HERE), list[str]()
    trial.try_unknown(runs, costs, HERE, said.append)
    assert said == ["trying a few steps of 2 kinds of runs that never ended here, for at most 60 s"]
    first = costs.of(runs[1].recipe)
    assert first is not None
    assert first.basis == "tried"

    again = Costs(HERE)
    trial.try_unknown(runs, again, HERE, said.append)
    assert len(said) == 1
    assert again.of(runs[1].recipe) == first
    other = dataclasses.replace(HERE, threads=2)
    monkeypatch.setattr(trial, "_in_a_process", lambda *_: None)
    unknown = Costs(other)
    trial.try_unknown(runs, unknown, other, said.append)  # what cannot be tried stays unknown
    assert len(said) == 2
    assert unknown.of(runs[1].recipe) is None


def _send(request: object, threads: int, reports: Connection) -> None:
    reports.send(Sample(float(threads), 1.0, None, tried=True))


def _end(request: object, threads: int, reports: Connection) -> None:
    raise SystemExit


def _hang(request: object, threads: int, reports: Connection) -> None:
    time.sleep(60)


@pytest.mark.parametrize(("report", "seconds"), [(_send, 3.0), (_end, None), (_hang, None)])
def test_a_trial_runs_apart_and_never_longer_than_allowed(
    report: Callable[..., None], seconds: float | None, runs: tuple[StudyRun, ...], monkeypatch: pytest.MonkeyPatch
) -> None:
    """Forked: what is tried there uses no torch, whose threads a fork would leave behind."""
    monkeypatch.setattr(trial, "context", lambda: multiprocessing.get_context("fork"))
    monkeypatch.setattr(trial, "_report", report)
    begun = time.monotonic()
    sample = trial._in_a_process(runs[0].request, 3, 20.0 if report is _send else 1.0)
    assert (sample and sample.seconds_per_epoch) == seconds
    assert time.monotonic() - begun < 30


@pytest.mark.parametrize(
    "content", ["", "[]", '{"a processor, 1 threads": {"x": 1}}', '{"a processor, 1 threads": []}']
)
def test_a_damaged_file_of_trials_is_as_none(
    content: str, monkeypatch: pytest.MonkeyPatch, tmp_path: Path, runs: tuple[StudyRun, ...]
) -> None:
    monkeypatch.setenv("SSLBENCH_CACHE", str(tmp_path))
    (tmp_path / "trials.json").write_text(content)
    monkeypatch.setattr(trial, "_in_a_process", lambda *_: None)
    trial.try_unknown(runs, Costs(HERE), HERE, lambda text: None)


def test_time_of_a_step_is_without_waiting_for_a_core() -> None:
    assert trial.without_waiting(Spent(wall=5.0, cpu=1.0, waited=3.5)) == pytest.approx(1.5)
    assert trial.without_waiting(Spent(wall=5.0, cpu=1.0, waited=None)) == 5.0, "a system that does not tell"


def test_one_disturbed_step_does_not_decide_the_time(
    runs: tuple[StudyRun, ...], monkeypatch: pytest.MonkeyPatch
) -> None:
    """The quickest of the steps after the first counts: 0.2 s of 9, 40, 0.2 and 0.3 s."""
    seconds = iter([0.0, 0.1] * trial.LOADED + [0.0, 9.0, 0.0, 40.0, 0.0, 0.2, 0.0, 0.3])
    monkeypatch.setattr(trial, "clocks", lambda: Spent(next(seconds), 0.0, None))
    monkeypatch.setattr(trial, "MOST_SECONDS", 1000.0)
    resolved = resolve(runs[1].request)
    per_epoch, _ = trial._training(resolved)
    recipe = resolved.recipe
    steps = len(resolved.training_split) // recipe.training.batch_size
    workers = choose_workers(resolved.machine.workers, resolved.dataset.image_px)
    assert per_epoch == pytest.approx((0.2 if workers else 0.3) * steps)
