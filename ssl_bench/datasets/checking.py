"""Do the images open? Asked before a run, so that one truncated file does not end it after three hours."""

from __future__ import annotations

import os
from collections.abc import Iterable, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass

from ssl_bench.dataset import Dataset, Split
from ssl_bench.errors import UserError

FULL_CHECK_UP_TO = 20_000
"""Images of all splits together that are all opened; of a larger set, `SAMPLE`."""
SAMPLE = 2_000


@dataclass(frozen=True)
class Checked:
    """What a check looked at and what it found."""

    opened: int
    images: int
    problems: tuple[str, ...]
    """One message per image that cannot be read, in the order of the split."""

    def __str__(self) -> str:
        if self.opened == self.images:
            return f"all {self.images:,} images open"
        return f"{self.opened:,} of {self.images:,} images opened, evenly chosen"


def check_images(split: Split, limit: int | None = None, workers: int | None = None) -> list[str]:
    """Open and decode the images of a split, or `limit` evenly chosen ones; one message per image that cannot be read.

    `workers` are threads (default: one a CPU core, decoding releases Python's lock).
    """
    return _open_all([(split, index) for index in _evenly(len(split), limit)], workers)


def check_dataset(dataset: Dataset, limit: int | None = SAMPLE, workers: int | None = None) -> Checked:
    """Open the images of every split: all up to `FULL_CHECK_UP_TO`, else `limit` (None: all).

    A synthetic set is not opened.
    """
    splits = [] if dataset.synthetic else list(dataset.splits.values())
    total = sum(len(split) for split in splits)
    chosen, start = [], 0
    wanted = list(_evenly(total, None if total <= FULL_CHECK_UP_TO else limit))
    for split in splits:
        chosen += [(split, index - start) for index in wanted if start <= index < start + len(split)]
        start += len(split)
    return Checked(len(chosen), total, tuple(_open_all(chosen, workers)))


def require_readable(dataset: Dataset, limit: int | None = SAMPLE, workers: int | None = None) -> Checked:
    """`check_dataset`, raising one `UserError` that names the first ten bad files and how many there are."""
    checked = check_dataset(dataset, limit, workers)
    if checked.problems:
        found, first = len(checked.problems), checked.problems[:10]
        more = f"\n  and {found - len(first):,} more" if found > len(first) else ""
        part = f"the {checked.opened:,} images looked at (of {checked.images:,})"
        those = f"{checked.images:,} images" if checked.opened == checked.images else part
        raise UserError(f"{found:,} of {those} cannot be read:\n  " + "\n  ".join(first) + more)
    return checked


def _evenly(count: int, limit: int | None) -> Iterable[int]:
    if limit is None or limit >= count:
        return range(count)
    return (index * count // limit for index in range(limit))


def _open_all(chosen: Sequence[tuple[Split, int]], workers: int | None) -> list[str]:
    def problem(item: tuple[Split, int]) -> str | None:
        split, index = item
        try:
            split.image(index)
        except UserError as error:
            return str(error)
        except Exception as error:  # an outsider's dataset
            return f"image {index}: {type(error).__name__}: {error}"
        return None

    if workers is None:
        workers = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
    if workers == 1:
        return [found for item in chosen if (found := problem(item)) is not None]
    with ThreadPoolExecutor(workers) as pool:
        return [found for found in pool.map(problem, chosen) if found is not None]
