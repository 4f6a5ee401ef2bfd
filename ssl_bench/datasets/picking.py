"""From what a container (an array file, a table, shards) lists to the images of a dataset: which, and in what order.

The order is that of an image folder, so that the same images give the same batches however they are stored: by class,
then by name. Classes count as numbers where all labels are whole numbers, else as text; where a container has no names,
images of a class keep the order in which they are stored. Images without labels are ordered by name alone.
"""

from __future__ import annotations

import hashlib
import json
import re
from array import array
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray

from ssl_bench.datasets.image_files import FilesConfig, subset
from ssl_bench.errors import UserError, did_you_mean
from ssl_bench.settings import setting

SplitName = Literal["train", "val", "test", ""]
"""Of a part of a container; "" where it names no splits."""

_NAMED: Mapping[SplitName, tuple[str, ...]] = {
    "train": ("train", "training", "trn"),
    "val": ("val", "valid", "validation", "dev"),
    "test": ("test", "testing", "tst"),
}
SPLIT_NAMES = "train, val (or validation), test"


class ContainerConfig(FilesConfig):
    """Settings of every dataset that is read from a container."""

    test_split: Literal["auto", "val", "test"] = setting(
        "auto", "part that the evaluation tests on; auto takes test where it is there and has labels, else val"
    )
    held_out: float = setting(
        0.1, "share of each class held out to test on where labeled data name no splits; 0 trains on all", ge=0, lt=1
    )


@dataclass(frozen=True)
class Listed:
    """One part of a container: what it says of its images, in the order in which they are stored."""

    count: int
    labels: NDArray[Any] | None = None
    """(count,) whole numbers or text; None for images without labels."""
    names: NDArray[np.bytes_] | None = None
    """(count,) names that tell the images apart, in UTF-8; None where there are none."""


@dataclass(frozen=True)
class Picked:
    """The images of a split: `rows` (n,) int64 of the part `part`, in their order, and their labels."""

    part: SplitName
    rows: NDArray[np.int64]
    labels: array[int] | None

    def digest(self) -> str:
        """sha256 of part, rows and labels."""
        labels = b"" if self.labels is None else self.labels.tobytes()
        return hashlib.sha256(self.part.encode() + b"\0" + self.rows.tobytes() + labels).hexdigest()


@dataclass(frozen=True)
class Picks:
    """Both splits of a dataset, and what a user should know of how they were found."""

    classes: tuple[str, ...]
    train: Picked
    test: Picked | None
    notes: tuple[str, ...]

    def fingerprint(self, content: str) -> str:
        """sha256 of the classes, of which images are picked, and of the container's `content` digest."""
        test = "" if self.test is None else self.test.digest()
        return hashlib.sha256(json.dumps([*self.classes, self.train.digest(), test, content]).encode()).hexdigest()


def split_of(word: str) -> SplitName | None:
    """The split that a word such as "Validation" means; None for any other word."""
    return next((split for split, words in _NAMED.items() if word.strip().lower() in words), None)


def class_labels(
    values: Mapping[SplitName, Sequence[Any]], where: str, what: str
) -> dict[SplitName, NDArray[Any] | None]:
    """Labels of every part from what a table says, `None` or "" where it says nothing.

    They are whole numbers where all are (also written as text), else text; None for a part without any. Raises
    `UserError` for a part of which only some images have labels, and for labels that name no class.
    """
    texts: dict[SplitName, list[str]] = {}
    for part, given in values.items():
        missing = [row for row, value in enumerate(given) if value is None or value == ""]
        if given and len(missing) == len(given):
            continue
        if missing:
            raise UserError(
                f"{where}: {len(missing):,} of {len(given):,} images{f' of {part}' if part else ''} have no label in "
                f"{what}, row {missing[0]:,} first. Give all of them one, or none."
            )
        odd = next((value for value in given if not isinstance(value, str | int)), None)
        if odd is not None:
            raise UserError(
                f"{where}: {what} holds {odd!r:.60}, which names no class. Expected one whole number or text per image."
            )
        texts[part] = [str(value) for value in given]
    numbers = all(re.fullmatch(r"-?\d{1,18}", text) for some in texts.values() for text in some)
    kind: Any = np.int64 if numbers else object
    return {part: np.array(texts[part], dtype=kind) if part in texts else None for part in values}


def pick(
    parts: Mapping[SplitName, Listed], config: ContainerConfig, where: str, class_names: Sequence[str] | None = None
) -> Picks:
    """The training and the test images among the `parts` of the container `where`.

    With `class_names`, labels are indices into them. Raises `UserError` when nothing is there to train on, for a class
    that only the test part has.
    """
    parts = {name: part for name, part in parts.items() if part.count}
    if not parts:
        raise UserError(f"{where} holds no images.")
    train_name = next((name for name in parts if name in ("train", "")), None)
    if train_name is None:
        raise UserError(f"{where} has {' and '.join(parts)} but nothing to train on. Expected parts: {SPLIT_NAMES}.")
    train, notes = parts[train_name], []
    if train.labels is None:
        unused = [name for name in parts if name != train_name]
        if unused:
            notes.append(f"{' and '.join(unused)} not used: {train_name or 'the images'} to train on have no labels")
        return Picks((), _unlabeled(train_name, train, config), None, tuple(notes))

    classes, values = _classes(train.labels, class_names)
    test_name = _test_part(parts, config, where)
    labels = _indices(train.labels, values)
    rows = np.arange(train.count)
    test = None
    if test_name is not None:
        part = parts[test_name]
        assert part.labels is not None, "_test_part takes none without labels"
        _refuse_unknown(part.labels, values, where, test_name, classes)
        test = _ordered(test_name, part, np.arange(part.count), _indices(part.labels, values))
        unused = [name for name in parts if name not in (train_name, test_name)]
        if unused:
            can = parts[unused[0]].labels is not None
            notes.append(
                f"evaluation tests on {test_name} ({part.count:,} images); {unused[0]} is not used"
                + (f" (--set data.test_split={unused[0]} takes it)" if can else ": it has no labels")
            )
    elif train_name == "" and config.held_out:
        held = _share(rows, train, labels, classes, config.held_out, 0, "held out ")
        if len(held):
            test = _ordered("", train, held, labels[held])
            rows = np.setdiff1d(rows, held)
            notes.append(
                f"no splits are named: {len(held):,} of {train.count:,} images ({100 * config.held_out:.3g} % of each "
                "class) are held out to test on; --set data.held_out=0 trains on all"
            )
    if test is None:
        way = ", --set data.held_out=0.1 holds some out" if train_name == "" else ""
        notes.append(f"nothing of it is scored: it has no labeled val or test part (--eval-data names other data{way})")
    if config.train_fraction < 1:
        rows = _share(rows, train, labels, classes, config.train_fraction, config.subset_seed)
    return Picks(classes, _ordered(train_name, train, rows, labels[rows]), test, tuple(notes))


def _unlabeled(name: SplitName, part: Listed, config: ContainerConfig) -> Picked:
    rows = np.arange(part.count)
    if config.train_fraction < 1:
        rows = np.asarray(subset(_names(part, rows), "", config.train_fraction, config.subset_seed))
    return _ordered(name, part, rows, None)


def _ordered(name: SplitName, part: Listed, rows: NDArray[np.int64], labels: NDArray[np.int64] | None) -> Picked:
    keys: list[NDArray[Any]] = [] if part.names is None else [part.names[rows]]
    keys += [] if labels is None else [labels]
    order = np.lexsort(keys) if keys else np.arange(len(rows))  # stable; the last key counts first
    return Picked(name, rows[order], None if labels is None else array("q", labels[order].tolist()))


def _classes(labels: NDArray[Any], names: Sequence[str] | None) -> tuple[tuple[str, ...], NDArray[Any]]:
    """Names of the classes, and the sorted values that labels of them have."""
    if names is not None:
        return tuple(names), np.arange(len(names))
    values = np.unique(labels)
    return tuple(str(value) for value in values), values


def _indices(labels: NDArray[Any], values: NDArray[Any]) -> NDArray[np.int64]:
    return np.searchsorted(values, labels).astype(np.int64)


def _refuse_unknown(labels: NDArray[Any], values: NDArray[Any], where: str, part: str, classes: Sequence[str]) -> None:
    unknown = np.setdiff1d(labels, values)
    if len(unknown):
        raise UserError(
            f"{where}: {part} has the class {unknown[0]}, which the training images do not have."
            f"{did_you_mean(str(unknown[0]), classes)} Correct the labels, or remove these images from {part}"
            + (f" ({len(unknown):,} such classes)." if len(unknown) > 1 else ".")
        )


def _test_part(parts: Mapping[SplitName, Listed], config: ContainerConfig, where: str) -> SplitName | None:
    labeled: list[SplitName] = [name for name in ("test", "val") if name in parts and parts[name].labels is not None]
    if config.test_split == "auto":
        return labeled[0] if labeled else None
    if config.test_split in labeled:
        return config.test_split
    state = "has no labels" if config.test_split in parts else "is not there"
    instead = f" Give data.test_split={labeled[0]}." if labeled else ""
    raise UserError(f"{where}: the part {config.test_split} to test on {state}.{instead}")


def _share(
    rows: NDArray[np.int64],
    part: Listed,
    labels: NDArray[np.int64],
    classes: Sequence[str],
    fraction: float,
    seed: int,
    purpose: str = "",
) -> NDArray[np.int64]:
    """A share of each class among `rows`, ascending, as `subset` picks it; for `purpose`, no class is taken whole."""
    kept = [np.empty(0, np.int64)]
    for label, name in enumerate(classes):
        members = rows[labels[rows] == label]
        if len(members) > bool(purpose):
            kept.append(members[subset(_names(part, members), purpose + name, fraction, seed)])
    return np.sort(np.concatenate(kept))


def _names(part: Listed, rows: NDArray[np.int64]) -> list[str]:
    if part.names is None:
        return [str(row) for row in rows]
    return [name.decode("utf-8", "surrogateescape") for name in part.names[rows].tolist()]
