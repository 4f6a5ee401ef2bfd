"""The frame of the performance benchmarks: ratios by turns, goals, the table, and parts that fail."""

from __future__ import annotations

import ast
import json
import sys
from pathlib import Path
from types import ModuleType

import pytest

from benchmarks.performance import __main__ as frame
from benchmarks.performance import ratios as module
from benchmarks.performance.ratios import Goal, Ratio, by_turns, faster, share
from benchmarks.performance.report import Part, as_rows, markdown, read
from ssl_bench.evaluation.speed import Timing

ROW = Ratio("a step", "theirs", 10.0, 20.0, "ms", 2.0, (1.5, 2.5), 3, Goal(at_least=1.25), 0.95, 2.1)
MACHINE = {
    "device": "a CPU",
    "cores": 2,
    "threads": 2,
    "versions": {"torch": "2"},
    "commit": None,
    "made_utc": "2026-01-01",
}


class Clock:
    """Advances by what each side is said to take; half of it is CPU time."""

    now = 0.0

    def spend(self, seconds: float) -> None:
        self.now += seconds


def test_pairs_take_turns_and_give_the_median_of_their_ratios(monkeypatch: pytest.MonkeyPatch) -> None:
    clock, order = Clock(), list[str]()
    monkeypatch.setattr(module.time, "perf_counter", lambda: clock.now)
    monkeypatch.setattr(module.time, "process_time", lambda: clock.now / 2)
    load = iter([1.0, 1.0, 1.0, 1.0, 4.0, 4.0, 1.0, 2.0])  # the third turn is disturbed on both sides, the last on one

    def ours() -> None:
        order.append("ours")
        clock.spend(2 * next(load))

    def peer() -> None:
        order.append("peer")
        clock.spend(6 * next(load))

    pairs = by_turns(ours, peer, 3)
    assert order == ["ours", "peer", "ours", "peer", "peer", "ours", "ours", "peer"]
    assert [(a.wall, b.wall) for a, b in pairs] == [(2.0, 6.0), (8.0, 24.0), (2.0, 12.0)]
    found = faster("it", "theirs", pairs, threads=1, goal=Goal(at_least=2), work=2)
    assert (found.ratio, found.spread, found.n) == (3.0, (3.0, 6.0), 3)
    assert (found.ours, found.peer) == (1000 * 2.0 / 2, 1000 * 12.0 / 2)
    assert found.cpu_share == pytest.approx(0.5)
    assert found.ratio_by_cpu_time == pytest.approx(3.0)
    assert found.busy


def test_shares_of_a_peer() -> None:
    found = share("memory", "dense", [(3.0, 100.0), (2.0, 100.0), (5.0, 100.0)], "MiB", Goal(at_most=0.03))
    assert (found.ratio, found.spread, found.ours, found.peer) == (0.03, (0.02, 0.05), 3.0, 100.0)
    assert not found.busy


@pytest.mark.parametrize(
    ("goal", "met", "words"),
    [
        (Goal(), None, ""),
        (Goal(at_least=2), True, "at least 2"),
        (Goal(at_least=2.1), False, "at least 2.1"),
        (Goal(at_most=1.9), False, "at most 1.9"),
        (Goal(0.9, 1.1), False, "0.9 to 1.1"),
        (Goal(0.9, 2.0), True, "0.9 to 2"),
    ],
)
def test_goals(goal: Goal, met: bool | None, words: str) -> None:
    assert goal.met(2.0) is met
    assert goal.words == words


def test_a_ratio_of_a_busy_machine_counts_for_no_goal() -> None:
    busy = faster("b", "p", [(Timing(1.0, 0.3), Timing(2.0, 0.6))], threads=1, goal=Goal(at_least=1))
    assert [row[-1] for row in as_rows([ROW, busy])] == ["yes", "busy"]


def test_the_table_and_what_failed() -> None:
    failed = Part(failed="no memory", machine=MACHINE)
    text = markdown({"step": Part((ROW,), machine=MACHINE), "knn": failed}, ["step", "knn", "memory"])
    assert "a CPU, 2 cores, 2 threads, torch 2, commit None, 2026-01-01." in text.splitlines()
    assert "not run: memory" in text.splitlines()
    line = "| a step | theirs | 10 ms | 20 ms | 2.00 | 1.50 to 2.50 | 3 | 2.10 | 95% | at least 1.25 | yes |"
    assert line in text.splitlines()
    assert "knn failed: no memory" in text
    table = [row for row in text.splitlines() if row.startswith("|")]
    assert len({row.count("|") for row in table}) == 1


def test_a_part_that_fails_stops_no_other_and_the_set_is_written(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(frame, "PARTS", ("knn", "views"))
    fails = Part(failed="why", machine=MACHINE)
    monkeypatch.setattr(frame, "run_one", lambda name, quick: fails if name == "knn" else Part((ROW,), machine=MACHINE))
    results = tmp_path / "results"
    assert frame.main(["--results", str(results)]) == 1
    whole = read(results)
    assert whole == {"knn": fails, "views": Part((ROW,), machine=MACHINE)}
    assert "knn failed: why" in capsys.readouterr().out
    assert "Parts were run apart" not in (results / "performance.md").read_text()

    later = Part((ROW, ROW), machine=MACHINE | {"commit": "0123456789abcdef+changes"})
    monkeypatch.setattr(frame, "run_one", lambda name, quick: later)
    assert frame.main(["knn", "--results", str(results)]) == 0  # a part of the set is not written
    assert read(results) == whole
    assert frame.main(["knn", "--keep", "--results", str(results)]) == 0
    assert read(results) == {"knn": later, "views": whole["views"]}
    text = (results / "performance.md").read_text()
    assert "- knn: a CPU, 2 cores, 2 threads, torch 2, commit 0123456789ab+changes, 2026-01-01" in text.splitlines()
    assert "- views: a CPU, 2 cores, 2 threads, torch 2, commit None, 2026-01-01" in text.splitlines()
    with pytest.raises(SystemExit):
        frame.main(["view"])
    assert "views" in capsys.readouterr().err


def test_quick_rows_have_no_goal(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    part = ModuleType("benchmarks.performance.knn")
    part.ratios = lambda quick: [ROW]  # type: ignore[attr-defined]
    monkeypatch.setitem(sys.modules, part.__name__, part)
    for words, goal in (([], ROW.goal), (["--quick"], Goal())):
        assert frame.main(["knn", "--into", str(tmp_path / "rows.json"), *words]) == 0
        (row,) = json.loads((tmp_path / "rows.json").read_text())
        assert Goal(**row["goal"]) == goal


def test_the_reason_of_a_failure_is_the_last_line_of_its_process(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(frame, "MOST_SECONDS", 30.0)
    monkeypatch.setattr(frame.sys, "executable", "false")
    assert frame.run_one("knn", quick=True).failed == "exit status 1"


@pytest.mark.parametrize("name", frame.PARTS)
def test_every_part_offers_ratios(name: str) -> None:
    tree = ast.parse(Path(frame.__file__).with_name(f"{name}.py").read_text())
    assert "ratios" in {node.name for node in tree.body if isinstance(node, ast.FunctionDef)}
