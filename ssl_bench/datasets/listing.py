"""Which image files a folder holds: names and sizes, in one order on every machine, reading no pixels.

Hidden files and folders (`.DS_Store`, `._photo.jpg`, `.ipynb_checkpoints`) and `__MACOSX` are not looked at. Files that
are no images (labels, notes) are passed over; image formats that cannot be read here (`.heic`) are refused rather than
silently left out. Links are followed.
"""

from __future__ import annotations

import os
from collections import Counter
from collections.abc import Iterator, Sequence
from contextlib import AbstractContextManager
from pathlib import Path
from typing import NamedTuple

from ssl_bench.datasets.reading import EXTENSIONS, shown
from ssl_bench.errors import UserError

UNREADABLE = (".avif", ".dng", ".heic", ".heif", ".jp2", ".jxl", ".svg")
NOWHERE = -1
"""Size of a link that points nowhere."""


class ImageFile(NamedTuple):
    """A file: `name` is its path below the listed folder with "/" between parts, `size` its bytes (or `NOWHERE`)."""

    name: str
    size: int


def subfolders(folder: Path) -> list[str]:
    """Names of the folders in `folder`, sorted. Raises `UserError` when it cannot be read."""
    with _scan(folder) as entries:
        return sorted(entry.name for entry in entries if not _hidden(entry.name) and _is_folder(entry))


def list_images(folder: Path) -> list[ImageFile]:
    """The image files anywhere below `folder`, sorted by name.

    Raises `UserError` for a folder that cannot be read, a link that leads back to a folder around it, and for images of
    a format that cannot be read.
    """
    found: list[ImageFile] = []
    refused: Counter[str] = Counter()
    _walk(folder, "", (), found, refused)
    if refused:
        kinds = " and ".join(f"{count:,} {ending}" for ending, count in sorted(refused.items()))
        raise UserError(
            f"{shown(folder)}/ holds {kinds} files, a format that is not read here. "
            f"Convert them to JPEG or PNG, or move them away (read are {' '.join(EXTENSIONS)})."
        )
    found.sort()
    return found


def list_class(folder: Path) -> list[ImageFile]:
    """`list_images` of a class folder. Raises `UserError` also when there are none."""
    files = list_images(folder)
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
    """Raises `UserError` unless there are at least two class folders, their names readable as UTF-8."""
    for name in names:
        try:
            name.encode("utf-8")
        except UnicodeEncodeError:
            raise UserError(f"the name of the folder {shown(folder / name)}/ is not UTF-8. Rename it.") from None
    if len(names) == 1:
        raise UserError(
            f"{shown(folder)}/ has one class only ({names[0]}): accuracy on one class tells nothing. "
            f"Expected at least two folders: {shown(folder)}/CLASS/IMAGE"
        )
    if not names:
        loose = any(entry.name.lower().endswith(EXTENSIONS) for entry in os.scandir(folder))
        state = "holds images but no class folders" if loose else "has no class folders"
        raise UserError(f"{shown(folder)}/ {state}. Expected: {shown(folder)}/CLASS/IMAGE")


def _walk(
    folder: Path, prefix: str, around: tuple[tuple[int, int], ...], found: list[ImageFile], refused: Counter[str]
) -> None:
    status = os.stat(folder)
    here = (status.st_dev, status.st_ino)
    if here in around:
        raise UserError(f"{shown(folder)}/ is a link back to a folder that it lies in. Remove the link.")
    with _scan(folder) as entries:
        for entry in entries:
            name = entry.name
            if _hidden(name):
                continue
            if _is_folder(entry):
                _walk(folder / name, f"{prefix}{name}/", (*around, here), found, refused)
            elif name.lower().endswith(EXTENSIONS):
                try:
                    size = entry.stat().st_size
                except OSError:  # a dangling link, or one to itself
                    size = NOWHERE
                found.append(ImageFile(prefix + name, size))
            elif name.lower().endswith(UNREADABLE):
                refused[os.path.splitext(name)[1].lower()] += 1


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
    return name.startswith(".") or name == "__MACOSX"
