"""Types of settings that several plugins share: ranges of crops and blur, and paths that survive a change of folder."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Annotated

from pydantic import AfterValidator

Pair = tuple[float, float]


def absolute_path(text: str) -> str:
    """A path as the user typed it (`~`, relative), made absolute so that it means the same from any working directory.

    Links are kept: the dataset is called what the user called it. Raises `ValueError` for a path that a record, which
    is UTF-8, cannot hold.
    """
    path = str(Path(os.path.expanduser(text)).absolute())
    try:
        path.encode("utf-8")
    except UnicodeEncodeError:
        shown = os.fsencode(path).decode("utf-8", "backslashreplace")
        raise ValueError(
            f"the path {shown} has bytes that are not UTF-8, which a record cannot hold. Rename the folder, or make a "
            f"link with a plain name to it: ln -s {shown} NAME"
        ) from None
    return path


def _list_path(text: str) -> str:
    is_path = "/" in text or text.startswith("~") or (text.endswith(".txt") and Path(text).is_file())
    return absolute_path(text) if is_path else text


def _ordered(pair: Pair) -> Pair:
    if pair[0] > pair[1]:
        raise ValueError(f"the first number is larger than the second. Give [{pair[1]:g}, {pair[0]:g}]")
    return pair


def _areas(pair: Pair) -> Pair:
    if not all(1e-9 <= share <= 1 for share in pair):
        raise ValueError("give two shares of the image's area above 0 and up to 1, e.g. [0.2, 1.0]")
    return _ordered(pair)


def _widths(pair: Pair) -> Pair:
    if not all(0 <= width <= 1e6 for width in pair):
        raise ValueError("give two widths of 0 px or more, e.g. [0.1, 2.0]")
    return _ordered(pair)


def _decay_rates(pair: Pair) -> Pair:
    if not all(0 <= rate < 1 for rate in pair):
        raise ValueError("give two rates from 0 up to, but not including, 1, e.g. [0.9, 0.999]")
    return pair


def _probabilities(pair: Pair) -> Pair:
    if not all(0 <= probability <= 1 for probability in pair):
        raise ValueError("give two probabilities between 0 and 1, e.g. [1.0, 0.1]")
    return pair


AreaRange = Annotated[Pair, AfterValidator(_areas)]
"""Smallest and largest area of a crop, as shares of the image's."""
BlurRange = Annotated[Pair, AfterValidator(_widths)]
"""Smallest and largest standard deviation of a blur, in pixels."""
Probabilities = Annotated[Pair, AfterValidator(_probabilities)]
"""One probability for each of two views."""
DecayRates = Annotated[Pair, AfterValidator(_decay_rates)]
"""Two decay rates of moving averages."""
GivenPath = Annotated[str, AfterValidator(absolute_path)]
"""A file or folder that the user named; kept as an absolute path."""
GivenList = Annotated[str, AfterValidator(_list_path)]
"""The name of a list that comes with a dataset, or a list file that the user named, kept as an absolute path."""
