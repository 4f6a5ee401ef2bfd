"""Measurement: one number with its protocol. Apart from the evaluators' contract so that tables need no torch."""

from __future__ import annotations

from pydantic import BaseModel, ConfigDict


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
    protocol: str
    """Everything that decides comparability, in one line; two numbers compare only if these agree."""
    primary: bool = False
    """The number a table shows for this evaluator unless it asks for another."""
    details: str = ""
    """What does not decide comparability but is worth knowing, e.g. the search library and its version."""
