"""Files that are whole or not there at all, and the folder where what can be made again is kept between runs."""

from __future__ import annotations

import functools
import os
import sys
import tempfile
from pathlib import Path

from ssl_bench.errors import UserError


def cache_folder() -> Path:
    """$SSLBENCH_CACHE, else $XDG_CACHE_HOME/sslbench, else ~/.cache/sslbench.

    Without a home (no HOME and no entry for the user, as in many containers): a folder of the user's own below the
    temporary one, and a line on standard error that names SSLBENCH_CACHE.
    """
    own, shared = os.environ.get("SSLBENCH_CACHE"), os.environ.get("XDG_CACHE_HOME")
    if own:
        return Path(own)
    if shared:
        return Path(shared) / "sslbench"
    home = os.path.expanduser("~")
    if os.path.isabs(home):
        return Path(home) / ".cache" / "sslbench"
    user = f"-{os.getuid()}" if hasattr(os, "getuid") else ""
    folder = Path(tempfile.gettempdir()) / f"sslbench-cache{user}"
    _tell(f"note: this user has no home folder, so the cache is {folder}. SSLBENCH_CACHE=FOLDER keeps it elsewhere.")
    return folder


@functools.cache
def _tell(text: str) -> None:
    """Say it once."""
    print(text, file=sys.stderr)


def write_atomically(path: Path, content: bytes) -> None:
    """Either the whole new content stands under `path` afterwards or nothing changed. Raises `UserError` on a full
    disk or without permission, naming the path."""
    try:
        handle, temporary = tempfile.mkstemp(dir=path.parent, prefix=f".{path.name}.")
    except OSError as error:
        raise cannot_write(path, error) from error
    try:
        with os.fdopen(handle, "wb") as stream:
            stream.write(content)
            stream.flush()
            os.fsync(stream.fileno())
        os.chmod(temporary, 0o644)
        os.replace(temporary, path)
        sync_folder(path.parent)
    except OSError as error:
        Path(temporary).unlink(missing_ok=True)
        raise cannot_write(path, error) from error
    except BaseException:
        Path(temporary).unlink(missing_ok=True)
        raise


def sync_folder(folder: Path) -> None:
    """Make a rename inside `folder` survive a power cut."""
    descriptor = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def cannot_write(path: Path, error: OSError) -> UserError:
    """The message for a file that cannot be written."""
    return UserError(
        f"cannot write {path}: {error.strerror or error}. Free space or choose another folder with --results PATH; "
        "what was saved before is untouched."
    )
