"""`sslbench plan` as it is typed."""

from __future__ import annotations

import json

import pytest

from tests.conftest import Command

SETTINGS = ("backbone.depth=1", "backbone.dim=64", "backbone.heads=1", "data.image_px=32")
TINY = ("simclr", "--arch", "deit_ti16", *(word for setting in SETTINGS for word in ("--set", setting)))


def test_what_fits_and_what_does_not(sslbench: Command) -> None:
    status, out, _ = sslbench("plan", *TINY, "--batch-size", "8", "--memory", "1GB", "--json")
    assert status == 0
    plan = json.loads(out)
    assert [way["fits"] for way in plan["ways"]] == [True, True]
    for way in plan["ways"]:
        assert sum(way["parts"].values()) == way["peak_bytes"] <= plan["usable_bytes"] < plan["memory_bytes"] == 2**30
        assert way["largest_batch"] > 8
    status, out, _ = sslbench("plan", *TINY, "--batch-size", "20000", "--memory", "1GB")
    assert status == 0
    assert "batch 20000 does not fit. The largest that does: --batch-size " in out


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
