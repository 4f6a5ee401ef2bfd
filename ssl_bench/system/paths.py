"""Paths that the user named: absolute in a process, and in what is written from `$SSLBENCH_DATA` or `~`."""

from __future__ import annotations

import os
import re
from pathlib import Path

DATA_ROOT = "SSLBENCH_DATA"
"""Environment variable with the folder that holds a machine's datasets."""


def expanded_path(text: str) -> str:
    """The path with `~` and, where that variable is set, a leading `$SSLBENCH_DATA` replaced by what they stand for."""
    root = os.environ.get(DATA_ROOT)
    if root and below_data_root(text):
        text = root + text.removeprefix(f"${DATA_ROOT}")
    return os.path.expanduser(text)


def require_data_root(text: str) -> None:
    """Raises `ValueError` for a path below `$SSLBENCH_DATA` where that variable is not set."""
    if below_data_root(text) and not os.environ.get(DATA_ROOT):
        raise ValueError(f"{text}: {DATA_ROOT} is not set. Set it to the folder that holds your datasets")


def below_data_root(text: str) -> bool:
    """Whether a path begins with `$SSLBENCH_DATA`, as records keep it."""
    return text.partition("/")[0] == f"${DATA_ROOT}"


def portable_path(path: str) -> str:
    """An absolute path as records keep it: from `$SSLBENCH_DATA` or `~` where it lies below one.

    So a record reads the same on another machine, and one that is published names nobody's folders.
    """
    for name, root in _roots():
        if path == root or path.startswith(root + os.sep):
            return name + path[len(root) :]
    return path


def portable_text(text: str) -> str:
    """A word of a command, or a call, with the paths in it as `portable_path` gives them."""
    for name, root in _roots():
        text = re.sub(rf"(?<![\w./~-]){re.escape(root)}(?![\w.-])", name, text)
    return text


def _roots() -> list[tuple[str, str]]:
    """Names of folders below which paths are told from there; none for one that is everything or relative."""
    given = ((f"${DATA_ROOT}", os.environ.get(DATA_ROOT, "")), ("~", os.path.expanduser("~")))
    roots = [(name, os.path.abspath(root)) for name, root in given if os.path.isabs(root)]
    return [(name, root) for name, root in roots if root != os.sep]


def absolute_path(text: str) -> str:
    """A path as the user typed it (`~`, relative), made absolute so that it means the same from any working directory.

    Links are kept: the dataset is called what the user called it. Raises `ValueError` for a path that a record, which
    is UTF-8, cannot hold, and for one below `$SSLBENCH_DATA` where that is not set.
    """
    path = str(Path(expanded_path(text)).absolute())
    require_data_root(text)
    try:
        path.encode("utf-8")
    except UnicodeEncodeError:
        shown = os.fsencode(path).decode("utf-8", "backslashreplace")
        raise ValueError(
            f"the path {shown} has bytes that are not UTF-8, which a record cannot hold. Rename the folder, or make a "
            f"link with a plain name to it: ln -s {shown} NAME"
        ) from None
    return path
