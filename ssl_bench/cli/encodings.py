"""Output on a terminal or into a file of any encoding, and as JSON: what cannot be written is spelled out."""

from __future__ import annotations

import codecs
import io
import json
import sys
from typing import Any

SPELLED_OUT = {"→": "->", "±": "+-", "·": "-", "–": "-", "…": "...", "×": "x", "α": "alpha"}
"""Signs that sslbench prints, in ASCII."""
HANDLER = "sslbench_spell_out"


def print_in_any_encoding() -> None:
    """Let stdout and stderr spell out what their encoding lacks, lone surrogates in file names included."""
    codecs.register_error(HANDLER, _spell_out)
    for stream in (sys.stdout, sys.stderr):
        if isinstance(stream, io.TextIOWrapper):  # not None, as without a console, and not a test's replacement
            stream.reconfigure(errors=HANDLER)


def print_json(document: Any) -> None:
    """One JSON document on stdout, in ASCII, so that it is the same in any encoding; floats in full precision.

    NaN and infinity, which JSON does not have, are the texts "NaN", "Infinity" and "-Infinity", as in records.
    """
    print(json.dumps(_without_nan(document), indent=1, allow_nan=False))


def _without_nan(value: Any) -> Any:
    if isinstance(value, dict):
        return {key: _without_nan(inner) for key, inner in value.items()}
    if isinstance(value, list | tuple):
        return [_without_nan(inner) for inner in value]
    if isinstance(value, float) and value - value != 0:
        return "NaN" if value != value else "Infinity" if value > 0 else "-Infinity"
    return value


def _spell_out(error: UnicodeError) -> tuple[str, int]:
    """A codec error handler: ASCII for our own signs, `\\u65e5` for any other character."""
    if not isinstance(error, UnicodeEncodeError):
        raise error
    text = error.object[error.start : error.end]
    spelled = (SPELLED_OUT.get(sign) or sign.encode("ascii", "backslashreplace").decode() for sign in text)
    return "".join(spelled), error.end
