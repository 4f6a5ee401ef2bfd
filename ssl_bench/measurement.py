"""Measurement: one number with its protocol. Apart from the evaluators' contract so that tables need no torch."""

from __future__ import annotations

import math
from statistics import NormalDist

from pydantic import BaseModel, ConfigDict

from ssl_bench.protocol import Protocol


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
