"""FILE.csv with one line per image: the path of its file, and mostly its class and its split."""

from __future__ import annotations

import os
import stat
from collections import Counter
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np

from ssl_bench.dataset import Dataset
from ssl_bench.datasets.image_files import ImageFiles, decide_image_px, fingerprint, set_name
from ssl_bench.datasets.listing import ImageFile
from ssl_bench.datasets.picking import (
    SPLIT_NAMES,
    ContainerConfig,
    Listed,
    Picked,
    SplitName,
    class_labels,
    pick,
    split_of,
)
from ssl_bench.datasets.reading import shown
from ssl_bench.errors import UserError, did_you_mean
from ssl_bench.settings import setting

ENDINGS = (".csv", ".tsv")
PATH_COLUMNS = ("path", "file", "filename", "file_name", "filepath", "image", "image_path", "img")
LABEL_COLUMNS = ("label", "class", "target", "class_name", "category")
SPLIT_COLUMNS = ("split", "subset", "set", "partition")
DELIMITERS = (",", ";", "\t")
SHOWN_AT_MOST = 3
"""Examples in a message."""


class CsvTable(Dataset):
    """A CSV file that lists image files: columns path, and if there are any, label and split."""

    layout = "FILE.csv: columns path (relative to the file), label, split (train, val, test); path alone is enough"

    class Config(ContainerConfig):
        """Settings of a CSV file."""

        path_column: str | None = setting(None, "column of the images' paths; null finds it")
        label_column: str | None = setting(None, "column of the labels; null finds it")
        split_column: str | None = setting(None, "column of the splits; null finds it")

    @classmethod
    def recognizes(cls, path: Path) -> bool:
        """Whether it is a file with this ending."""
        return path.name.lower().endswith(ENDINGS) and path.is_file()

    train: ImageFiles
    test: ImageFiles | None

    def __init__(self, config: Config, path: Path | None) -> None:
        """Read the table, look for every file. Raises `UserError` for files that are missing or lie elsewhere."""
        if path is None or not path.is_file():
            where = "" if path is None else f"; {shown(path)} is not one"
            raise UserError(f"csv needs its file (--data FILE.csv){where}. Expected {self.layout}")
        self.config, self.path = config, path
        table = _read(path)
        names = _paths(table[_column(table, path, "path", config.path_column, PATH_COLUMNS)].tolist(), path)
        sizes = _sizes(path.parent, names, path)
        label_column = _optional_column(table, path, "label", config.label_column, LABEL_COLUMNS)
        split_column = _optional_column(table, path, "split", config.split_column, SPLIT_COLUMNS)
        labels = [""] * len(names) if label_column is None else table[label_column].str.strip().tolist()
        splits = _splits(None if split_column is None else table[split_column].tolist(), len(names), path, split_column)
        rows, repeated = _first_of_each(names, list(zip(labels, splits, strict=True)), path)

        of_split = {split: [row for row in rows if splits[row] == split] for split in dict.fromkeys(splits)}
        told = {split: [labels[row] for row in some] for split, some in of_split.items()}
        found = class_labels(told, shown(path), f"the column {label_column}")
        parts = {
            split: Listed(len(some), found[split], np.array([os.fsencode(names[row]) for row in some], np.bytes_))
            for split, some in of_split.items()
        }
        picks = pick(parts, config, shown(path))

        def files_of(picked: Picked) -> ImageFiles:
            chosen = [of_split[picked.part][row] for row in picked.rows.tolist()]
            files = [ImageFile(names[row], sizes[row]) for row in chosen]
            labels = [None] * len(files) if picked.labels is None else picked.labels
            return ImageFiles(path.parent, zip(labels, files, strict=True), config.decode_px)

        self.classes, self.train = picks.classes, files_of(picks.train)
        self.test = None if picks.test is None else files_of(picks.test)
        self.name = set_name(path.with_suffix(""), config.train_fraction)
        self.image_px = decide_image_px(self.train, config)
        twice = f"{repeated:,} lines repeat another line and count once" if repeated else ""
        self.notes = tuple(note for note in (twice, *picks.notes) if note)

    @property
    def fingerprint(self) -> str:
        """sha256 over the classes and every used file's label, path below the CSV's folder, size and content
        (`content_digest`: of a large set a sample); not over where the folder lies."""
        return fingerprint(self.classes, self.train.digest, "" if self.test is None else self.test.digest)


def _read(path: Path) -> Any:
    """The table as a `pandas.DataFrame` of text."""
    import pandas

    try:
        with open(path, encoding="utf-8-sig") as file:
            header = file.readline()
    except UnicodeDecodeError as error:
        raise UserError(f"{shown(path)} is not UTF-8 text ({error.reason}). Save it as UTF-8.") from None
    except OSError as error:
        raise UserError(f"cannot read {shown(path)}: {error.strerror}.") from None
    delimiter = max(DELIMITERS, key=header.count)
    try:
        table = pandas.read_csv(
            path, sep=delimiter, dtype=str, keep_default_na=False, encoding="utf-8-sig", skipinitialspace=True
        )
    except UnicodeDecodeError as error:
        raise UserError(f"{shown(path)} is not UTF-8 text ({error.reason}). Save it as UTF-8.") from None
    except ValueError as error:  # pandas' own kinds are of this one
        raise UserError(f"{shown(path)} is not a table of columns ({str(error).strip()}). Correct it.") from None
    table.columns = [str(name).strip() for name in table.columns]
    if not isinstance(table.index, pandas.RangeIndex):  # more values than names: pandas takes the first for an index
        raise UserError(f"{shown(path)}: its lines have more values than its first line has names. Quote values with ,")
    if table.empty:
        raise UserError(f"{shown(path)} lists no images. Expected a line of column names, then one line per image.")
    return table


def _column(table: Any, path: Path, what: str, given: str | None, usual: Sequence[str]) -> str:
    found = _optional_column(table, path, what, given, usual)
    if found is not None:
        return found
    names = list(table.columns)
    raise UserError(
        f"{shown(path)} has no column of paths: its first line is {', '.join(names)}.{did_you_mean(names[0], usual)} "
        f"Expected names, one of them {', '.join(usual)}; another name with --set data.{what}_column=NAME"
    )


def _optional_column(table: Any, path: Path, what: str, given: str | None, usual: Sequence[str]) -> str | None:
    names = [str(name) for name in table.columns]
    if given is not None:
        if given in names:
            return given
        near = did_you_mean(given, names)
        raise UserError(f"{shown(path)} has no column {given!r} (data.{what}_column).{near} It has {', '.join(names)}")
    return next((name for word in usual for name in names if name.lower() == word), None)


def _paths(texts: Sequence[str], table: Path) -> list[str]:
    """Each path from the CSV's folder, with "/" between parts. Raises `UserError` for paths that lead out of it."""
    root = os.path.abspath(table.parent)
    names, outside = [], []
    for text in texts:
        given = os.path.expanduser(text.strip().replace("\\", "/") if os.sep == "/" else text.strip())
        name = os.path.relpath(os.path.normpath(os.path.join(root, given)), root).replace(os.sep, "/")
        if not text.strip() or name == ".." or name.startswith("../"):
            outside.append(text)
        names.append(name)
    if outside:
        raise UserError(
            f"{len(outside):,} of the {len(texts):,} paths in {shown(table)} lead out of its folder {shown(root)}/: "
            f"{_some(outside)}. Paths are relative to the file; move it to a folder that holds all images."
        )
    return names


def _sizes(root: Path, names: Sequence[str], table: Path) -> list[int]:
    """Bytes of each file. Raises `UserError` for files that are not there."""
    sizes, missing = [], []
    for name in names:
        try:
            state = os.stat(root / name)
        except (OSError, ValueError):
            state = None
        if state is None or stat.S_ISDIR(state.st_mode):
            missing.append(name)
        else:
            sizes.append(state.st_size)
    if missing:
        raise UserError(
            f"{len(missing):,} of the {len(names):,} files that {shown(table)} lists are missing: {_some(missing)}. "
            f"Paths are relative to {shown(root)}/: copy the files, or correct the paths."
        )
    return sizes


def _splits(texts: Sequence[str] | None, count: int, table: Path, column: str | None) -> list[SplitName]:
    if texts is None:
        return [""] * count
    found = [split_of(text) for text in texts]
    odd = Counter(text for text, split in zip(texts, found, strict=True) if split is None)
    if odd:
        words = ", ".join(f"{text!r} ({count:,} lines)" for text, count in odd.most_common(SHOWN_AT_MOST))
        raise UserError(f"{shown(table)}: the column {column} has {words}. Expected {SPLIT_NAMES}.")
    return [split for split in found if split is not None]


def _first_of_each(names: Sequence[str], told: Sequence[Any], table: Path) -> tuple[list[int], int]:
    """Rows whose file no earlier row has, and how many others. Raises `UserError` where they say different things."""
    first: dict[str, int] = {}
    for row, name in enumerate(names):
        before = first.setdefault(name, row)
        if told[before] != told[row]:
            raise UserError(
                f"{shown(table)} lists {name} on lines {before + 2:,} and {row + 2:,} with different labels or splits. "
                "Accuracy needs one class per image, in one split: remove one of the lines."
            )
    return list(first.values()), len(names) - len(first)


def _some(texts: Sequence[str]) -> str:
    more = f", and {len(texts) - SHOWN_AT_MOST:,} more" if len(texts) > SHOWN_AT_MOST else ""
    return ", ".join(repr(text) for text in texts[:SHOWN_AT_MOST]) + more
