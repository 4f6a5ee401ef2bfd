"""Measurement: one number with its protocol. Apart from the evaluators' contract so that tables need no torch."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from statistics import NormalDist
from string import Formatter
from typing import TYPE_CHECKING, Any

from pydantic import BaseModel, ConfigDict, Field, InstanceOf, model_validator

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

Scalar = str | int | float | bool
Value = Scalar | tuple[Scalar, ...]

PURE_NUMBER = "1"
"""The unit of a number that has none."""


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


@dataclass(frozen=True, eq=False)
class Outcomes:
    """What each test item scored: the measurement's value is their mean. Make one with `Outcomes.of`."""

    values: NDArray[np.bool_] | NDArray[np.float32]
    """(n,), in the order of the test items: right or wrong, or the item's score in the measurement's unit."""
    clusters: NDArray[np.int32] | None = None
    """(n,): items of equal numbers were not drawn independently, e.g. the objects of one video; None: all were."""

    @classmethod
    def of(cls, values: Any, clusters: Any = None) -> Outcomes:
        """From (n,) arrays, tensors or lists; `values` are truth values or numbers, `clusters` whole numbers.

        Raises `ValueError` for another shape, and where there are no items.
        """
        import numpy as np

        found = np.asarray(values)
        found = found if found.dtype == np.bool_ else found.astype(np.float32)
        numbers = None if clusters is None else np.asarray(clusters).astype(np.int32)
        if found.ndim != 1 or not len(found) or (numbers is not None and numbers.shape != found.shape):
            raise ValueError(f"outcomes are one value for each test item, and a cluster for each, not {found.shape}")
        return cls(found, numbers)

    def __eq__(self, other: object) -> bool:
        if not isinstance(other, Outcomes):
            return NotImplemented
        return self._content == other._content

    def __hash__(self) -> int:
        return hash(self._content)

    @property
    def _content(self) -> tuple[str, bytes, bytes | None]:
        return self.values.dtype.str, self.values.tobytes(), None if self.clusters is None else self.clusters.tobytes()

    @property
    def in_unit(self) -> NDArray[np.float64]:
        """(n,) in the measurement's unit: a right answer counts 100 %, a wrong one 0 %."""
        import numpy as np

        return self.values.astype(np.float64) * (100.0 if self.values.dtype == np.bool_ else 1.0)


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
    """Ends of the 95 % interval of `value`, in `unit`: how far another `n` test items could have moved it.

    Where an evaluator gives outcomes and no interval, the interval is their bootstrap."""
    outcomes: InstanceOf[Outcomes] | None = Field(default=None, exclude=True, repr=False)
    """What each of the `n` test items scored, where `value` is their mean; kept in a file beside the record. With it
    two runs are compared item by item, and the interval covers test items and seeds."""

    @property
    def unit_text(self) -> str:
        """What stands behind the value on screen."""
        return unit_text(self.unit)

    @model_validator(mode="after")
    def _is_the_mean_of_its_outcomes(self) -> Measurement:
        if self.outcomes is not None:
            n, mean = len(self.outcomes.values), float(self.outcomes.in_unit.mean())
            if n != self.n or not math.isclose(mean, self.value, rel_tol=1e-4, abs_tol=1e-4):
                raise ValueError(
                    f"{self.metric} = {self.value:g} over {self.n} items has outcomes of {n} items with the mean "
                    f"{mean:g}: give the outcomes that the value is the mean of"
                )
        return self


def unit_text(unit: str) -> str:
    """A unit as readers see it: nothing for a pure number, whose unit is "1".

    >>> unit_text("%"), unit_text("1")
    ('%', '')
    """
    return "" if unit == PURE_NUMBER else unit


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


def accuracy_of(
    metric: str, right: Any, *, protocol: Protocol, primary: bool = False, details: str = ""
) -> Measurement:
    """As `accuracy`, from the outcome of every test item: `right` (n,) truth values, an array or tensor on the CPU."""
    outcomes = Outcomes.of(right)
    hits, n = int(outcomes.values.sum()), len(outcomes.values)
    counted = accuracy(metric, hits, n, protocol=protocol, primary=primary, details=details)
    return counted.model_copy(update={"outcomes": outcomes})


def difference_interval(one: Measurement, other: Measurement) -> tuple[float, float] | None:
    """Ends of the 95 % interval of `other.value - one.value`; None where a number has no interval.

    From both numbers' own intervals. The same test items behind both make this cautious, since shared luck cancels out:
    `records.bootstrap.paired_interval` compares item by item.
    """
    if one.interval is None or other.interval is None:
        return None
    return newcombe_interval(one.value, one.interval, other.value, other.interval)


def newcombe_interval(
    one: float, one_ends: tuple[float, float], other: float, other_ends: tuple[float, float]
) -> tuple[float, float]:
    """Ends of the interval of `other - one` from both numbers' own (Newcombe 1998, Statistics in Medicine 17, method
    10)."""
    difference = other - one
    below = math.hypot(other - other_ends[0], one_ends[1] - one)
    above = math.hypot(other_ends[1] - other, one - one_ends[0])
    return difference - below, difference + above


def within_noise(one: Measurement, other: Measurement) -> bool:
    """Whether a difference may be an accident of the test items; False where an interval is missing."""
    interval = difference_interval(one, other)
    return interval is not None and interval[0] <= 0 <= interval[1]
