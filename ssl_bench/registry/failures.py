"""Failures in the code of plugins and libraries, as one message for the user."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

from ssl_bench.errors import UserError
from ssl_bench.registry.entry_points import blame

DEBUG = "SSLBENCH_DEBUG=1 shows where"


@contextmanager
def in_one_message(what: str) -> Iterator[None]:
    """Turn any exception of a plugin or a library inside into a `UserError` that begins with `what`."""
    try:
        yield
    except UserError:
        raise
    except Exception as error:
        raise UserError(f"{what}: {blame(error) or f'{in_words(error)}. {DEBUG}'}") from error


def in_words(error: BaseException) -> str:
    """Type and first line, e.g. "AssertionError: Input height (64) doesn't match model (224)"."""
    first = str(error).strip().partition("\n")[0].rstrip(". ")
    first = first if len(first) <= 300 else f"{first[:297]}..."
    return f"{type(error).__name__}: {first}" if first else type(error).__name__
