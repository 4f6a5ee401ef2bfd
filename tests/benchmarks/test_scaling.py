"""Scaling curves: what is measured at each point, and the figure of it."""

from __future__ import annotations

from pathlib import Path

import pytest

from benchmarks.performance import __main__ as frame
from benchmarks.performance import scaling
from benchmarks.performance.scaling import Cost, Curve
from ssl_bench.evaluation.speed import Timing
from ssl_bench.figures.csv_text import to_csv

QUIET = (Timing(1.0, 1.0), Timing(3.0, 3.0), Timing(2.0, 2.0))
CURVES = (
    Curve("batch", "a step", "images", (Cost(4, QUIET, 2.0 * 2**20), Cost(8, QUIET, 4.0 * 2**20))),
    Curve("classes", "a probe", "classes", (Cost(10, QUIET, None),)),
)


def test_work_is_done_once_before_it_is_timed() -> None:
    calls: list[int] = []
    assert len(scaling.timed(lambda: calls.append(1), 3)) == 3
    assert len(calls) == 4


def test_the_figure_has_medians_and_leaves_out_memory_that_is_not_known(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(scaling.torch, "get_num_threads", lambda: 1)
    figure = scaling.figure(CURVES, "a CPU")
    time, memory = figure.strips
    assert [[(point.x, point.y) for point in panel.lines[0].points] for panel in time.panels] == [
        [(4, 2.0), (8, 2.0)],
        [(10, 2.0)],
    ]
    assert [[(point.x, point.y) for point in panel.lines[0].points] for panel in memory.panels] == [
        [(4, 2.0), (8, 4.0)]
    ]
    assert figure.notes == ("CPU share 100%",)
    assert "measured,memory,batch: a step: memory (MiB)" in to_csv(figure)
    busy = Curve("batch", "a step", "images", (Cost(4, (Timing(1.0, 0.2),), None),))
    assert "busy" in scaling.figure([busy], "a CPU").notes[0]


def test_neighbors_and_probe_are_measured_at_each_size() -> None:
    for curve, sizes in ((scaling.knn_curve(quick=True), [200, 400]), (scaling.probe_curve(quick=True), [2, 4])):
        assert [cost.x for cost in curve.costs] == sizes
        assert all(cost.seconds > 0 for cost in curve.costs)


def test_the_name_alone_draws_the_curves(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(scaling, "all_curves", lambda quick: CURVES)
    assert frame.main(["scaling", "--quick", "--results", str(tmp_path)]) == 0
    assert (tmp_path / "scaling.png").read_bytes().startswith(b"\x89PNG")
    assert len((tmp_path / "scaling.csv").read_text().splitlines()) > 4
    assert "batch             4 images: 2.000 s, 2 MiB" in capsys.readouterr().out
    with pytest.raises(SystemExit):
        frame.main(["scaling", "views"])
