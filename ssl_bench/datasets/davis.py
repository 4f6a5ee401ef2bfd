"""DAVIS 2017 as released: sequences of frames, each with a mask whose pixels hold the number of their object."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterable
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path

import numpy as np
from PIL import Image

from ssl_bench.datasets.content import content_digest
from ssl_bench.datasets.davis_layout import find_root, folder, read_list
from ssl_bench.datasets.indexed_png import VOID, Mask, read_mask
from ssl_bench.datasets.reading import read_image, shown
from ssl_bench.errors import UserError, did_you_mean

# fmt: off
OFFICIAL_VAL = frozenset({
    "bike-packing", "blackswan", "bmx-trees", "breakdance", "camel", "car-roundabout", "car-shadow", "cows",
    "dance-twirl", "dog", "dogs-jump", "drift-chicane", "drift-straight", "goat", "gold-fish", "horsejump-high",
    "india", "judo", "kite-surf", "lab-coat", "libby", "loading", "mbike-trick", "motocross-jump",
    "paragliding-launch", "parkour", "pigs", "scooter-black", "shooting", "soapbox",
})
# fmt: on
OFFICIAL_VAL_FRAMES = 1999
"""Frames of the 30 sequences together (arXiv 1704.00675, Table 1)."""
FEWEST_FRAMES = 3
"""The first and the last frame are not scored."""


@dataclass(frozen=True)
class DavisSequence:
    """A sequence: `frames` and `masks` are its JPEG and PNG files in order, one mask per frame."""

    name: str
    frames: tuple[Path, ...]
    masks: tuple[Path, ...]

    def __len__(self) -> int:
        return len(self.frames)

    @property
    def frame_names(self) -> tuple[str, ...]:
        """What the frames' files are called without ending: "00000", .."""
        return tuple(path.stem for path in self.frames)

    @cached_property
    def size(self) -> tuple[int, int]:
        """(height, width) in px of the first frame, and so of all frames and masks."""
        width, height = read_image(self.frames[0]).size
        return height, width

    def frame(self, index: int) -> Image.Image:
        """RGB, upright. Raises `UserError` for a file that is damaged or of another size than the first frame."""
        image = read_image(self.frames[index])
        check_size(self.frames[index], (image.height, image.width), self.size, self.frames[0])
        return image

    def mask(self, index: int) -> Mask:
        """(height, width) uint8: 0 background, 1.. objects, 255 void. Raises `UserError` as `frame` does."""
        mask = read_mask(self.masks[index])
        check_size(self.masks[index], mask.shape, self.size, self.frames[0])
        return mask

    def objects(self) -> int:
        """How many objects: the largest value of the first mask, as the official scorer counts, void left out.

        Raises `UserError` when the first mask shows none: there is nothing to follow.
        """
        first = self.mask(0)
        count = int(np.where(first == VOID, 0, first).max(initial=0))
        if count:
            return count
        void = " It holds 0 and 255, as masks of DAVIS 2016 do, and 255 is void here: write 1 for the object instead."
        hint = void if (first == VOID).any() else ""
        raise UserError(f"{shown(self.masks[0])} shows no object, and the first mask says what to follow.{hint}")


@dataclass(frozen=True)
class DavisSet:
    """The listed sequences of a DAVIS folder.

    `name` is "davis2017-val" only for the 30 official sequences, whole.
    """

    path: Path
    name: str
    sequences: tuple[DavisSequence, ...]
    listing: tuple[tuple[str, tuple[tuple[str, int], ...]], ...]
    """Each sequence with name and bytes of all its frames and masks."""

    @cached_property
    def fingerprint(self) -> str:
        """sha256 over names, sizes and content (`content_digest`) of all frames and masks, not over where they lie."""
        paths = [path for sequence in self.sequences for path in (*sequence.frames, *sequence.masks)]
        total = sum(size for _, files in self.listing for _, size in files)
        return hashlib.sha256(json.dumps([self.listing, content_digest(paths, total)]).encode()).hexdigest()


def open_davis(path: Path, subset: str = "val", resolution: str = "480p") -> DavisSet:
    """List the sequences of `subset`, a name in ImageSets/2017 or a path to a list file, reading no pixels.

    `path` is DAVIS itself or a folder around it. Raises `UserError` naming what is missing, misnamed or left over:
    folders, listed sequences, frames without masks and masks without frames, and sequences too short to score.
    """
    root = find_root(path)
    called, source, names = read_list(root, subset)
    images = folder(folder(root, "JPEGImages", "the frames"), resolution, "the frames at this resolution")
    annotations = folder(folder(root, "Annotations", "the masks"), resolution, "the masks at this resolution")
    sequences = tuple(_sequence(name, images, annotations, source) for name in names)
    return DavisSet(root, _name(root, called, resolution, sequences), sequences, _listing(sequences))


def check_size(path: Path, size: tuple[int, ...], expected: tuple[int, int], model: Path) -> None:
    """Raise `UserError` unless `path` has the (height, width) of `model`."""
    if size != expected:
        turned = " It looks transposed." if size == expected[::-1] else ""
        raise UserError(
            f"{shown(path)} is {size[1]} x {size[0]} px, {shown(model)} is {expected[1]} x {expected[0]}: all "
            f"frames and masks of a sequence have one size.{turned}"
        )


def files(place: Path, endings: Iterable[str]) -> dict[str, Path]:
    """Name without ending to file, in the order of the frames: by number where all names are numbers."""
    try:
        entries = list(place.iterdir())
    except OSError as error:
        raise UserError(f"cannot look into {shown(place)}/: {error.strerror}.") from None
    found = {
        entry.stem: entry for entry in entries if entry.suffix.lower() in endings and not entry.name.startswith(".")
    }
    numbers = all(name.isdecimal() for name in found)
    return dict(sorted(found.items(), key=lambda item: (int(item[0]) if numbers else 0, item[0])))


def _sequence(name: str, images: Path, annotations: Path, source: Path) -> DavisSequence:
    for place, what in ((images, "frames"), (annotations, "masks")):
        if not (place / name).is_dir():
            near = did_you_mean(name, (entry.name for entry in place.iterdir()))
            raise UserError(f"{shown(source)} lists {name}, but its {what} {shown(place / name)}/ are missing.{near}")
    frames, masks = files(images / name, (".jpg", ".jpeg")), files(annotations / name, (".png",))
    if not frames:
        raise UserError(f"{shown(images / name)}/ holds no JPEG: expected the frames 00000.jpg, 00001.jpg, ..")
    without = [frame for frame in frames if frame not in masks]
    if without:
        reason = (
            "Only the first frame has one, as in test-dev and test-challenge, whose answers are not public: "
            "choose val or train."
            if len(masks) == 1 and len(without) == len(frames) - 1
            else "Unpack the annotations again."
        )
        raise UserError(
            f"{shown(annotations / name / f'{without[0]}.png')} is missing: {len(without)} of the {len(frames)} frames "
            f"of {name} have no mask. {reason}"
        )
    left_over = [mask for mask in masks if mask not in frames]
    if left_over:
        raise UserError(
            f"{shown(masks[left_over[0]])} has no frame {shown(images / name / f'{left_over[0]}.jpg')}: "
            f"{len(left_over)} masks of {name} are left over. Unpack the frames again."
        )
    if len(frames) < FEWEST_FRAMES:
        raise UserError(
            f"{shown(images / name)}/ holds {len(frames)} frame{'s' * (len(frames) > 1)}: the first and the last are "
            f"not scored, so that a sequence needs {FEWEST_FRAMES} or more."
        )
    return DavisSequence(name, tuple(frames.values()), tuple(masks[frame] for frame in frames))


def _name(root: Path, subset: str, resolution: str, sequences: tuple[DavisSequence, ...]) -> str:
    names, at = frozenset(sequence.name for sequence in sequences), "" if resolution == "480p" else f" {resolution}"
    if names == OFFICIAL_VAL and sum(map(len, sequences)) == OFFICIAL_VAL_FRAMES:
        return f"davis2017-val{at}"
    if names < OFFICIAL_VAL:
        return f"davis2017-val{at} ({len(names)} of its 30 sequences)"
    owner = root.parent if root.name.lower() == "davis" else root
    return f"{owner.resolve().name}/{subset}{at}"


def _listing(sequences: tuple[DavisSequence, ...]) -> tuple[tuple[str, tuple[tuple[str, int], ...]], ...]:
    return tuple(
        (sequence.name, tuple((path.name, _bytes(path)) for path in (*sequence.frames, *sequence.masks)))
        for sequence in sequences
    )


def _bytes(path: Path) -> int:
    try:
        return path.stat().st_size
    except OSError as error:  # a link to nowhere
        raise UserError(f"cannot read {shown(path)}: {error.strerror}. Put the file there again.") from None
