"""Amounts of memory as they are typed, known cards, and which way to do a step is chosen."""

from __future__ import annotations

from typing import Any

import pytest

from ssl_bench.errors import UserError
from ssl_bench.planning.choices import Asked, Choice, fastest, micro_batches, smallest
from ssl_bench.planning.devices import CARDS, GB, UTILIZATION, card, parse_memory
from ssl_bench.planning.step_memory import StepMemory


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
    assert card(text).precisions == ("fp32", "fp16")


@pytest.mark.parametrize("name", CARDS)
def test_every_card_has_a_speed_for_what_it_prefers(name: str) -> None:
    """By hand: 10^12 operations at 40 % of 2.1 x 10^12 per second take 1.19 s; mixed precision is never slower."""
    device = CARDS[name]
    assert CARDS["1050ti"].seconds(1e12, "fp32") == pytest.approx(1 / (0.4 * 2.1))
    assert device.seconds(1e12, "int4") is None
    assert set(device.precisions) <= device.teraflops.keys() <= UTILIZATION.keys()
    assert device.teraflops[device.precisions[0]] == max(device.teraflops.values())


def test_an_unknown_card() -> None:
    with pytest.raises(UserError, match="Did you mean '1050ti'"):
        card("1050it")


MB = 2**20


def toy(choice: Choice, batch: int = 64) -> StepMemory:
    """10 MB, 1 MB an image that is computed at once, half of it recomputed at 4/3 of the work."""
    images = choice.micro_batch or batch
    activations = images * MB // (2 if choice.checkpointing else 1)
    return StepMemory({"weights": 10 * MB, "activations": activations}, 400 if choice.checkpointing else 300)


def plan(usable_mb: int, *, exact: bool = True, recomputes: bool = True, **asked: Any) -> Choice | None:
    given = Asked(**{"batch_size": 64, "precisions": ["fp32"], **asked})
    way, _ = fastest(given, toy, lambda micro_batch: micro_batch is None or exact, usable_mb * MB, recomputes)
    assert way is None or way.memory.peak <= usable_mb * MB
    return None if way is None else way.choice


def test_the_whole_batch_where_it_fits() -> None:
    assert plan(74) == Choice("fp32", False)
    assert plan(74, precisions=["bf16", "fp32"]) == Choice("bf16", False)


def test_a_prediction_that_cannot_change_the_answer_is_not_made() -> None:
    """A whole batch that fits is the fastest; a second precision is for where nothing fits at the first."""

    def asked_for(usable_mb: int, *, exact: bool) -> list[Choice]:
        seen: list[Choice] = []

        def predict(choice: Choice) -> StepMemory:
            seen.append(choice)
            return toy(choice)

        fastest(Asked(64, ["fp32", "fp16"]), predict, lambda _: exact, usable_mb * MB, True)
        return seen

    assert asked_for(74, exact=True) == [Choice("fp32", False)]
    assert asked_for(42, exact=False) == [Choice("fp32", False), Choice("fp32", True)]
    assert all(choice.precision == "fp32" for choice in asked_for(12, exact=True))
    assert Choice("fp16", True) in asked_for(9, exact=True)


@pytest.mark.parametrize("least", [1, 2])
@pytest.mark.parametrize("curve", [0.5, 1.0, 1.5], ids="memory to the power {} of the images".format)
def test_the_largest_micro_batch_by_trying_all(curve: float, least: int) -> None:
    """Gradients of 10 MB that smaller micro-batches have and the whole batch has not; up to 256 MB an image."""

    def predict(choice: Choice) -> StepMemory:
        gradients = 0 if choice.micro_batch is None else 10 * MB
        activations = round((choice.micro_batch or 256) ** curve * MB)
        return StepMemory({"weights": 10 * MB, "gradients": gradients, "activations": activations}, 300)

    for usable in (15 * MB, 21 * MB, 30 * MB, 60 * MB, 148 * MB, 200 * MB):
        sizes = list(micro_batches(256, least))
        fitting = [size for size in sizes if predict(Choice("fp32", False, size)).peak <= usable]
        seen: list[Choice] = []

        def noted(choice: Choice, seen: list[Choice] = seen) -> StepMemory:
            seen.append(choice)
            return predict(choice)

        way, _ = fastest(Asked(256, ["fp32"], least=least), noted, lambda _: False, usable, False)
        if predict(Choice("fp32", False)).peak > usable:
            assert (way.choice.micro_batch if way else None) == max(fitting, default=None)
        if curve == 1:  # the whole batch, the guess, and the next larger one
            assert len(seen) <= 3


def test_exact_micro_batches_where_they_are_faster_than_recomputing() -> None:
    """32 images at once are two passes: 300 (1 + 2/64) operations, against 400 (1 + 1/64)."""
    assert plan(73) == Choice("fp32", False, 32)
    assert plan(43) == Choice("fp32", False, 32)
    assert plan(41) == Choice("fp32", False, 16)
    assert plan(12) == Choice("fp32", False, 2)  # 300 (1 + 32/64) against 400 (1 + 16/64) with 4, recomputed


def test_recomputing_rather_than_approximate_micro_batches() -> None:
    assert plan(73, exact=False) == Choice("fp32", True)
    assert plan(42, exact=False) == Choice("fp32", True)
    assert plan(41, exact=False) == Choice("fp32", True, 32)  # the largest: batch norm sees most images
    assert plan(41, exact=False, recomputes=False) == Choice("fp32", False, 16)


def test_what_the_user_set_stays() -> None:
    assert plan(41, exact=False, checkpointing=False) == Choice("fp32", False, 16)
    assert plan(74, checkpointing=True) == Choice("fp32", True)
    assert plan(74, micro_batch=8) == Choice("fp32", False, 8)
    assert plan(14, micro_batch=8) == Choice("fp32", True, 8)
    assert plan(13, micro_batch=8) is None


def test_a_limit_too_small_and_the_smallest_way() -> None:
    assert plan(10) is None
    assert plan(11, least=2) == Choice("fp32", True, 2)
    given = Asked(64, ["fp32"], least=2)
    _, tried = fastest(given, toy, lambda _: True, 10 * MB, True)
    assert smallest(given, toy, lambda _: True, tried).choice == Choice("fp32", True, 2)


@pytest.mark.parametrize(
    ("batch", "least", "sizes"), [(64, 1, [32, 16, 8, 4, 2, 1]), (10, 2, [5, 3]), (2, 2, []), (1, 1, []), (3, 1, [2])]
)
def test_sizes_of_micro_batches(batch: int, least: int, sizes: list[int]) -> None:
    assert list(micro_batches(batch, least)) == sizes


def test_settings_as_they_are_typed() -> None:
    assert Choice("fp32", False).settings == {"training.precision": "fp32"}
    assert Choice("fp32", True, 32).settings == {
        "training.precision": "fp32",
        "machine.activation_checkpointing": "true",
        "machine.micro_batch": "32",
    }
