"""Intervals of accuracies: against the equation they solve, and what they say of a difference."""

from __future__ import annotations

import json
import math
from pathlib import Path

import numpy as np
import pytest

from ssl_bench.cli.record_view import view_of
from ssl_bench.cli.result import show_result
from ssl_bench.cli.show import plain_lines
from ssl_bench.measurement import Measurement, accuracy, wilson_interval, within_noise
from tests.example_records import evaluation, make_record, measured


@pytest.mark.parametrize(("hits", "n"), [(0, 5), (5, 5), (1, 2), (132, 244), (1068, 2000), (49_999, 50_000)])
def test_the_ends_solve_wilsons_equation(hits: int, n: int) -> None:
    # |share - p| = z sqrt(p (1 - p) / n), squared: a quadratic in p
    share, z2 = hits / n, 1.959963984540054**2
    roots = np.sort(np.roots([1 + z2 / n, -2 * share - z2 / n, share * share]).real)
    assert wilson_interval(hits, n) == pytest.approx(100 * roots, abs=1e-6)


def test_an_interval_holds_the_truth_in_95_of_100_draws() -> None:
    hits = np.random.default_rng(0).binomial(244, 0.6, size=4000)
    ends = np.array([wilson_interval(int(count), 244) for count in hits])
    assert np.mean((ends[:, 0] <= 60) & (ends[:, 1] >= 60)) == pytest.approx(0.95, abs=0.012)


def test_noise_by_newcombes_example() -> None:
    # Newcombe 1998, table II, case (a): 56/70 and 48/80 differ by 0.2 with the interval 0.0524 to 0.3339
    one, other = accuracy("m", 56, 70, protocol="p"), accuracy("m", 48, 80, protocol="p")
    assert one.interval is not None
    assert other.interval is not None
    reach = math.hypot(one.value - one.interval[0], other.interval[1] - other.value)
    assert one.value - other.value - reach == pytest.approx(5.24, abs=0.01)
    assert not within_noise(one, other)
    assert not within_noise(other, one)
    assert within_noise(accuracy("m", 53, 100, protocol="p"), accuracy("m", 60, 100, protocol="p"))


def test_a_record_from_before_intervals_is_read_and_is_never_noise() -> None:
    old = {"metric": "m", "value": 50.0, "unit": "%", "higher_is_better": True, "n": 10, "protocol": "p"}
    read = Measurement.model_validate_json(json.dumps(old))
    assert read.interval is None
    assert not within_noise(read, read)
    kept = accuracy("m", 5, 10, protocol="p")
    assert Measurement.model_validate_json(kept.model_dump_json()) == kept


def test_a_run_shows_n_interval_and_noise(capsys: pytest.CaptureFixture[str]) -> None:
    pairs = {"knn": (130, 140), "linear-probe": (130, 190)}
    evaluations = tuple(
        evaluation(name, subject, accuracy("top1", hits, 244, protocol="p", primary=True))
        for name, both in pairs.items()
        for subject, hits in zip(("untrained", "trained"), both, strict=True)
    )
    rank = evaluation("label-free", "trained", measured(35.0, metric="rankme", unit="dims"))
    record = make_record(evaluations=(*evaluations, rank))
    show_result(record, Path("results/runs/x"))
    lines = capsys.readouterr().out.splitlines()
    start = next(i for i, line in enumerate(lines) if line.startswith("  knn (top1)"))
    assert lines[start].endswith("53.3        57.4      +4.1   test %, n 244")
    assert " ".join(lines[start + 1].split()) == "95 % interval 47.0-59.4 51.1-63.4 the difference is within noise"
    assert " ".join(lines[start + 3].split()) == "95 % interval 47.0-59.4 72.3-82.6"
    assert lines[start + 4].endswith("35.0             shapes dims, n 1,000"), "of training images: not of the test"
    shown = "\n".join(plain_lines(view_of(record, Path("record.json"), [])))
    assert "95 % interval  untrained 47.0-59.4, trained 51.1-63.4" in " ".join(shown.split(" " * 3))
