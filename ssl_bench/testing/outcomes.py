"""What a check can say: it passes in silence, fails with the way to fix it, or has nothing to look at."""

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
    """Empty for "ok"; what fails and how to fix it, the expected failure's reason, or why it was skipped."""


def require(holds: bool, message: str) -> None:
    """Raises `CheckFailed` unless it holds."""
    if not holds:
        raise CheckFailed(message)
