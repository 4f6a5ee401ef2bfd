"""Do the images open? Asked before a run, so that one truncated file does not end it after three hours."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from dataclasses import dataclass
from hashlib import blake2b
from itertools import islice

from ssl_bench.dataset import Dataset, Split
from ssl_bench.errors import UserError
from ssl_bench.system.limits import cores

FULL_CHECK_UP_TO = 20_000
"""Images of all splits together that are all opened; of a larger set, `SAMPLE`."""
SMALL_PIXELS, FULL_CHECK_OF_SMALL = 128 * 128, 100_000
"""Images of at most so many pixels in the mean are all opened up to a larger number."""
SAMPLE = 2_000


@dataclass(frozen=True)
class Checked:
    """What a check looked at and what it found."""

    opened: int
    images: int
    problems: tuple[str, ...]
    """One message per image that cannot be read, in the order of the split."""
    contents: tuple[tuple[Split, frozenset[bytes]], ...] = ()
    """Every split with the digests of its images' pixels; empty unless all images were opened."""

    def __str__(self) -> str:
        if self.opened == self.images:
            return f"all {self.images:,} images open"
        return f"{self.opened:,} of {self.images:,} images opened, evenly chosen"

    def shared(self, split: Split, other: Split) -> int | None:
        """How many different images of `split` are also in `other`, by their pixels; None where not looked at."""
        found = [next((digests for one, digests in self.contents if one is which), None) for which in (split, other)]
        if found[0] is None or found[1] is None:
            return None
        return len(found[0] & found[1])


def check_images(split: Split, limit: int | None = None, workers: int | None = None) -> list[str]:
    """Open and decode the images of a split, or `limit` evenly chosen ones; one message per image that cannot be read.

    `workers` are threads (default: one per CPU core, decoding releases Python's lock).
    """
    looks = _open_all([(split, index) for index in _evenly(len(split), limit)], workers)
    return [look for look in looks if isinstance(look, str)]


def check_datasets(*datasets: Dataset, limit: int | None = SAMPLE, workers: int | None = None) -> Checked:
    """Open the images of every split of every set: all where that takes seconds, else `limit` (None: all).

    Synthetic sets are not opened.
    """
    splits = [split for one in dict.fromkeys(datasets) if not one.synthetic for split in one.splits.values()]
    total = sum(len(split) for split in splits)
    chosen, start = [], 0
    wanted = list(_evenly(total, None if _all_are_cheap(splits, total) else limit))
    for split in splits:
        chosen += [(split, index - start) for index in wanted if start <= index < start + len(split)]
        start += len(split)
    looks = _open_all(chosen, workers)
    problems = tuple(look for look in looks if isinstance(look, str))
    if problems or len(chosen) < total:
        return Checked(len(chosen), total, problems)
    digests = iter(look for look in looks if isinstance(look, bytes))
    contents = tuple((split, frozenset(islice(digests, len(split)))) for split in splits)
    return Checked(len(chosen), total, (), contents)


def require_readable(*datasets: Dataset, limit: int | None = SAMPLE, workers: int | None = None) -> Checked:
    """`check_datasets`, raising one `UserError` that names the first ten bad files and how many there are."""
    checked = check_datasets(*datasets, limit=limit, workers=workers)
    if checked.problems:
        found, first = len(checked.problems), checked.problems[:10]
        more = f"\n  and {found - len(first):,} more" if found > len(first) else ""
        part = f"the {checked.opened:,} images looked at (of {checked.images:,})"
        those = f"{checked.images:,} images" if checked.opened == checked.images else part
        raise UserError(f"{found:,} of {those} cannot be read:\n  " + "\n  ".join(first) + more)
    return checked


def _all_are_cheap(splits: Sequence[Split], total: int) -> bool:
    """Whether opening every image takes seconds: few images, or more that are small by a look at a few."""
    if total <= FULL_CHECK_UP_TO:
        return True
    if total > FULL_CHECK_OF_SMALL:
        return False
    pixels = []
    for split in splits:
        size: Callable[[int], tuple[int, int]] | None = getattr(split, "size", None)
        if size is None:
            return False
        for index in _evenly(len(split), 20):
            with suppress(UserError):  # one that cannot be read is named later
                width, height = size(index)
                pixels.append(width * height)
    return bool(pixels) and sum(pixels) <= SMALL_PIXELS * len(pixels)


def _evenly(count: int, limit: int | None) -> Iterable[int]:
    if limit is None or limit >= count:
        return range(count)
    return (index * count // limit for index in range(limit))


def _open_all(chosen: Sequence[tuple[Split, int]], workers: int | None) -> list[str | bytes]:
    """For each of (split, index) a digest of the image's pixels, or the message why it cannot be read."""

    def look(item: tuple[Split, int]) -> str | bytes:
        split, index = item
        try:
            image = split.image(index)
            return blake2b(image.tobytes(), digest_size=16, salt=b"%d" % image.width).digest()
        except UserError as error:
            return str(error)
        except Exception as error:  # a third-party dataset may raise anything
            return f"image {index}: {type(error).__name__}: {error}"

    if workers is None:
        workers = cores()
    if workers == 1:
        return list(map(look, chosen))
    with ThreadPoolExecutor(workers) as pool:
        return list(pool.map(look, chosen))
