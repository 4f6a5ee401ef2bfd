"""`sslbench diff`: every setting that differs and none that does not, and differences of numbers that compare."""

from __future__ import annotations

import io
import json
import math
from pathlib import Path
from typing import Any

import pytest
from rich.console import Console

from ssl_bench.measurement import Measurement, Protocol, accuracy, difference_interval, within_noise
from ssl_bench.records.record import RunRecord, write_record
from ssl_bench.tables.differences import compared, differences, protocol_note
from tests.conftest import Command
from tests.example_records import evaluation, make_record


def names(one: RunRecord, other: RunRecord) -> list[str]:
    return [pair.name for pair in differences(one, other)]


def test_equal_runs_differ_in_nothing() -> None:
    assert differences(make_record(), make_record()) == []


def test_each_difference_is_named_with_both_values_what_matters_first() -> None:
    one = make_record()
    other = make_record(seed=1, settings={"local_views": 2}, training={"epochs": 3}, data={"fingerprint": "beef" * 8})
    other = other.model_copy(
        update={
            "machine": other.machine.model_copy(update={"precision": "bf16"}),
            "versions": {**other.versions, "torch": "3.0"},
        }
    )
    assert names(one, other) == [
        "training data", "method.local_views", "training.epochs", "training.seed", "precision", "version of torch",
    ]  # fmt: skip
    found = {pair.name: (pair.one, pair.other) for pair in differences(one, other)}
    assert found["method.local_views"] == ("8", "2")
    assert "fingerprint beefbeef" in found["training data"][1]
    assert found["version of torch"] == ("2.14.1", "3.0")


def test_of_two_methods_only_shared_settings_are_compared_and_of_one_method_all() -> None:
    assert names(make_record(settings={"alone": 1}), make_record("byol")) == ["method"]
    (pair,) = differences(make_record(settings={"alone": 1}), make_record())
    assert pair == ("method.alone", "1", "not recorded")


def test_where_the_data_lie_is_no_difference() -> None:
    one, other = make_record(), make_record()
    recipe = other.recipe | {"data": other.recipe["data"] | {"path": "/elsewhere"}}
    assert names(one, other.model_copy(update={"recipe": recipe})) == []


def run(
    hits: int, *, protocol: Any = "20-NN", n: int = 200, data: str = "shapes", subject: str = "trained"
) -> RunRecord:
    one = accuracy("top1", hits, n, protocol=Protocol.model_validate(protocol), primary=True)
    return make_record(evaluations=(evaluation("knn", subject, one, data=data, data_fingerprint=data),))


def test_a_difference_and_its_interval_by_hand() -> None:
    """Newcombe 1998, table II, case (a): 56/70 against 48/80 gives 0.2000 with 0.0524 to 0.3339 by method 10."""
    (found,) = compared(run(48, n=80), run(56, n=70))
    assert found.difference == pytest.approx(20.0)
    assert found.interval == pytest.approx((5.24, 33.39), abs=0.005)


@pytest.mark.parametrize(("one", "other"), [(100, 100), (100, 105), (100, 125), (0, 200), (0, 2), (200, 199)])
def test_the_interval_turns_round_with_its_runs_and_decides_what_noise_is(one: int, other: int) -> None:
    first, second = (accuracy("m", hits, 200, protocol=Protocol(text="p")) for hits in (one, other))
    there, back = difference_interval(first, second), difference_interval(second, first)
    assert there is not None
    assert back is not None
    assert there == pytest.approx((-back[1], -back[0]))
    assert there[0] <= second.value - first.value <= there[1]
    assert within_noise(first, second) == within_noise(second, first) == (there[0] <= 0 <= there[1])


def test_numbers_of_two_protocols_have_no_difference_and_the_field_is_named() -> None:
    template = "{k}-NN, exp(s / {temperature})"
    one, other = (Protocol.of(template, k=20, temperature=value) for value in (0.07, 0.1))
    (found,) = compared(run(50, protocol=one), run(60, protocol=other))
    assert (found.difference, found.interval) == (None, None)
    assert protocol_note(found) == "temperature 0.07 and 0.1"
    (old,) = compared(run(50, protocol="10-NN"), run(60, protocol=one))
    assert protocol_note(old) == "protocol 10-NN and 20-NN, exp(s / 0.07)"


def test_other_data_and_other_networks_are_not_compared() -> None:
    assert compared(run(50), run(60, data="birds")) == []
    assert compared(run(50), run(60, subject="untrained")) == []


def test_only_main_metrics_unless_all_are_asked_for() -> None:
    second = Measurement(metric="top5", value=1.0, unit="%", higher_is_better=True, n=9, protocol=Protocol(text="p"))
    both = run(50).evaluations[0]
    record = make_record(evaluations=(both.model_copy(update={"measurements": (*both.measurements, second)}),))
    assert [one.one.metric for one in compared(record, record)] == ["top1"]
    assert [one.one.metric for one in compared(record, record, primary_only=False)] == ["top1", "top5"]


@pytest.fixture
def results(tmp_path: Path) -> Path:
    for name, record in (("a", run(100)), ("b", run(103)), ("c", run(160))):
        other = record.model_copy(update={"run_id": name, "seed": 7})
        write_record(other, tmp_path / "results/runs" / name / "record.json")
    return tmp_path / "results"


def test_the_verb(sslbench: Command, results: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    status, out, err = sslbench("diff", "a", "b", "--results", results)
    assert (status, err) == (0, "")
    assert "+1.50 % [" in out
    assert "within noise" in out
    assert "no setting, dataset, machine or version differs" in out
    assert "within noise" not in sslbench("diff", "a", "c", "--results", results)[1]
    document = json.loads(sslbench("diff", "c", "a", "--json", "--results", results)[1])
    assert document["runs"] == ["c", "a"]
    assert math.isclose(document["numbers"][0]["difference"], -30.0)
    assert sslbench("diff", "a", "nothing", "--results", results)[0] == 2
    console = Console(file=io.StringIO(), width=60, highlight=False)
    monkeypatch.setattr("ssl_bench.cli.diff.terminal", lambda: console)
    sslbench("diff", "a", "c", "--results", results)
    assert "+30.00 %" in console.file.getvalue()  # type: ignore[attr-defined]
