"""The check of `bench`'s forecast: what is predicted from the first run of a kind, by hand."""

from __future__ import annotations

import pytest

from benchmarks.reliability.forecast import in_cpu_time, later_runs, report, whole
from ssl_bench.studies.costs import START_SECONDS
from tests.studies.test_costs import record


def test_later_runs_are_predicted_from_the_first_of_their_kind(capsys: pytest.CaptureFixture[str]) -> None:
    quiet, busy = record(0, seconds=500, whole=600), record(1, seconds=900, whole=1000)
    (later,) = later_runs([busy, quiet])
    assert later.run_id == busy.run_id
    assert (later.predicted, later.taken) == (600 + START_SECONDS, 1000 + START_SECONDS)
    off = report("wall clock", [later])
    assert off == pytest.approx(603 / 1003 - 1)
    assert "1 later runs of 1 kinds: predicted 603 s, taken 1,003 s, -39.9%" in capsys.readouterr().out
    assert report("none", []) is None


def test_cpu_time_takes_away_what_others_used() -> None:
    """900 s on the clock, of which two threads computed 500 each; half of the other 100 s was waiting."""
    busy = record(1, seconds=900, whole=1000)
    assert busy.training is not None
    training = busy.training.model_copy(update={"cpu_seconds": 1000.0, "waited_share": 0.5})
    fair = in_cpu_time(busy.model_copy(update={"training": training}))
    assert fair is not None
    (later,) = later_runs([record(0, seconds=500, whole=600), fair])
    assert later.taken == 500 + 50 + START_SECONDS
    assert in_cpu_time(busy) is None, "its record does not say"


def test_runs_that_did_not_go_through_in_one_go_are_left_out() -> None:
    made = record()
    assert made.training is not None
    resumed = made.model_copy(update={"training": made.training.model_copy(update={"resumed": 1})})
    assert whole([made, resumed, made.model_copy(update={"status": "failed"})]) == [made]
