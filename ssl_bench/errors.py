"""The one error a user sees, and the words that every unknown name is answered with."""

from __future__ import annotations

import difflib
from collections.abc import Iterable


class UserError(ValueError):
    """A mistake in what the user gave: printed as one message without a traceback, exit status 2.

    The message says what was given, what is allowed and what to do.
    """


class NotExpressible(UserError):
    """Another library's form of a network does not exist; the message is the reason, e.g. "its stem is 3 x 3"."""


class DoesNotFitData(UserError):
    """What was asked for is right, and these data do not allow it: too few images, no labels."""


def unknown_name(kind: str, given: str, known: Iterable[str], hint: str = "") -> UserError:
    """The error for a name that is not there: nearest match, the known ones, and where to look.

    >>> print(unknown_name("method", "dinno", ["dino", "byol"], "sslbench list"))
    no method is called 'dinno'. Did you mean 'dino'? Known: byol, dino (sslbench list)
    """
    names = sorted(known)
    return UserError(
        f"no {kind} is called {given!r}.{did_you_mean(given, names)} Known: {', '.join(names) or 'none'}"
        + (f" ({hint})" if hint else "")
    )


def did_you_mean(given: str, known: Iterable[str]) -> str:
    """`" Did you mean 'x'?"` for the nearest of `known`, or an empty string when nothing is near."""
    nearest = difflib.get_close_matches(given, list(known), n=1, cutoff=0.6)
    return f" Did you mean {nearest[0]!r}?" if nearest else ""
