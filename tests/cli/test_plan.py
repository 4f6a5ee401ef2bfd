"""`sslbench plan` as it is typed."""

from __future__ import annotations

import json

import pytest

from ssl_bench.planning.choices import Choice
from ssl_bench.planning.step_memory import PARTS, StepMemory
from ssl_bench.runs.predicting import StepPredictor
from tests.conftest import Command

MB = 2**20

TINY = ("simclr", "--arch", "resnet18", "--set", "backbone.width=0.125", "--set", "data.image_px=32")


@pytest.fixture
def a_line(monkeypatch: pytest.MonkeyPatch) -> None:
    """In place of predictions, which have tests of their own: 10 MB, and 1 MB an image, half of it when recomputed."""

    def memory(self: StepPredictor, choice: Choice, batch_size: int) -> StepMemory:
        return StepMemory(
            dict.fromkeys(PARTS, 2 * MB) | {"activations": batch_size * MB // (2 if choice.checkpointing else 1)}
        )

    monkeypatch.setattr(StepPredictor, "memory", memory)


@pytest.mark.usefixtures("a_line")
def test_what_fits_and_what_does_not(sslbench: Command) -> None:
    status, out, _ = sslbench("plan", *TINY, "--batch-size", "8", "--memory", "1GB", "--json")
    assert status == 0
    plan = json.loads(out)
    images = (plan["usable_bytes"] - 10 * MB) // MB
    assert plan["memory_bytes"] == 2**30
    assert [way["fits"] for way in plan["ways"]] == [True, True]
    assert [way["peak_bytes"] for way in plan["ways"]] == [18 * MB, 14 * MB]
    assert [way["largest_batch"] for way in plan["ways"]] == pytest.approx([images, 2 * images], rel=0.05)
    status, out, _ = sslbench("plan", *TINY, "--batch-size", "20000", "--memory", "1GB")
    assert status == 0
    assert "batch 20000 does not fit. The largest that does: --batch-size " in out
    assert "--set machine.activation_checkpointing=true" in out


@pytest.mark.usefixtures("a_line")
def test_a_limit_too_small_for_anything(sslbench: Command) -> None:
    status, out, _ = sslbench("plan", *TINY, "--batch-size", "8", "--memory", "100MB")
    assert status == 0
    assert "nothing fits, not even one image" in out


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (("--memory", "4"), "lacks a unit"),
        (("--device", "1050it"), "Did you mean '1050ti'"),
        (("--device", "cpu"), "give its --memory too"),
        (("--set", "method.temprature=1"), "temperature"),
    ],
)
def test_mistakes(sslbench: Command, words: tuple[str, ...], message: str) -> None:
    status, out, error = sslbench("plan", *TINY, *words)
    assert (status, out) == (2, "")
    assert message in error
