"""PASCAL VOC 2012's segmentation set in its official layout, read lazily: an image with its class or object mask.

    VOCdevkit/VOC2012/JPEGImages/NAME.jpg               the image
                      SegmentationClass/NAME.png        0 background, 1 to 20 class, 255 void (borders, hard parts)
                      SegmentationObject/NAME.png       0 background, 1.. object, 255 void
                      ImageSets/Segmentation/LIST.txt   a NAME a line

Only the folder of the chosen kind of mask is read, and it alone need be there. Opening looks at names and sizes of
files only. Any set in this layout works, e.g. the masks of `shapes`.
"""

from __future__ import annotations

import hashlib
import os
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Literal, NamedTuple

from PIL import Image

from ssl_bench.datasets.content import content_digest
from ssl_bench.datasets.indexed_png import Mask, read_mask
from ssl_bench.datasets.reading import header_size, read_image, shown
from ssl_bench.errors import UserError, did_you_mean

LAYOUT = "VOCdevkit/VOC2012/{JPEGImages,SegmentationClass,SegmentationObject,ImageSets/Segmentation}"
MaskKind = Literal["class", "object"]
MASK_FOLDERS: dict[MaskKind, str] = {"class": "SegmentationClass", "object": "SegmentationObject"}
OFFICIAL_VAL = "6f8edc37993764f6e212237d39546fb595246244147e8a050813c520aac0ade1"
"""SHA-256 of the sorted names of the 1,449 images of the official val.txt, with newlines between."""


class MaskedImage(NamedTuple):
    """One image with its mask, (height, width) as the image."""

    name: str
    image: Image.Image
    """RGB."""
    mask: Mask
    """The class of each pixel, or its object: 0 background, 255 void."""


@dataclass(frozen=True)
class VocSet:
    """The images of one list in its order."""

    root: Path
    """VOC2012/."""
    list_name: str
    names: tuple[str, ...]
    sizes: tuple[int, ...]
    """Bytes of each file in turn: image and mask of the first name, then of the next."""
    masks: MaskKind
    """Which masks are read."""

    def __len__(self) -> int:
        return len(self.names)

    @property
    def name(self) -> str:
        """ "voc12-val" for the official 1,449 images alone; else folder, list and number, e.g. "voc12-val-20"."""
        folder = "voc12" if self.root.name == "VOC2012" else self.root.name
        if hashlib.sha256("\n".join(sorted(self.names)).encode()).hexdigest() == OFFICIAL_VAL:
            return f"{folder}-val"
        return f"{folder}-{self.list_name}-{len(self)}"

    @cached_property
    def fingerprint(self) -> str:
        """Of the names in their order, and the sizes and content (`content_digest`) of their files."""
        paths = [path for index in range(len(self)) for path in (self._image_path(index), self._mask_path(index))]
        content = "\n".join((*self.names, *map(str, self.sizes), content_digest(paths, sum(self.sizes))))
        return hashlib.sha256(content.encode()).hexdigest()

    def size(self, index: int) -> tuple[int, int]:
        """(width, height) of an image in px, as its header says."""
        return header_size(self._image_path(index))

    def item(self, index: int) -> MaskedImage:
        """Read an image and its mask. Raises `UserError` naming the file that cannot be read or does not fit."""
        image, path = read_image(self._image_path(index)), self._mask_path(index)
        mask = read_mask(path)
        height, width = mask.shape
        if (width, height) != image.size:
            turned = " It is transposed." if (height, width) == image.size else ""
            raise UserError(
                f"{shown(path)} is {width} x {height} px, its image {self.names[index]}.jpg {image.width} x "
                f"{image.height} px.{turned} A mask has one value for each pixel of its image: replace one of them."
            )
        return MaskedImage(self.names[index], image, mask)

    def _image_path(self, index: int) -> Path:
        return self.root / "JPEGImages" / f"{self.names[index]}.jpg"

    def _mask_path(self, index: int) -> Path:
        return self.root / MASK_FOLDERS[self.masks] / f"{self.names[index]}.png"


def open_voc(path: Path, list: str = "val", *, masks: MaskKind = "class") -> VocSet:
    """Open the set in `path` (VOCdevkit, the folder around it, or VOC2012 itself), reading names only.

    `list` is a name in ImageSets/Segmentation, or a list file.
    Raises `UserError` for a folder, list or file that is missing or misnamed.
    """
    root = _root(Path(os.path.expanduser(path)))
    lists = root / "ImageSets" / "Segmentation"
    file = lists / (list if list.endswith(".txt") else f"{list}.txt")
    if not file.is_file():
        given = Path(os.path.expanduser(list))
        if not given.is_file():
            known = sorted(entry.stem for entry in lists.glob("*.txt"))
            raise UserError(
                f"there is no list {shown(file)}, and no file {list!r}.{did_you_mean(list, known)} Give one of "
                f"{', '.join(known) or 'none that is there'}, or a text file with the name of an image on each line."
            )
        file = given
    names = _names(file)
    folders = ("JPEGImages", MASK_FOLDERS[masks])
    missing = [folder for folder in folders if not (root / folder).is_dir()]
    if missing:
        there = sorted(entry.name for entry in root.iterdir() if entry.is_dir())
        other: MaskKind = "class" if masks == "object" else "object"
        official = {*folders, *MASK_FOLDERS.values()}
        hint = (
            f". Add --set evaluators.voc-jaccard.masks={other} to score one mask for each {other} instead: another "
            "protocol, whose numbers do not compare"
            if missing == [MASK_FOLDERS[masks]] and MASK_FOLDERS[other] in there
            else ""
        )
        raise UserError(
            f"{shown(root)}/ has no folder {missing[0]}/.{did_you_mean(missing[0], {*there} - official)} It has "
            f"{', '.join(there)}. Expected {LAYOUT}{hint}."
        )
    held = [_sizes(root / folder) for folder in folders]
    sizes = []
    for line, name in names:
        for folder, ending, there_are in zip(folders, (".jpg", ".png"), held, strict=True):
            if name + ending not in there_are:
                raise UserError(
                    f"{shown(file)}, line {line}, names {name!r}, but {shown(root / folder)}/{name}{ending} is missing."
                    f"{did_you_mean(name + ending, there_are)} Add the file or take the line out."
                )
            sizes.append(there_are[name + ending])
    return VocSet(root, file.stem, tuple(name for _, name in names), tuple(sizes), masks)


def _root(path: Path) -> Path:
    """The folder that holds JPEGImages/ or ImageSets/."""
    if not path.is_dir():
        state = "is a file, not a folder" if path.is_file() else "does not exist"
        raise UserError(f"{shown(path)} {state}. Expected the folder {LAYOUT}, as VOC 2012 is released.")
    for root in (path, path / "VOC2012", path / "VOCdevkit" / "VOC2012"):
        if (root / "JPEGImages").is_dir() or (root / "ImageSets").is_dir():
            return root
    there = sorted(os.listdir(path))
    some = ", ".join(there[:5]) + (", ..." if len(there) > 5 else "")
    near = did_you_mean("VOC2012", there) or did_you_mean("JPEGImages", there)
    raise UserError(f"{shown(path)}/ (with {some or 'nothing in it'}) does not hold VOC 2012.{near} Expected {LAYOUT}.")


def _names(file: Path) -> list[tuple[int, str]]:
    """(line, name) of every line of a list; only the first word counts."""
    try:
        lines = file.read_text(encoding="utf-8").splitlines()
    except (OSError, UnicodeDecodeError) as error:
        raise UserError(
            f"cannot read the list {shown(file)}: {error}. Expected the name of an image on each line."
        ) from None
    names: dict[str, int] = {}
    for number, line in enumerate(lines, start=1):
        name = line.split()[0] if line.strip() else ""
        if not name:
            continue
        if "/" in name or "\\" in name or "\0" in name or name.startswith("."):
            raise UserError(
                f"{shown(file)}, line {number}, {name!r}: a path, not the name of an image in JPEGImages/. "
                "Nothing outside that folder is read: give the name alone, without folder and ending, e.g. 2007_000033."
            )
        if name in names:
            raise UserError(f"{shown(file)}, line {number}, names {name!r}, which line {names[name]} has. Remove one.")
        names[name] = number
    if not names:
        raise UserError(f"the list {shown(file)} names no image. Expected the name of an image on each line.")
    return [(number, name) for name, number in names.items()]


def _sizes(folder: Path) -> dict[str, int]:
    try:
        with os.scandir(folder) as entries:
            return {entry.name: entry.stat().st_size for entry in entries if entry.is_file()}
    except OSError as error:
        raise UserError(f"cannot look into {shown(folder)}/: {error.strerror}.") from None
