"""Files that are whole or not there at all, and the folder where what can be made again is kept between runs."""

from __future__ import annotations

import functools
import os
import shutil
import sys
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
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


@contextmanager
def new_folder(path: Path) -> Iterator[Path]:
    """A hidden folder beside `path`, which becomes `path` at the end; after an error or a stop nothing is left.

    Raises `UserError` where `path` exists or cannot be made.
    """
    if path.exists() or path.is_symlink():
        raise UserError(f"{path} exists; nothing is overwritten. Give another place with --out, or remove it")
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        part = Path(tempfile.mkdtemp(dir=path.parent, prefix=f".{path.name}."))
    except OSError as error:
        raise UserError(f"cannot make {path}: {error.strerror or error}. Give another place with --out") from error
    try:
        yield part
        part.chmod(0o755)
        part.rename(path)
        sync_folder(path.parent)
    except OSError as error:
        raise UserError(f"cannot write {path}: {error.strerror or error}. Give another place with --out") from error
    finally:
        shutil.rmtree(part, ignore_errors=True)


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
