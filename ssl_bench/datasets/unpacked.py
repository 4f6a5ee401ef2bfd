"""Copies of containers from which one image can be read without the rest, kept in the cache folder."""

from __future__ import annotations

import hashlib
import os
import shutil
import tempfile
from collections.abc import Callable, Sequence
from pathlib import Path

from ssl_bench.errors import UserError
from ssl_bench.system.files import cache_folder


def unpacked(kind: str, sources: Sequence[Path], content: str, build: Callable[[Path], None]) -> Path:
    """The folder that `build(folder)` fills from `sources`, made once and found again while they are the same files.

    `content` is their digest; as it is a sample of large files, sizes and times of change are compared, too. A reader
    sees the whole folder or none. Raises `UserError` where the cache cannot hold it.
    """
    stats = [os.stat(path) for path in sources]
    state = [(stat.st_size, stat.st_mtime_ns) for stat in stats]
    key = hashlib.sha256(repr((content, state)).encode()).hexdigest()[:20]
    folder = cache_folder() / "unpacked" / f"{kind}-{key}"
    if folder.is_dir():
        return folder
    try:
        folder.parent.mkdir(parents=True, exist_ok=True)
        part = Path(tempfile.mkdtemp(dir=folder.parent, prefix=f".{kind}-"))
    except OSError as error:
        raise _cannot_keep(folder.parent, error) from error
    try:
        build(part)
        os.rename(part, folder)
    except OSError as error:
        if not folder.is_dir():  # else another process was faster
            raise _cannot_keep(folder.parent, error) from error
    finally:
        shutil.rmtree(part, ignore_errors=True)
    return folder


def _cannot_keep(folder: Path, error: OSError) -> UserError:
    return UserError(
        f"cannot keep an unpacked copy of the images in {folder}: {error.strerror or error}. Free space there, or name "
        "another folder with SSLBENCH_CACHE=FOLDER."
    )
