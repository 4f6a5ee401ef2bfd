"""steps.csv: what training logged at each step, thinned to a file that is small enough to commit with the record.

The first line is a comment with the version and the steps a row stands for, the second names the columns: `step` (steps
done), `epoch` (the epoch of that step, from 1), then every logged value. Rows are means over equal bins of 1, 2, 4, ...
steps, the fewest that keep the file below `MAX_ROWS` rows and `MAX_VALUES` values. Means keep sums of columns (the
cross-entropy is entropy plus divergence in every row) and give all seeds of a recipe the same steps. A value that is
logged at some steps only is the mean of those in the bin, and empty where there are none.
"""

from __future__ import annotations

import csv
import hashlib
import math
import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from itertools import pairwise
from pathlib import Path

from ssl_bench.errors import UserError
from ssl_bench.records.record import StepCurvesRecord
from ssl_bench.records.state_file import DamagedFile
from ssl_bench.system.files import write_atomically

STEPS_FILE = "steps.csv"
VERSION = 1
MAX_ROWS = 2000
MAX_VALUES = 32_000
"""Rows times columns; a value takes about 10 bytes."""
POSITION = ("step", "epoch")
_FIRST_LINE = re.compile(r"# sslbench steps (\d+): mean of (\d+) steps? a row, (\d+) steps\n?")


@dataclass(frozen=True)
class StepCurves:
    """Logged values over training; `steps`, `epochs` and each of `values` are columns of one length."""

    total_steps: int
    """Steps that were logged up to the last one."""
    steps_per_row: int
    steps: tuple[int, ...]
    """Steps done after the last one of each row."""
    epochs: tuple[int, ...]
    """The epoch of that step, counted from 1."""
    values: Mapping[str, tuple[float | None, ...]]
    """By name; None where nothing was logged."""

    def curve(self, name: str) -> list[tuple[int, float]]:
        """(step, value) wherever `name` was logged; nothing for an unknown name."""
        column = self.values.get(name, ())
        return [(step, value) for step, value in zip(self.steps, column, strict=False) if value is not None]


@dataclass
class _Bin:
    last_step: int
    epoch: int
    sums: dict[str, tuple[float, int]]
    """Name -> (sum, number of values)."""

    def add(self, other: _Bin) -> None:
        """Take in a later bin."""
        self.last_step, self.epoch = other.last_step, other.epoch
        for name, (total, count) in other.sums.items():
            before, counted = self.sums.get(name, (0.0, 0))
            self.sums[name] = before + total, counted + count


def thinned(rows: Iterable[Mapping[str, float]]) -> StepCurves:
    """The curves of logged rows, in order; each has `step` and `epoch`, counted from 0, and any other values."""
    width, bins, names = 1, dict[int, _Bin](), dict[str, None]()
    for row in rows:
        step = int(row["step"])
        values = {name: (float(value), 1) for name, value in row.items() if name not in POSITION}
        names.update(dict.fromkeys(values))
        one = _Bin(step + 1, int(row["epoch"]) + 1, values)
        _put(bins, step // width, one)
        if len(bins) > MAX_ROWS:
            width, bins = 2 * width, _halved(bins)
    while len(bins) > 1 and len(bins) * len(names) > MAX_VALUES:
        width, bins = 2 * width, _halved(bins)
    kept = list(bins.values())
    return StepCurves(
        total_steps=kept[-1].last_step if kept else 0,
        steps_per_row=width,
        steps=tuple(one.last_step for one in kept),
        epochs=tuple(one.epoch for one in kept),
        values={name: tuple(_mean(one.sums.get(name)) for one in kept) for name in names},
    )


def write_step_curves(folder: Path, curves: StepCurves) -> None:
    """Replace a run's steps.csv, atomically; nothing is written for a run without steps."""
    if not curves.steps:
        return
    plural = "s" if curves.steps_per_row > 1 else ""
    lines = [
        f"# sslbench steps {VERSION}: mean of {curves.steps_per_row} step{plural} a row, {curves.total_steps} steps",
        ",".join((*POSITION, *map(_quoted, curves.values))),
    ]
    columns = [[_text(value) for value in column] for column in curves.values.values()]
    for index, (step, epoch) in enumerate(zip(curves.steps, curves.epochs, strict=True)):
        lines.append(",".join((str(step), str(epoch), *(column[index] for column in columns))))
    write_atomically(folder / STEPS_FILE, ("\n".join(lines) + "\n").encode())


def read_step_curves(folder: Path, sha256: str | None = None) -> StepCurves:
    """A run's curves by step; empty where it has no such file and no record says that it had.

    Raises `UserError` for a file that is damaged, of a newer version, or not the one whose SHA-256 the record holds.
    """
    path = folder / STEPS_FILE
    try:
        content = path.read_bytes()
    except FileNotFoundError:
        if sha256 is not None:
            raise DamagedFile(f"{path} is missing: the record has its SHA-256. Restore it.") from None
        return StepCurves(0, 1, (), (), {})
    except OSError as error:
        raise UserError(f"cannot read {path}: {error.strerror}") from None
    if sha256 is not None and hashlib.sha256(content).hexdigest() != sha256:
        raise DamagedFile(f"{path} is not the file that the record names: their SHA-256 differ. Restore it.")
    try:
        return _parsed(content.decode("utf-8"), path)
    except (ValueError, csv.Error) as error:
        raise DamagedFile(f"{path} is damaged ({error}). Restore it or remove it.") from None


def summarize_step_curves(folder: Path) -> StepCurvesRecord | None:
    """What the record says of a run's steps.csv; None where it has none."""
    curves = read_step_curves(folder)
    if not curves.steps:
        return None
    return StepCurvesRecord(
        file=STEPS_FILE,
        sha256=hashlib.sha256((folder / STEPS_FILE).read_bytes()).hexdigest(),
        steps_per_row=curves.steps_per_row,
        rows=len(curves.steps),
        names=tuple(curves.values),
    )


def _parsed(text: str, path: Path) -> StepCurves:
    first, _, rest = text.partition("\n")
    found = re.match(r"# sslbench steps (\d+)", first)
    if found and int(found[1]) > VERSION:
        raise UserError(
            f"{path} was written by a newer sslbench (version {found[1]} of steps.csv; this one reads {VERSION}). "
            "Update sslbench: pip install -U sslbench"
        )
    known = _FIRST_LINE.fullmatch(first)
    if known is None:
        raise ValueError(f"its first line is {first[:60]!r}")
    header, *rows = csv.reader(rest.splitlines(), strict=True)
    if tuple(header[:2]) != POSITION or len(set(header)) < len(header):
        raise ValueError(f"its columns are {', '.join(header)[:60]}")
    if any(len(row) != len(header) for row in rows):
        raise ValueError("its rows differ in length")
    columns = list(zip(*rows, strict=True)) if rows else [()] * len(header)
    steps = tuple(map(int, columns[0]))
    if any(later <= earlier for earlier, later in pairwise(steps)):
        raise ValueError("its steps do not grow")
    return StepCurves(
        total_steps=int(known[3]),
        steps_per_row=int(known[2]),
        steps=steps,
        epochs=tuple(map(int, columns[1])),
        values={
            name: tuple(float(text) if text else None for text in column)
            for name, column in zip(header[2:], columns[2:], strict=True)
        },
    )


def _put(bins: dict[int, _Bin], index: int, one: _Bin) -> None:
    if index in bins:
        bins[index].add(one)
    else:
        bins[index] = one


def _halved(bins: Mapping[int, _Bin]) -> dict[int, _Bin]:
    """Bins of twice as many steps."""
    wider: dict[int, _Bin] = {}
    for index, one in bins.items():
        _put(wider, index // 2, one)
    return wider


def _mean(summed: tuple[float, int] | None) -> float | None:
    return None if summed is None else summed[0] / summed[1]


def _text(value: float | None) -> str:
    """Eight digits: entropy and divergence add up to 1e-5 also where they are read from the file."""
    if value is None:
        return ""
    return f"{value:.8g}" if math.isfinite(value) else str(value)


def _quoted(name: str) -> str:
    return '"' + name.replace('"', '""') + '"' if re.search(r'[",\s]', name) else name
