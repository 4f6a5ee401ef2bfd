"""Runs of a study in processes of their own: stopped, killed, shared, failing. Workers are forked from the tests."""

from __future__ import annotations

import dataclasses
import json
import multiprocessing
import os
import signal
import time
from pathlib import Path

import pytest

from ssl_bench.recipes.resolve import resolve
from ssl_bench.records.reading import read_all
from ssl_bench.runs.folder import hold, in_use
from ssl_bench.studies import doing
from ssl_bench.studies.board import Board
from ssl_bench.studies.cells import Wish
from ssl_bench.studies.costs import Costs, Machine
from ssl_bench.studies.plan import StudyRun
from ssl_bench.studies.study import board_of, load_study, planned
from tests.studies.tiny import TABLE, write_table

FORK = multiprocessing.get_context("fork")


@pytest.fixture(autouse=True)
def forked_workers(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(doing, "context", lambda: FORK)
    monkeypatch.setattr(doing, "TICK_SECONDS", 0.05)
    monkeypatch.setattr(doing, "ELSEWHERE_SECONDS", 0.1)


@pytest.fixture(scope="module")
def runs(tmp_path_factory: pytest.TempPathFactory) -> tuple[StudyRun, ...]:
    sources = load_study(str(write_table(tmp_path_factory.mktemp("tables"))))
    return planned(sources, Wish()).runs


def do(runs: tuple[StudyRun, ...], results: Path, *, jobs: int = 1, end: float | None = None) -> Board:
    board = board_of(runs, results, read_all(results)[0])
    costs = Costs(Machine("cpu", "here", 1, 1))
    doing.do(
        board, doing.Conditions(results=results, jobs=jobs, threads=None, costs=costs, end=end), lambda board: None
    )
    return board


def statuses(board: Board) -> list[str]:
    return [entry.status for entry in board.entries]


def records(results: Path) -> dict[str, tuple[int, bytes]]:
    """What identifies each record on the disk: a run that was repeated would have written a new file."""
    return {
        path.parent.name: (path.stat().st_mtime_ns, path.read_bytes()) for path in results.glob("runs/*/record.json")
    }


def test_every_run_is_done_once_and_a_second_call_does_nothing(runs: tuple[StudyRun, ...], tmp_path: Path) -> None:
    board = do(runs, tmp_path, jobs=2)
    assert statuses(board) == ["finished"] * 4
    done = records(tmp_path)
    assert {json.loads(content)["digest"] for _, content in done.values()} == {run.recipe.digest for run in runs}
    for entry in board.entries:
        assert entry.record is not None
        assert entry.record.command.startswith(f"sslbench run {entry.record.method} --arch deit_ti16")
        assert "knn of the" in (tmp_path / "logs" / f"{entry.place.folder.name}.log").read_text()
    again = do(runs, tmp_path)
    assert [entry.done_before for entry in again.entries] == [True] * 4
    assert records(tmp_path) == done


def test_a_finished_run_that_lacks_an_evaluator_is_evaluated_and_not_trained_again(
    runs: tuple[StudyRun, ...], tmp_path: Path
) -> None:
    table = TABLE.replace('with = ["knn"]', 'with = ["knn", "kmeans"]')
    more = planned(load_study(str(write_table(tmp_path, table))), Wish(seeds=1)).runs
    do(runs[1:2], tmp_path)
    done = records(tmp_path)
    (entry,) = board_of(more[1:], tmp_path, read_all(tmp_path)[0]).entries
    assert (entry.status, entry.place.missing) == ("waiting", ("kmeans",))
    board = do(more[1:], tmp_path)
    assert statuses(board) == ["finished"]
    assert records(tmp_path) == done
    (record,) = [record for _, record in read_all(tmp_path)[0]]
    assert sorted({one.evaluator for one in record.evaluations if one.subject == "trained"}) == ["kmeans", "knn"]
    again = do(more[1:], tmp_path)
    assert again.entries[0].done_before
    (folder,) = tmp_path.glob("runs/[!.]*")
    (folder / "weights.safetensors").unlink()
    for path in folder.glob("evaluations/*"):
        path.unlink()
    assert not board_of(more[1:], tmp_path, read_all(tmp_path)[0]).entries[0].place.recorded  # must be trained


def test_killed_at_any_moment_no_finished_run_is_lost_or_repeated(runs: tuple[StudyRun, ...], tmp_path: Path) -> None:
    done: dict[str, tuple[int, bytes]] = {}
    for seconds in (0.3, 0.8, 1.4):
        study = FORK.Process(target=do, args=(runs, tmp_path))
        study.start()
        time.sleep(seconds)
        assert study.pid is not None
        os.kill(study.pid, signal.SIGKILL)
        study.join()
        wait_until_nobody_works(tmp_path)
        now = records(tmp_path)
        assert done.items() <= now.items()
        done = now
    board = do(runs, tmp_path)
    assert statuses(board) == ["finished"] * 4
    assert done.items() <= records(tmp_path).items()
    assert len(list(tmp_path.glob("runs/[!.]*"))) == 4


def wait_until_nobody_works(results: Path) -> None:
    """A worker that has lost its study saves and ends."""
    for _ in range(200):
        time.sleep(0.05)
        if not any(in_use(folder) for folder in results.glob("runs/*")):
            return
    raise AssertionError("a worker goes on after its study was killed")


def test_two_studies_at_once_share_the_work(runs: tuple[StudyRun, ...], tmp_path: Path) -> None:
    studies = [FORK.Process(target=do, args=(runs, tmp_path)) for _ in range(2)]
    for study in studies:
        study.start()
    for study in studies:
        study.join(60)
    assert [study.exitcode for study in studies] == [0, 0]
    assert len(records(tmp_path)) == 4
    begun = [path.read_text().count("trying one batch") for path in (tmp_path / "logs").glob("simclr*.log")]
    assert begun == [1, 1]


def test_a_run_that_another_process_holds_is_left_to_it_and_then_done(
    runs: tuple[StudyRun, ...], tmp_path: Path
) -> None:
    board = board_of(runs[:1], tmp_path)
    seen: list[str] = []

    def show(board: Board) -> None:
        seen.append(board.entries[0].status)
        if len(seen) == 3:
            holder.__exit__(None, None, None)

    holder = hold(board.entries[0].place.folder)
    holder.__enter__()
    costs = Costs(Machine("cpu", "here", 1, 1))
    doing.do(board, doing.Conditions(results=tmp_path, jobs=1, threads=None, costs=costs), show)
    assert seen[:3] == ["elsewhere"] * 3
    assert seen[-1] == "finished"


def test_a_signal_saves_what_runs_and_the_same_call_resumes_it(runs: tuple[StudyRun, ...], tmp_path: Path) -> None:
    long = planned_again(runs[1], epochs=400)
    study = FORK.Process(target=interrupted, args=(long, tmp_path))
    study.start()
    wait_for_steps(tmp_path)
    assert study.pid is not None
    os.kill(study.pid, signal.SIGTERM)
    study.join(30)
    assert study.exitcode == 7
    (folder,) = tmp_path.glob("runs/[!.]*")
    assert list(folder.glob("checkpoints/step-*"))
    assert not (folder / "record.json").exists()
    (entry,) = board_of(long, tmp_path).entries
    assert (entry.status, entry.place.begun, entry.place.folder) == ("waiting", True, folder)


def planned_again(run: StudyRun, epochs: int) -> tuple[StudyRun, ...]:
    request = dataclasses.replace(run.request, values={**run.request.values, "training.epochs": epochs})
    return (dataclasses.replace(run, request=request, recipe=resolve(request).recipe),)


def interrupted(runs: tuple[StudyRun, ...], results: Path) -> None:
    try:
        do(runs, results)
    except doing.Interrupted:
        os._exit(7)


def wait_for_steps(results: Path) -> None:
    for _ in range(400):
        time.sleep(0.05)
        if any(path.stat().st_size for path in results.glob("runs/*/metrics.jsonl")):
            return
    raise AssertionError("nothing was trained")


def test_what_still_runs_when_the_budget_ends_is_saved(runs: tuple[StudyRun, ...], tmp_path: Path) -> None:
    board = do(planned_again(runs[1], epochs=2000), tmp_path, end=time.monotonic() + 2.5)
    (entry,) = board.entries
    assert entry.status == "stopped"
    assert entry.reason.startswith("saved at step") or entry.reason == ""


def test_one_run_that_fails_does_not_keep_the_others_from_being_done(
    runs: tuple[StudyRun, ...], tmp_path: Path
) -> None:
    (folder,) = (entry.place.folder for entry in board_of(runs[:1], tmp_path).entries)
    folder.parent.mkdir(parents=True)
    folder.write_text("a file where the run's folder would be")
    board = do(runs[:2], tmp_path)
    assert statuses(board) == ["refused", "finished"]
    assert "cannot make" in board.entries[0].reason


def test_a_run_that_is_killed_is_reported_with_its_log(
    runs: tuple[StudyRun, ...], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(doing, "work", die)
    board = do(runs[:1], tmp_path)
    assert statuses(board) == ["broken"]
    assert "was killed" in board.entries[0].reason


def die(*_: object) -> None:
    os.kill(os.getpid(), signal.SIGKILL)
