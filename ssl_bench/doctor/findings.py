"""What a part of the examination found: facts, and problems with their remedy."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Literal

Value = str | int | float | bool | None
Severity = Literal["broken", "slow", "note"]
"""Does not work; works, and slower than it could; works, and good to know."""
SEVERITIES: tuple[Severity, ...] = ("broken", "slow", "note")
"""The most important first."""


@dataclass(frozen=True)
class Fact:
    """One line of a part, on the screen and in JSON."""

    label: str
    text: str
    value: Value = None
    """The text as a number where it is one: in bytes, operations or images per second."""


@dataclass(frozen=True)
class Problem:
    """Something to fix: what is wrong and, at its end, what to do."""

    severity: Severity
    text: str


@dataclass(frozen=True)
class Findings:
    """What one part found."""

    facts: tuple[Fact, ...]
    problems: tuple[Problem, ...] = ()


Examine = Callable[[], Findings]


def examined(examine: Examine) -> Findings:
    """What a part finds; where it fails, the reason in place of its facts, so that the others are still examined."""
    try:
        return examine()
    except Exception as error:  # whatever is broken here must not hide the rest
        words = f"{type(error).__name__}: {error}".strip().splitlines()[0]
        return Findings((Fact("failed", words),), (Problem("note", f"a part could not be examined: {words}"),))


def by_importance(problems: list[Problem]) -> list[Problem]:
    """Most important first, otherwise in the order in which they were found."""
    return sorted(problems, key=lambda problem: SEVERITIES.index(problem.severity))
