"""Outcomes of a check: it passes, fails with advice on how to fix it, or is skipped."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

Outcome = Literal["ok", "failed", "expected failure", "skipped"]


class CheckFailed(AssertionError):
    """The plugin breaks the contract; the message says where and how to fix it."""


class CheckSkipped(Exception):
    """The check does not apply to this plugin; the message says why."""


@dataclass(frozen=True)
class CheckResult:
    """One check's outcome on one plugin."""

    name: str
    outcome: Outcome
    message: str = ""
    """Empty for "ok"; else what fails and how to fix it, the reason of an expected failure, or why it was skipped."""


def require(holds: bool, message: str) -> None:
    """Raises `CheckFailed` unless the condition holds."""
    if not holds:
        raise CheckFailed(message)
