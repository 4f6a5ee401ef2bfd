"""`sslbench doctor` as it is typed, on parts that cost nothing."""

from __future__ import annotations

import json
from collections.abc import Callable

import pytest

from ssl_bench.doctor import examination
from ssl_bench.doctor.findings import Fact, Findings, Problem
from tests.conftest import Command


def healthy() -> Findings:
    return Findings((Fact("cores", "2", 2),))


def slow() -> Findings:
    return Findings((Fact("faiss", "1.9"),), (Problem("slow", "wait"), Problem("broken", "repair it")))


def failing() -> Findings:
    raise RuntimeError("out of luck")


@pytest.fixture
def parts(monkeypatch: pytest.MonkeyPatch) -> Callable[..., None]:
    return lambda **given: monkeypatch.setattr(examination, "parts", lambda results: given)


def test_nothing_to_fix(sslbench: Command, parts: Callable[..., None]) -> None:
    parts(machine=healthy)
    assert sslbench("doctor") == (0, "machine\n  cores  2\n\nnothing to fix\n", "")


def test_a_part_that_fails_stops_no_other_and_the_worst_stands_first(
    sslbench: Command, parts: Callable[..., None]
) -> None:
    parts(devices=failing, neighbors=slow)
    status, out, err = sslbench("doctor")
    assert (status, err) == (1, "")
    assert "failed  RuntimeError: out of luck" in out
    assert out.endswith(
        "to fix, the most important first\n  1. broken: repair it\n  2. slow: wait\n"
        "  3. note: a part could not be examined: RuntimeError: out of luck\n"
    )


def test_json(sslbench: Command, parts: Callable[..., None]) -> None:
    parts(machine=healthy, neighbors=slow)
    status, out, err = sslbench("doctor", "--json")
    assert (status, err) == (1, "")
    assert json.loads(out) == {
        "parts": {
            "machine": {"cores": {"text": "2", "value": 2}},
            "neighbors": {"faiss": {"text": "1.9", "value": None}},
        },
        "to_fix": [{"severity": "broken", "text": "repair it"}, {"severity": "slow", "text": "wait"}],
    }


def test_every_part_is_examined(sslbench: Command) -> None:
    assert list(examination.parts(None)) == [  # type: ignore[arg-type]
        "machine", "devices", "matrix products", "images", "neighbors", "disks", "packages", "plugins",
    ]  # fmt: skip
