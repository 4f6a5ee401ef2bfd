"""Which image files a folder holds: names and sizes, in one order on every machine, reading no pixels.

An image is a file with a known ending, or without any ending where its content is an image. Image formats that cannot
be read here (`.heic`) are refused. Everything else is passed over, counted and reported (`PassedOver`): other files,
hidden files and folders (`.DS_Store`, `._photo.jpg`, `.ipynb_checkpoints`), and the folders that file servers and
archives leave behind (`@eaDir`, `__MACOSX`, `#recycle`). Links are followed.
"""

from __future__ import annotations

import os
import re
from collections import Counter
from collections.abc import Collection, Iterator, Sequence
from contextlib import AbstractContextManager
from pathlib import Path
from typing import NamedTuple

from ssl_bench.datasets.reading import EXTENSIONS, holds_an_image, shown
from ssl_bench.errors import UserError

UNREADABLE = (".avif", ".dng", ".heic", ".heif", ".jp2", ".jxl", ".svg")
LEFT_BEHIND = frozenset(
    {"@eadir", "@recycle", "@tmp", "__macosx", "#recycle", "#snapshot", "$recycle.bin", "lost+found"}
    | {"system volume information", "thumbnails", "desktop.ini", "thumbs.db", "ehthumbs.db"}
)
"""Names, in lower case, of what file servers, archives and file managers put among a user's files."""
LOOKED_AT = 20_000
"""Entries of a folder, and of those in it, that are looked at to tell whether it holds images."""
NOWHERE = -1
"""Size of a link that points nowhere."""


class ImageFile(NamedTuple):
    """A file: `name` is its path below the listed folder with "/" between parts, `size` its bytes (or `NOWHERE`)."""

    name: str
    size: int


class PassedOver:
    """Files among the images that are not images: counted by kind, with an example."""

    def __init__(self) -> None:
        self.files: Counter[str] = Counter()
        self.folders: Counter[str] = Counter()
        self._example = ""

    def file(self, name: str, path: str) -> None:
        """Count a file; `path` is where it lies below the listed folder."""
        self.files["hidden" if _hidden(name) else _ending(name) or "without ending"] += 1
        if not self._example or self._example.rpartition("/")[2].startswith("."):
            self._example = path  # rather one that a file manager shows

    def folder(self, name: str) -> None:
        """Count a folder."""
        self.folders[name] += 1

    def note(self, folder: Path) -> str:
        """One line on all of it, e.g. "train/: passed over 2 files (2 .txt, e.g. a/x.txt), 1 folder (@eaDir)"."""
        parts = []
        if self.files:
            kinds = ", ".join(f"{count:,} {kind}" for kind, count in self.files.most_common(4))
            more = ", ..." if len(self.files) > 4 else ""
            parts.append(f"{_counted(self.files, 'file')} ({kinds}{more}, e.g. {_printable(self._example)})")
        if self.folders:
            names = ", ".join(_printable(name) for name, _ in self.folders.most_common(4))
            parts.append(f"{_counted(self.folders, 'folder')} ({names}{', ...' if len(self.folders) > 4 else ''})")
        return f"{folder.name}/: passed over {', '.join(parts)}" if parts else ""


def _counted(counter: Counter[str], noun: str) -> str:
    return f"{counter.total():,} {noun}{'s' * (counter.total() != 1)}"


def _printable(name: str) -> str:
    return os.fsencode(name).decode("utf-8", "backslashreplace")


def subfolders(folder: Path, passed: PassedOver | None = None) -> list[str]:
    """Names of the folders in `folder`, sorted; what else lies there goes to `passed`.

    Raises `UserError` when it cannot be read.
    """
    passed, found = passed or PassedOver(), []
    with _scan(folder) as entries:
        for entry in sorted(entries, key=lambda entry: entry.name):
            if not _is_folder(entry):
                passed.file(entry.name, entry.name)
            elif _left_behind(entry.name):
                passed.folder(entry.name)
            else:
                found.append(entry.name)
    return found


def list_images(folder: Path, passed: PassedOver | None = None, prefix: str = "") -> list[ImageFile]:
    """The image files anywhere below `folder`, sorted by name; what else lies there goes to `passed`, behind `prefix`.

    Raises `UserError` for a folder that cannot be read, a link that leads back to a folder around it, and for images of
    a format that cannot be read.
    """
    listing = _Listing([], Counter(), passed or PassedOver(), prefix)
    _walk(folder, "", (), listing)
    if listing.refused:
        kinds = " and ".join(f"{count:,} {ending}" for ending, count in sorted(listing.refused.items()))
        raise UserError(
            f"{shown(folder)}/ holds {kinds} files, a format that is not read here. "
            f"Convert them to JPEG or PNG, or move them away (read are {' '.join(EXTENSIONS)})."
        )
    return sorted(listing.found)


def holds_images(folder: Path, without: Collection[str] = ()) -> bool:
    """Whether an image file lies anywhere below `folder`, going by names, among the first `LOOKED_AT` entries.

    The folders `without` directly in it are not looked into.
    """
    left_out = {str(folder / name) for name in without}
    waiting, seen, looked_at = [str(folder)], set[tuple[int, int]](), 0
    while waiting:
        visited = waiting.pop()
        status = os.stat(visited)
        if (status.st_dev, status.st_ino) in seen:  # a link back
            continue
        seen.add((status.st_dev, status.st_ino))
        with _scan(Path(visited)) as entries:
            for entry in entries:
                looked_at += 1
                if looked_at > LOOKED_AT:
                    return False
                if not _is_folder(entry):
                    if _is_image(entry):
                        return True
                elif not _left_behind(entry.name) and entry.path not in left_out:
                    waiting.append(entry.path)
    return False


def list_class(folder: Path, passed: PassedOver | None = None) -> list[ImageFile]:
    """`list_images` of a class folder. Raises `UserError` also when there are none."""
    files = list_images(folder, passed, f"{folder.name}/")
    if files:
        return files
    endings = Counter(Path(name).suffix.lower() or "no ending" for _, _, names in os.walk(folder) for name in names)
    if not endings:
        raise UserError(f"the class folder {shown(folder)}/ is empty. Put its images there or remove the folder.")
    most = sorted(endings.items(), key=lambda item: (-item[1], item[0]))
    there = ", ".join(f"{count:,} {ending}" for ending, count in most[:3])
    raise UserError(
        f"the class folder {shown(folder)}/ holds no image with a known ending, only {there}. "
        f"Known endings: {' '.join(EXTENSIONS)}"
    )


def check_class_names(names: Sequence[str], folder: Path) -> None:
    """Raises `UserError` unless there are class folders, their names readable as UTF-8."""
    for name in names:
        try:
            name.encode("utf-8")
        except UnicodeEncodeError:
            raise UserError(f"the name of the folder {shown(folder / name)}/ is not UTF-8. Rename it.") from None
    if not names:
        loose = any(entry.name.lower().endswith(EXTENSIONS) for entry in os.scandir(folder))
        state = "holds images but no class folders" if loose else "has no class folders"
        raise UserError(f"{shown(folder)}/ {state}. Expected: {shown(folder)}/CLASS/IMAGE")


class _Listing(NamedTuple):
    """What a walk has found so far."""

    found: list[ImageFile]
    refused: Counter[str]
    """Images of formats that are not read, by ending."""
    passed: PassedOver
    prefix: str
    """Before the names of what is passed over."""


def _walk(folder: Path, below: str, around: tuple[tuple[int, int], ...], listing: _Listing) -> None:
    status = os.stat(folder)
    identity = (status.st_dev, status.st_ino)
    if identity in around:
        raise UserError(f"{shown(folder)}/ is a link back to a folder that it lies in. Remove the link.")
    with _scan(folder) as entries:
        for entry in sorted(entries, key=lambda entry: entry.name):
            name = entry.name
            if _is_folder(entry):
                if _left_behind(name):
                    listing.passed.folder(name)
                else:
                    _walk(folder / name, f"{below}{name}/", (*around, identity), listing)
            elif _is_image(entry):
                try:
                    size = entry.stat().st_size
                except OSError:  # a dangling link, or one to itself
                    size = NOWHERE
                listing.found.append(ImageFile(below + name, size))
            elif _ending(name) in UNREADABLE and not _left_behind(name):
                listing.refused[_ending(name)] += 1
            else:
                listing.passed.file(name, f"{listing.prefix}{below}{name}")


def _is_image(entry: os.DirEntry[str]) -> bool:
    if _left_behind(entry.name):
        return False
    ending = _ending(entry.name)
    return ending in EXTENSIONS or (not ending and entry.is_file() and holds_an_image(entry.path))


def _ending(name: str) -> str:
    """ ".jpg" of "photo.JPG"; empty where what follows the last dot is no ending, as in "n02084071.17"."""
    ending = os.path.splitext(name)[1].lower()
    return ending if re.fullmatch(r"\.[a-z]\w*", ending) else ""


def _scan(folder: Path) -> AbstractContextManager[Iterator[os.DirEntry[str]]]:
    try:
        return os.scandir(folder)
    except PermissionError:
        raise UserError(
            f"cannot look into {shown(folder)}/: no permission. Give yourself the right to (chmod u+rx)."
        ) from None
    except OSError as error:
        raise UserError(f"cannot look into {shown(folder)}/: {error.strerror}.") from error


def _is_folder(entry: os.DirEntry[str]) -> bool:
    try:
        return entry.is_dir()
    except OSError:  # a link to itself
        return False


def _hidden(name: str) -> bool:
    return name.startswith(".")


def _left_behind(name: str) -> bool:
    return _hidden(name) or name.lower() in LEFT_BEHIND
