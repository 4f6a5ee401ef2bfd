"""Settings: what a user reads of them, and how a wrong one is answered."""

from __future__ import annotations

from typing import Literal

import pytest

from ssl_bench.errors import UserError
from ssl_bench.settings import Settings, describe, parse_settings, parse_text, setting


class Example(Settings):
    """An example."""

    temperature: float = setting(0.1, "Sharpness.", unit="", source="eq. 1", gt=0)
    crop_px: int | None = setting(None, "Side of a view.", unit="px", ge=1)
    loss: Literal["ce", "mse"] = setting("ce", "What is compared.")
    scale: tuple[float, float] = setting((0.4, 1.0), "Area.")


def test_the_command_line_shows_default_unit_meaning_choices_and_source() -> None:
    assert describe(Example) == [
        ("temperature", "0.1", "", "Sharpness.", "eq. 1"),
        ("crop_px", "null", "px", "Side of a view.", ""),
        ("loss", '"ce"', "", "What is compared. One of: ce, mse.", ""),
        ("scale", "[0.4, 1.0]", "", "Area.", ""),
    ]


@pytest.mark.parametrize(
    ("text", "value"),
    [("3", 3), ("0.5", 0.5), ("1e-3", 0.001), ("true", True), ("False", False), ("null", None), ("None", None),
     ("[0.1, 1]", [0.1, 1]), ("ce", "ce"), ("a=b", "a=b"), ('"3"', "3")],
)  # fmt: skip
def test_texts_become_values(text: str, value: object) -> None:
    assert parse_text(text) == value


def test_values_are_checked_and_converted() -> None:
    parsed = parse_settings(Example, {"scale": [0.2, 0.5], "temperature": 1}, "method", "example")
    assert (parsed.scale, parsed.temperature) == ((0.2, 0.5), 1.0)
    with pytest.raises(ValueError, match="frozen"):
        parsed.temperature = 2.0


@pytest.mark.parametrize(
    ("values", "words"),
    [
        ({"temprature": 1}, "'method.temprature' is not a setting of example. Did you mean 'method.temperature'?"),
        ({"temperature": 0}, "'method.temperature' = 0: input should be greater than 0. It means: Sharpness."),
        ({"loss": "nce"}, "'method.loss' = 'nce': input should be 'ce' or 'mse'"),
        ({"crop_px": "big"}, "'method.crop_px' = 'big'"),
        ({"temperature": float("inf")}, "'method.temperature'"),
    ],
)
def test_a_wrong_value_is_answered_with_what_is_allowed(values: dict[str, object], words: str) -> None:
    with pytest.raises(UserError) as error:
        parse_settings(Example, values, "method", "example")
    assert words in str(error.value)
