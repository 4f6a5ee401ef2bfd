"""Measurement: one number with its protocol. Apart from the evaluators' contract so that tables need no torch."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from statistics import NormalDist
from string import Formatter
from typing import Any

from pydantic import BaseModel, ConfigDict, Field, model_validator

Scalar = str | int | float | bool
Value = Scalar | tuple[Scalar, ...]


class Protocol(BaseModel):
    """Everything that decides whether two numbers compare, in the order in which it is read.

    Make one with `Protocol.of`. A plain text is taken too, as a protocol without fields: what records up to schema 3
    hold, and what an evaluator may give that has no settings. Two protocols are the same where their texts are, so that
    numbers of old and new records compare; `of` sees to it that the text shows every field.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    fields: dict[str, Value] = Field(default_factory=dict)
    """Name -> value, e.g. {"k": 20, "temperature": 0.07}."""
    text: str
    """All of it in one line."""

    @classmethod
    def of(cls, template: str, **fields: Value | Protocol) -> Protocol:
        """The protocol with these fields, whose text is `template` with each `{name}` replaced by its value.

        A field that is itself a protocol gives its text and its fields. Numbers are written so that two different ones
        never look alike; `{name:,}` and other format specifications work too. Raises `ValueError` for a field that the
        template does not show, a name in it that is no field, and a name that stands for two fields.

        >>> view = Protocol.of("resize {resize_px}, center crop {crop_px}", resize_px=256, crop_px=224)
        >>> protocol = Protocol.of("{k}-NN, {similarity}, {view}", k=20, similarity="cosine", view=view)
        >>> protocol.text
        '20-NN, cosine, resize 256, center crop 224'
        >>> protocol.fields["crop_px"]
        224
        """
        text = _LosslessFormatter().vformat(template, (), fields)
        merged: dict[str, Value] = {}
        for name, value in fields.items():
            for inner, scalar in (value.fields if isinstance(value, Protocol) else {name: value}).items():
                if inner in merged:
                    raise ValueError(f"the protocol {text!r} has two fields called {inner!r}")
                merged[inner] = scalar
        return cls(fields=merged, text=text)

    @model_validator(mode="before")
    @classmethod
    def _text_alone(cls, given: Any) -> Any:
        return {"text": given} if isinstance(given, str) else given

    def __str__(self) -> str:
        return self.text

    def __eq__(self, other: object) -> bool:
        return self.text == other.text if isinstance(other, Protocol) else NotImplemented

    def __hash__(self) -> int:
        return hash(self.text)


def scalar_text(value: Scalar) -> str:
    """A value as a reader writes it, e.g. true, 12, 0.07; two different numbers never share a text.

    >>> scalar_text(True), scalar_text(1e-6), scalar_text(0.1234567)
    ('true', '1e-06', '0.1234567')
    """
    if isinstance(value, bool):
        return str(value).lower()
    if isinstance(value, float):
        short = f"{value:g}"
        return short if float(short) == value else repr(value)
    return str(value)


class _LosslessFormatter(Formatter):
    def format_field(self, value: Any, format_spec: str) -> str:
        if format_spec:
            return format(value, format_spec)
        if isinstance(value, tuple):
            return " ".join(map(scalar_text, value))
        return value.text if isinstance(value, Protocol) else scalar_text(value)

    def get_value(self, key: int | str, args: Sequence[Any], kwargs: Mapping[str, Any]) -> Any:
        if key not in kwargs:
            raise ValueError(f"the protocol's template names {key!r}; its fields are {', '.join(kwargs) or 'none'}")
        return kwargs[str(key)]

    def check_unused_args(self, used_args: set[int | str], args: Sequence[Any], kwargs: Mapping[str, Any]) -> None:
        if unused := [name for name in kwargs if name not in used_args]:
            raise ValueError(f"the protocol's template does not show {', '.join(unused)}")


NO_PROTOCOL = Protocol(text="")
"""For an optional part that is left out, and for values that compare whatever the protocol."""


class Measurement(BaseModel):
    """One number and all that is needed to know what it means."""

    model_config = ConfigDict(frozen=True, extra="forbid", ser_json_inf_nan="strings")

    metric: str
    """Name within the evaluator, e.g. "top1_k20"."""
    value: float
    unit: str
    """E.g. "%" or "s"."""
    higher_is_better: bool
    n: int
    """How many test items the number is over."""
    protocol: Protocol
    """Everything that decides comparability; two numbers compare only if these agree. A text is taken, too."""
    primary: bool = False
    """The number a table shows for this evaluator unless it asks for another."""
    details: str = ""
    """What does not decide comparability but is worth knowing, e.g. the search library and its version."""
    interval: tuple[float, float] | None = None
    """Ends of the 95 % interval of `value`, in `unit`: how far another `n` test items could have moved it."""


def wilson_interval(hits: int, n: int, level: float = 0.95) -> tuple[float, float]:
    """Confidence interval, in percent, of a share of which `hits` of `n` items were counted (Wilson 1927).

    Holds for few items and for shares near 0 and 100 %, where the usual "value +- 2 deviations" does not. It covers
    the choice of the test items only, not that of the training images or of the seed.
    """
    z = NormalDist().inv_cdf((1 + level) / 2)
    share, spread = hits / n, z * z / n
    center = (share + spread / 2) / (1 + spread)
    half = math.sqrt(share * (1 - share) * spread + spread * spread / 4) / (1 + spread)
    return 100 * max(0.0, center - half), 100 * min(1.0, center + half)


def accuracy(
    metric: str, hits: int, n: int, *, protocol: Protocol, primary: bool = False, details: str = ""
) -> Measurement:
    """A measurement in percent of test items, with its interval."""
    return Measurement(
        metric=metric,
        value=100 * hits / n,
        unit="%",
        higher_is_better=True,
        n=n,
        protocol=protocol,
        primary=primary,
        details=details,
        interval=wilson_interval(hits, n),
    )


def difference_interval(one: Measurement, other: Measurement) -> tuple[float, float] | None:
    """Ends of the 95 % interval of `other.value - one.value`; None where a number has no interval.

    Newcombe 1998 (Statistics in Medicine 17, method 10), from both numbers' own intervals. The same test items behind
    both make this cautious, since shared luck cancels out.
    """
    if one.interval is None or other.interval is None:
        return None
    difference = other.value - one.value
    below = math.hypot(other.value - other.interval[0], one.interval[1] - one.value)
    above = math.hypot(other.interval[1] - other.value, one.value - one.interval[0])
    return difference - below, difference + above


def within_noise(one: Measurement, other: Measurement) -> bool:
    """Whether a difference may be an accident of the test items; False where an interval is missing."""
    interval = difference_interval(one, other)
    return interval is not None and interval[0] <= 0 <= interval[1]
