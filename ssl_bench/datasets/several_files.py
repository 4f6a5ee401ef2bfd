"""A dataset that lies in several containers: which split each of them belongs to, and what the set is called."""

from __future__ import annotations

import os
import re
from collections.abc import Iterator, Sequence
from pathlib import Path

from ssl_bench.datasets.picking import SPLIT_NAMES, SplitName, split_of
from ssl_bench.datasets.reading import EXTENSIONS, shown
from ssl_bench.errors import UserError

FOLDERS_BELOW = 2
"""How deep files are looked for: NAME/CONFIGURATION/SPLIT/FILE is as Hugging Face converts datasets."""


def by_split(paths: Sequence[Path], given: Path) -> dict[SplitName, list[Path]]:
    """The files of every split, told by a word in their names or their folders' below `given`.

    Files that name no split are one part, "". So are files that are given by name and are all of val or of test: then
    they are what the user wants to train on. Raises `UserError` where only some name a split.
    """
    found: dict[SplitName, list[Path]] = {}
    for path in paths:
        found.setdefault(_split_in(path, given), []).append(path)
    if len(found) == 1 and not given.is_dir() and "train" not in found:
        return {"": list(paths)}
    if "" in found and len(found) > 1:
        raise UserError(
            f"{shown(given)}: {shown(found[''][0])} names no split, while {shown(paths[0])} and others do. Rename it "
            f"({SPLIT_NAMES}), or give a pattern without it."
        )
    order: tuple[SplitName, ...] = ("train", "val", "test", "")
    return {split: found[split] for split in order if split in found}


def files_with_ending(folder: Path, ending: str) -> list[Path]:
    """The files with this ending, at most `FOLDERS_BELOW` folders below `folder`, sorted; hidden ones are left out."""
    return sorted(Path(entry.path) for entry in _entries(folder) if entry.name.lower().endswith(ending))


def is_set_of(folder: Path, ending: str) -> bool:
    """Whether files that end so are what a folder holds.

    Not where images lie among them, nor beside a train/ without such files: then they are something else's.
    """
    found = False
    for entry in _entries(folder):
        if entry.name.lower().endswith(EXTENSIONS):
            return False
        found = found or entry.name.lower().endswith(ending)
    train = folder / "train"
    return found and (not train.is_dir() or bool(files_with_ending(train, ending)))


def _entries(folder: Path, below: int = FOLDERS_BELOW) -> Iterator[os.DirEntry[str]]:
    with os.scandir(folder) as entries:
        for entry in entries:
            if entry.name.startswith("."):
                continue
            if entry.is_file():
                yield entry
            elif below and entry.is_dir():
                yield from _entries(Path(entry.path), below - 1)


def name_of_several(path: Path) -> str:
    """What a set is called that lies at `path`, a folder, a file or a pattern: without ending, counters and splits."""
    if path.is_dir():
        return path.name
    stem = re.split(r"[{*?\[]", path.name)[0].removesuffix(path.suffix)
    words = [word for word in re.split(r"[-_.\s]+", stem) if word and not word.isdigit()]
    kept = [word for word in words if split_of(word) is None and word != "of"]
    if kept:
        return "-".join(kept)
    parent = path.parent
    while parent.name in ("data", "train", "val", "test"):
        parent = parent.parent
    return parent.name or "images"


def _split_in(path: Path, given: Path) -> SplitName:
    folders: tuple[str, ...] = () if given.is_file() else (path.parent.name,)
    if given.is_dir():
        folders = path.relative_to(given).parts[:-1]
    for name in (path.stem, *reversed(folders)):
        for word in re.split(r"[-_.\s]+", name):
            split = split_of(word)
            if split is not None:
                return split
    return ""
