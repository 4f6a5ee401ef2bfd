"""FILE.npz as MedMNIST ships its sets: train_images, train_labels, val_images, ..., arrays of NumPy."""

from __future__ import annotations

import shutil
import zipfile
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ssl_bench.dataset import Dataset
from ssl_bench.datasets.content import blocks_digest
from ssl_bench.datasets.image_files import decide_image_px, set_name
from ssl_bench.datasets.picking import ContainerConfig, Listed, Picked, SplitName, pick
from ssl_bench.datasets.raw_images import RawFile, RawImages
from ssl_bench.datasets.reading import shown
from ssl_bench.datasets.unpacked import unpacked
from ssl_bench.errors import UserError, did_you_mean

PARTS: Mapping[SplitName, tuple[str, str]] = {
    "train": ("train_images", "train_labels"),
    "val": ("val_images", "val_labels"),
    "test": ("test_images", "test_labels"),
}
ONE_PART = (("images", "labels"), ("arr_0", "arr_1"))
"""Names of images and labels where no splits are named; NumPy calls arrays arr_0, ... that are saved without a name."""


class Npz(Dataset):
    """An .npz file of images as uint8, gray or RGB, and of labels: MedMNIST's sets, or your own arrays."""

    layout = "FILE.npz: train_images (n, height, width[, 3]) uint8, train_labels, val_images, ..., or images alone"

    class Config(ContainerConfig):
        """Settings of an .npz file."""

    @classmethod
    def recognizes(cls, path: Path) -> bool:
        """Whether it is a file with this ending."""
        return path.suffix.lower() == ".npz" and path.is_file()

    train: RawImages
    test: RawImages | None

    def __init__(self, config: Config, path: Path | None) -> None:
        """Unpack the images into the cache, once. Raises `UserError` for arrays of other names, shapes or kinds."""
        if path is None or not path.is_file():
            where = "" if path is None else f"; {shown(path)} is not one"
            raise UserError(f"npz needs its file (--data FILE.npz){where}. Expected {self.layout}")
        self.config, self.path = config, path
        content = blocks_digest([path])
        with _opened(path) as archive:
            shapes = {name.removesuffix(".npy"): _header(archive, name, path) for name in archive.namelist()}
            names = _parts(shapes, path)
            notes: list[str] = []
            files, parts = {}, {}
            for split, (images, labels) in names.items():
                axes = _axes(images, *shapes[images], path)
                found = _labels(archive, labels, shapes[images][0][0], path, notes) if labels in shapes else None
                parts[split] = Listed(shapes[images][0][0], found)
                files[split] = (images, axes)
            folder = unpacked(
                "npz", [path], content, lambda part: _unpack(archive, [n for n, _ in files.values()], part)
            )
        picks = pick(parts, config, shown(path))

        def split_of(picked: Picked) -> RawImages:
            images, axes = files[picked.part]
            pixels = np.load(folder / f"{images}.npy", mmap_mode="r")
            shape = pixels.shape[:3] if axes == "HW" else pixels.shape
            file = RawFile(folder / f"{images}.npy", shape, axes, pixels.offset)
            return RawImages(file, picked.rows, picked.labels)

        self.classes, self.train = picks.classes, split_of(picks.train)
        self.test = None if picks.test is None else split_of(picks.test)
        self.name = set_name(path.with_suffix(""), config.train_fraction)
        self.image_px = decide_image_px(self.train, config)
        self.notes = (*notes, *picks.notes)
        self._fingerprint = picks.fingerprint(content)

    @property
    def fingerprint(self) -> str:
        """sha256 over the file's content (of more than 256 MiB a sample) and over which images are used."""
        return self._fingerprint


def _opened(path: Path) -> zipfile.ZipFile:
    try:
        return zipfile.ZipFile(path)
    except (zipfile.BadZipFile, OSError) as error:
        raise UserError(
            f"{shown(path)} is not an .npz file, or is cut off ({error}). Copy or download it again."
        ) from error


def _header(archive: zipfile.ZipFile, name: str, path: Path) -> tuple[tuple[int, ...], np.dtype[Any]]:
    """Shape and kind of an array, without reading it."""
    try:
        with archive.open(name) as file:
            version = np.lib.format.read_magic(file)
            read = np.lib.format.read_array_header_1_0 if version == (1, 0) else np.lib.format.read_array_header_2_0
            shape, _, kind = read(file)
    except Exception as error:  # zlib, zipfile and NumPy raise their own kinds
        raise UserError(f"{shown(path)}: {name} is not a NumPy array, or is damaged ({error}).") from error
    return shape, kind


def _parts(shapes: Mapping[str, tuple[tuple[int, ...], np.dtype[Any]]], path: Path) -> dict[SplitName, tuple[str, str]]:
    """Names of the images' and labels' arrays of every split that is there."""
    found: dict[SplitName, tuple[str, str]] = {split: names for split, names in PARTS.items() if names[0] in shapes}
    if "train" in found:
        return found
    for names in ONE_PART:
        if names[0] in shapes and not found:
            return {"": names}
    there = ", ".join(f"{name} {shape} {kind}" for name, (shape, kind) in shapes.items()) or "nothing"
    near = did_you_mean("train_images", shapes)
    raise UserError(
        f"{shown(path)} holds {there}.{near} Expected train_images, train_labels, val_images, val_labels, test_images, "
        "test_labels (as MedMNIST), or images and, if there are any, labels. Rename: "
        "np.savez_compressed(FILE, images=IMAGES, labels=LABELS)"
    )


def _axes(name: str, shape: tuple[int, ...], kind: np.dtype[Any], path: Path) -> Any:
    gray, color = len(shape) == 3, len(shape) == 4 and shape[3] == 3
    if len(shape) == 4 and shape[3] == 1:
        gray = True
    if kind == np.uint8 and (gray or color) and min(shape[1:3]) > 0:
        return "HW" if gray else "HWC"
    advice = "."
    if len(shape) == 4 and shape[1] in (1, 3) and shape[3] not in (1, 3):
        advice = f": channels last, {name}.transpose(0, 2, 3, 1)."
    elif len(shape) in (4, 5) and not color and not gray:
        advice = "; volumes and videos are not read."
    elif kind != np.uint8:
        advice = ": scale the values to 0 .. 255 and save them as uint8."
    raise UserError(
        f"{shown(path)}: {name} has the shape {shape} and the kind {kind}. Expected (n, height, width) or (n, height, "
        f"width, 3) of uint8{advice}"
    )


def _labels(archive: zipfile.ZipFile, name: str, count: int, path: Path, notes: list[str]) -> NDArray[Any] | None:
    with archive.open(f"{name}.npy") as file:
        try:
            labels = np.lib.format.read_array(file, allow_pickle=False)
        except Exception as error:
            raise UserError(f"{shown(path)}: {name} cannot be read ({error}).") from error
    if labels.ndim == 2 and labels.shape[1] > 1:
        notes.append(
            f"{name} has {labels.shape[1]} values per image (multi-label or one-hot); accuracy needs one class per "
            "image, so the images are read as unlabeled"
        )
        return None
    if labels.size != count or labels.ndim > 2:
        raise UserError(f"{shown(path)}: {name} has the shape {labels.shape} for {count:,} images: give one per image.")
    labels = labels.reshape(-1)
    if labels.dtype.kind == "f" and (labels == np.floor(labels)).all():
        labels = labels.astype(np.int64)
    if labels.dtype.kind not in "iubU":
        raise UserError(f"{shown(path)}: {name} has the kind {labels.dtype}. Expected whole numbers or text.")
    return labels if labels.dtype.kind == "U" else labels.astype(np.int64)


def _unpack(archive: zipfile.ZipFile, names: list[str], folder: Path) -> None:
    """Each array as an .npy file of its own, its images one after another."""
    for name in names:
        target = folder / f"{name}.npy"
        try:
            with archive.open(f"{name}.npy") as packed, open(target, "wb") as file:
                shutil.copyfileobj(packed, file, 1 << 20)
        except OSError:  # of the cache's disk
            raise
        except Exception as error:  # zlib and zipfile raise their own kinds
            where = shown(str(archive.filename))
            raise UserError(f"{where}: {name} is damaged ({error}). Copy or download the file again.") from error
        pixels = np.load(target, mmap_mode="r")
        if not pixels.flags.c_contiguous:  # saved from a transposed array
            np.save(folder / "rows.npy", np.ascontiguousarray(pixels))
            (folder / "rows.npy").replace(target)
