"""Amounts of memory as they are typed, known cards, and the largest batch that fits."""

from __future__ import annotations

import pytest

from ssl_bench.errors import UserError
from ssl_bench.planning.choices import TRIES, choices, largest_batch
from ssl_bench.planning.devices import GB, card, parse_memory


@pytest.mark.parametrize(
    ("text", "expected"), [("4GB", 4 * GB), ("4 gib", 4 * GB), ("2.5G", int(2.5 * GB)), ("3500MB", 3500 * 2**20)]
)
def test_amounts(text: str, expected: int) -> None:
    assert parse_memory(text) == expected


@pytest.mark.parametrize(
    ("text", "words"),
    [("4", "lacks a unit. Did you mean 4GB"), ("4TB", "no amount"), ("0GB", "nothing"), ("", "no am")],
)
def test_amounts_that_are_none(text: str, words: str) -> None:
    with pytest.raises(UserError, match=words):
        parse_memory(text)


@pytest.mark.parametrize("text", ["1050ti", "GTX 1050 Ti", "NVIDIA GeForce GTX 1050 Ti"])
def test_a_card_by_any_of_its_names(text: str) -> None:
    assert card(text).name == "GTX 1050 Ti"
    assert 2.8 * GB < card(text).usable < 3.2 * GB  # ../shared/ecosystem.md: about 2.8 to 3.2 GB
    assert not card(text).bf16


def test_an_unknown_card() -> None:
    with pytest.raises(UserError, match="Did you mean '1050ti'"):
        card("1050it")


def test_faster_ways_come_first() -> None:
    assert [one.words for one in choices(bf16=True)][:2] == ["bf16", "fp32"]
    assert [one.words for one in choices(bf16=False)] == ["fp32", "fp32, activation checkpointing"]


PEAKS = {
    "line": lambda size: 100 + 10 * size,
    "bend": lambda size: 100 + 10 * size + 3 * min(size, 20),
    "all pairs": lambda size: 100 + 10 * size + 16 * size * size,
    "steps": lambda size: 100 + 512 * (size // 3),
}


@pytest.mark.parametrize("kind", PEAKS)
@pytest.mark.parametrize("batch", [1, 8, 300, 20_000])
@pytest.mark.parametrize("usable", [1000, 30_000])
def test_the_largest_batch_fits_and_is_nearly_the_largest(kind: str, batch: int, usable: int) -> None:
    peak = PEAKS[kind]
    largest = max(size for size in range(1, 4000) if peak(size) <= usable)
    asked: list[int] = []

    def predict(size: int) -> int:
        asked.append(size)
        return peak(size)

    found = largest_batch(predict, usable, batch, peak(batch))
    assert peak(found) <= usable
    assert found >= 0.9 * largest
    assert len(asked) <= TRIES


def test_where_not_even_one_image_fits() -> None:
    assert largest_batch(lambda size: 500 + size, 400, 8, 508) == 0
