"""What stands in the cache folder, how much of it may stay, and how it is cleared.

Features and decoded images are kept up to a limit, the least recently used ones going first. Everything in the folder
can be made again.
"""

from __future__ import annotations

import json
import os
import shutil
import time
from collections.abc import Collection, Iterator
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path

from ssl_bench.errors import UserError, unknown_name
from ssl_bench.system.files import cache_folder, write_atomically

LIMIT_VARIABLE, LIMIT_FILE = "SSLBENCH_CACHE_GB", "limit.json"
DEFAULT_GB = 5.0
GB = 10**9
FREE_BYTES = GB
"""What is left free on the disk, whatever the limit says."""
ABANDONED_SECONDS = 24 * 3600.0
"""Hidden files of this age are what a killed process left."""
KINDS = {
    "features": "feature vectors of networks",
    "decoded": "images, decoded and cropped",
    "unpacked": "images unpacked from Parquet files and WebDataset shards",
    "shapes": "the embedded set",
    "measurements": "which precision is faster here",
}
LIMITED = ("features", "decoded")


@dataclass(frozen=True)
class Entry:
    """One thing in the cache: a file, or a folder that is used as a whole."""

    kind: str
    path: Path
    size: int
    """Bytes."""
    used: float
    """When it was last used, in seconds since 1970."""


def limit_bytes() -> int:
    """$SSLBENCH_CACHE_GB, else what `sslbench cache --limit` set, else 5 GB. Raises `UserError` for no number."""
    given = os.environ.get(LIMIT_VARIABLE)
    if given is not None:
        return round(checked_limit(given, LIMIT_VARIABLE) * GB)
    try:
        return round(float(json.loads((cache_folder() / LIMIT_FILE).read_text())["gb"]) * GB)
    except (OSError, ValueError, KeyError, TypeError):
        return round(DEFAULT_GB * GB)


def checked_limit(text: str, what: str) -> float:
    """A limit in GB, 0 or more; `what` names where it was given."""
    try:
        gb = float(text)
    except ValueError:
        gb = -1.0
    if not 0 <= gb < 1e6:
        raise UserError(f"{what} = {text!r} is not a number of gigabytes, e.g. 20; 0 keeps nothing")
    return gb


def set_limit(gb: float) -> None:
    """Keep the limit for later commands, and make the cache fit."""
    folder = cache_folder()
    folder.mkdir(parents=True, exist_ok=True)
    write_atomically(folder / LIMIT_FILE, (json.dumps({"gb": gb}) + "\n").encode())
    make_room(0)


def make_room(needed: int) -> bool:
    """Remove the least recently used entries until `needed` bytes more fit; False where they exceed limit or disk.

    What a killed process left unfinished goes, too.
    """
    limit = limit_bytes()
    if needed > limit:
        return False
    _remove_abandoned()
    kept = sorted(entries(LIMITED), key=lambda one: one.used)
    total = sum(one.size for one in kept)
    for one in kept:
        if total + needed <= limit:
            break
        remove(one.path)
        total -= one.size
    try:
        return shutil.disk_usage(cache_folder()).free - needed > FREE_BYTES
    except OSError:
        return False


def touch(path: Path) -> None:
    """Note that an entry was used now."""
    with suppress(OSError):
        os.utime(path)


def remove(path: Path) -> None:
    """Remove a file or folder; a folder disappears at once, so that no reader finds half of it."""
    with suppress(OSError):
        if path.is_dir():
            gone = path.with_name(f".{path.name}.{os.getpid()}")
            path.rename(gone)
            shutil.rmtree(gone, ignore_errors=True)
        else:
            path.unlink()


def clear(kind: str | None = None) -> list[Entry]:
    """Remove everything, or all of one kind; returns what was there. Raises `UserError` for an unknown kind."""
    if kind is not None and kind not in KINDS:
        raise unknown_name("part of the cache", kind, KINDS, "sslbench cache")
    _remove_abandoned(age_seconds=0.0 if kind is None else ABANDONED_SECONDS)
    gone = entries(tuple(KINDS) if kind is None else (kind,))
    for one in gone:
        remove(one.path)
    return gone


def entries(kinds: Collection[str] = tuple(KINDS)) -> list[Entry]:
    """What stands in the cache, of these kinds, without what is being written."""
    found = (_entry(kind, path) for kind, path in _places() if kind in kinds)
    return [entry for entry in found if entry is not None]


def _places() -> Iterator[tuple[str, Path]]:
    folder = cache_folder()
    for path in _visible(folder):
        if path.name in ("features", "decoded", "unpacked"):
            for inner in _visible(path):
                yield path.name, inner
        elif path.name == "precision.json":
            yield "measurements", path
        elif path.name.startswith("shapes-"):
            yield "shapes", path


def _visible(folder: Path) -> list[Path]:
    try:
        return sorted(path for path in folder.iterdir() if not path.name.startswith("."))
    except OSError:
        return []


def _entry(kind: str, path: Path) -> Entry | None:
    try:
        size = sum(one.stat().st_size for one in path.rglob("*")) if path.is_dir() else path.stat().st_size
        return Entry(kind, path, size, path.stat().st_mtime)
    except OSError:  # removed meanwhile
        return None


def _remove_abandoned(age_seconds: float = ABANDONED_SECONDS) -> None:
    for name in ("features", "decoded", "unpacked"):
        with suppress(OSError):
            for path in (cache_folder() / name).iterdir():
                if path.name.startswith(".") and time.time() - path.stat().st_mtime >= age_seconds:
                    shutil.rmtree(path, ignore_errors=True) if path.is_dir() else path.unlink(missing_ok=True)
