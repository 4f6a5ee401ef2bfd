"""Files of published weights: found in the caches of sslbench and torch.hub, or downloaded, and checked."""

from __future__ import annotations

import hashlib
import http.client
import os
import sys
import tempfile
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import BinaryIO
from urllib.request import Request, urlopen

from ssl_bench.errors import UserError
from ssl_bench.system.files import cache_folder

SECONDS = 30
"""Without an answer, after which an address counts as out of reach."""
CHUNK = 2**20


@dataclass(frozen=True)
class Remote:
    """A file at an address."""

    name: str
    """What the user typed."""
    url: str
    file: str
    """Its name in a cache."""
    sha256: str = ""
    """Hexadecimal, whole or its first digits; "" where nobody published one."""
    md5: str = ""
    access: str = ""
    """What has to be done before the address answers."""
    instead: str = ""
    """Options that say the same of the file given by itself, e.g. "--arch deit_s16 --as dino"."""


def own_folder() -> Path:
    """Where a user puts files of published weights by hand, and sslbench those whose names torch.hub would mix up."""
    return cache_folder() / "weights"


def hub_folder() -> Path:
    """torch.hub's folder of files: $TORCH_HOME/hub/checkpoints, by default below ~/.cache/torch."""
    home = os.environ.get("TORCH_HOME") or os.path.join(os.environ.get("XDG_CACHE_HOME") or "~/.cache", "torch")
    return Path(home).expanduser() / "hub" / "checkpoints"


def on_this_machine(file: str) -> Path | None:
    """The file of this name in one of the caches."""
    return next((folder / file for folder in (own_folder(), hub_folder()) if (folder / file).is_file()), None)


def cached(remote: Remote) -> Path | None:
    """The file in one of the caches, checked; None where it is in neither. Raises `UserError` for a wrong checksum."""
    path = on_this_machine(remote.file)
    if path is not None:
        _require_checksum(remote, path, str(path))
    return path


def obtain(remote: Remote) -> Path:
    """The file, from a cache or downloaded into torch.hub's.

    Raises `UserError` where it cannot be had, naming what to fetch and where to put it, and for a wrong checksum.
    """
    path = cached(remote)
    if path is not None:
        return path
    target = hub_folder() / remote.file
    part: str | None = None
    try:
        target.parent.mkdir(parents=True, exist_ok=True)
        handle, part = tempfile.mkstemp(dir=target.parent, prefix=f".{remote.file}.")
        with os.fdopen(handle, "wb") as stream:
            _download(remote, stream)
        _require_checksum(remote, Path(part), f"what {remote.url} sent")
        os.chmod(part, 0o644)
        os.replace(part, target)
    except OSError as error:
        raise UserError(
            f"cannot write {target}: {error.strerror or error}. Free space, or set TORCH_HOME to another folder"
        ) from None
    finally:
        if part is not None:
            Path(part).unlink(missing_ok=True)
    return target


def _download(remote: Remote, stream: BinaryIO) -> None:
    received, size = 0, 0
    try:
        answer = urlopen(Request(remote.url, headers={"User-Agent": "sslbench"}), timeout=SECONDS)
    except (OSError, ValueError, http.client.HTTPException) as error:
        raise _out_of_reach(remote, error) from error
    with answer:
        size = int(answer.headers.get("Content-Length") or 0)
        shown = f" ({size / 2**20:,.0f} MiB)" if size else ""
        print(f"downloading {remote.url}{shown} to {hub_folder()}", file=sys.stderr)
        for chunk in _chunks(remote, answer, size):
            stream.write(chunk)
            received += len(chunk)
    if size and received != size:
        raise UserError(f"{remote.url} broke off after {received:,} of {size:,} bytes; nothing was kept. Try again")


def _chunks(remote: Remote, answer: BinaryIO, size: int) -> Iterator[bytes]:
    """The file's bytes, with a bar on a terminal."""
    from rich.console import Console
    from rich.progress import wrap_file

    console = Console(stderr=True)
    with wrap_file(answer, size, description=remote.file, console=console, disable=not console.is_terminal) as reader:
        while True:
            try:
                chunk = reader.read(CHUNK)
            except (OSError, http.client.HTTPException) as error:
                raise _out_of_reach(remote, error) from error
            if not chunk:
                return
            yield chunk


def _require_checksum(remote: Remote, path: Path, what: str) -> None:
    for kind, expected in (("sha256", remote.sha256), ("md5", remote.md5)):
        if expected:
            with path.open("rb") as stream:
                found = hashlib.file_digest(stream, kind).hexdigest()
            if not found.startswith(expected):
                raise UserError(
                    f"{remote.name}: wrong checksum. The {kind} that its authors publish begins with {expected}, and "
                    f"that of {what} is {found}: it is another file, or a damaged one. {_advice(remote, path)}"
                )


def _advice(remote: Remote, path: Path) -> str:
    if path.name == remote.file:
        return f"Delete it, and it is downloaded again; or fetch {remote.url}"
    return f"Nothing was kept; try again, or fetch {remote.url} by hand and put it at {own_folder() / remote.file}"


def _out_of_reach(remote: Remote, error: Exception) -> UserError:
    reason = getattr(error, "reason", None) or error
    by_itself = f", or pass it by itself: FILE {remote.instead}" if remote.instead else ", or pass the file by itself"
    return UserError(
        f"{remote.name} is not on this machine, and {remote.url} cannot be downloaded "
        f"({type(error).__name__}: {str(reason).strip() or 'no reason given'}). Download that file on another machine "
        f"and put it at {own_folder() / remote.file}{by_itself}.{' ' + remote.access if remote.access else ''}"
    )
