"""One bad file in any dataset that is read from disk: the message names it, and nothing is left out in silence."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from ssl_bench import registry
from ssl_bench.dataset import Dataset
from ssl_bench.datasets.checking import require_readable
from ssl_bench.datasets.davis import DavisSet, open_davis
from ssl_bench.datasets.indexed_png import write_mask
from ssl_bench.datasets.voc import VocSet, open_voc
from ssl_bench.errors import UserError
from tests.davis_files import moving_square, write_davis

WNIDS = ("n01443537", "n01629819")


def noise(path: Path, seed: int) -> Path:
    """A JPEG that has content to lose."""
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.fromarray(np.random.default_rng(seed).integers(0, 256, (24, 32, 3), dtype=np.uint8)).save(path)
    return path


def image_folder(root: Path) -> list[Path]:
    return [
        noise(root / split / wnid / f"{i}.jpg", i) for split in ("train", "val") for wnid in WNIDS for i in range(3)
    ]


def tiny_imagenet(root: Path) -> list[Path]:
    files = [noise(root / "train" / wnid / "images" / f"{wnid}_{i}.JPEG", i) for wnid in WNIDS for i in range(2)]
    files += [noise(root / "val/images" / f"val_{i}.JPEG", i) for i in range(2)]
    (root / "val/val_annotations.txt").write_text("".join(f"val_{i}.JPEG\t{WNIDS[i]}\t0\t0\t9\t9\n" for i in range(2)))
    return files


def imagenet(root: Path) -> list[Path]:
    files = [noise(root / "train" / wnid / f"{wnid}_{i}.JPEG", i) for wnid in WNIDS for i in range(2)]
    files += [noise(root / "val" / f"ILSVRC2012_val_{i:08d}.JPEG", i) for i in (1, 2)]
    lines = "".join(f"ILSVRC2012_val_{i:08d},{WNIDS[i - 1]} 1 2 3 4 \n" for i in (1, 2))
    (root / "LOC_val_solution.csv").write_text("ImageId,PredictionString\n" + lines)
    return files


LAYOUTS: dict[str, Callable[[Path], list[Path]]] = {
    "image-folder": image_folder,
    "images": image_folder,
    "tiny-imagenet": tiny_imagenet,
    "imagenet": imagenet,
}
OTHER = {
    "shapes": "made by code",
    **dict.fromkeys(("cifar10", "cifar100"), "compared with its MD5 sum"),
    **dict.fromkeys(("csv", "npz", "parquet", "webdataset"), "damaged in the tests of the format, tests/datasets/"),
}
TORCHVISION = {plugin.name for plugin in registry.plugins("dataset") if ".torchvision_" in plugin.target}
"""Read through torchvision, damaged in their own tests."""


def opener(name: str) -> Callable[[Path], Dataset]:
    def open_it(root: Path) -> Dataset:
        kind = registry.dataset(name)
        return kind(kind.Config(), root)  # type: ignore[call-arg]

    return open_it


def voc(root: Path) -> list[Path]:
    names, files = ("2007_000001", "2007_000002"), []
    for name in names:
        files.append(noise(root / "VOC2012/JPEGImages" / f"{name}.jpg", 0))
        files.append(root / "VOC2012/SegmentationObject" / f"{name}.png")
        files[-1].parent.mkdir(exist_ok=True)
        write_mask(files[-1], np.random.default_rng(1).integers(0, 3, (24, 32), dtype=np.uint8))
    (root / "VOC2012/ImageSets/Segmentation").mkdir(parents=True)
    (root / "VOC2012/ImageSets/Segmentation/val.txt").write_text("\n".join(names))
    return files


def read_voc(images: VocSet) -> None:
    for index in range(len(images)):
        images.item(index)


def davis(root: Path) -> list[Path]:
    made = write_davis(root, {"one": moving_square(3), "two": moving_square(3)})
    return sorted([*made.rglob("*.jpg"), *made.rglob("*.png")])


def read_davis(clips: DavisSet) -> None:
    for sequence in clips.sequences:
        for index in range(len(sequence)):
            sequence.frame(index)
            sequence.mask(index)


CASES: dict[str, tuple[Callable[[Path], list[Path]], Callable[[Path], Any], Callable[[Any], object]]] = {
    **{name: (write, opener(name), require_readable) for name, write in LAYOUTS.items()},
    "voc": (voc, lambda root: open_voc(root, masks="object"), read_voc),
    "davis": (davis, open_davis, read_davis),
}
"""Writes the files, opens them, reads them all."""


def damages(file: Path) -> Iterator[tuple[str, Callable[[], object]]]:
    """Name and deed of each damage."""
    yield "cut short", lambda: file.write_bytes(file.read_bytes()[: file.stat().st_size // 2])
    yield "empty", lambda: file.write_bytes(b"")
    yield "text", lambda: file.write_text("no image at all")
    yield "link to nowhere", lambda: (file.unlink(), file.symlink_to("gone"))
    yield "folder", lambda: (file.unlink(), file.mkdir())
    if os.geteuid():
        yield "closed", lambda: file.chmod(0)


def test_every_registered_data_set_has_a_case() -> None:
    assert {plugin.name for plugin in registry.plugins("dataset")} == {*LAYOUTS, *OTHER, *TORCHVISION}


@pytest.mark.parametrize("damage", ["cut short", "empty", "text", "link to nowhere", "folder", "closed"])
@pytest.mark.parametrize("name", list(CASES))
def test_a_bad_file_is_named(name: str, damage: str, tmp_path: Path) -> None:
    if damage == "folder" and name in LAYOUTS:
        pytest.skip("folders within a class belong to it")
    write, open_it, read = CASES[name]
    for split, place in (("first", 0), ("last", -1)):
        root = tmp_path / split
        files = write(root)
        read(open_it(root))
        harm = dict(damages(files[place]))
        if damage not in harm:
            pytest.skip("root may read everything")
        harm[damage]()
        with pytest.raises(UserError) as caught:
            read(open_it(root))
        assert files[place].stem in str(caught.value), str(caught.value)


@pytest.mark.parametrize("name", list(CASES))
def test_a_changed_byte_changes_the_fingerprint_and_a_move_does_not(name: str, tmp_path: Path) -> None:
    write, open_it, _ = CASES[name]
    files = write(tmp_path / "here")
    before = open_it(tmp_path / "here").fingerprint
    for file in (files[0], files[-1]):
        content = file.read_bytes()
        file.write_bytes(content[:-9] + bytes([content[-9] ^ 1]) + content[-8:])
        assert open_it(tmp_path / "here").fingerprint != before, file
        file.write_bytes(content)
    os.rename(tmp_path / "here", tmp_path / "there")
    assert open_it(tmp_path / "there").fingerprint == before
