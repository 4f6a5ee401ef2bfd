"""The reader of VOC's layout: places, lists and names; and one clear message for each thing that is wrong."""

from __future__ import annotations

import os
import shutil
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from ssl_bench.datasets.indexed_png import read_mask, write_mask
from ssl_bench.datasets.shapes.layouts import embedded_voc
from ssl_bench.datasets.voc import OFFICIAL_VAL, VocSet, open_voc
from ssl_bench.errors import UserError

SIZE = (6, 4)
"""Width and height of the images written here."""


def write_voc(root: Path, names: tuple[str, ...] = ("2007_000001", "2007_000002"), objects: bool = True) -> Path:
    """VOCdevkit/VOC2012 below `root`, with a class 7 in each image and void around it; returns VOC2012."""
    voc = root / "VOCdevkit" / "VOC2012"
    folders = ["JPEGImages", "SegmentationClass", *["SegmentationObject"] * objects]
    for folder in [*folders, "ImageSets/Segmentation"]:
        (voc / folder).mkdir(parents=True)
    for index, name in enumerate(names):
        Image.new("RGB", SIZE, (40 * index, 90, 200)).save(voc / "JPEGImages" / f"{name}.jpg")
        mask = np.zeros(SIZE[::-1], np.uint8)
        mask[1:3, 1:5], mask[1:3, 2:4] = 255, 7
        for folder in folders[1:]:
            write_mask(voc / folder / f"{name}.png", np.where(mask == 7, index + 1, mask) if "O" in folder else mask)
    (voc / "ImageSets/Segmentation/val.txt").write_text("".join(f"{name}\n" for name in names))
    return voc


def test_the_place_may_be_any_of_three(tmp_path: Path) -> None:
    voc = write_voc(tmp_path)
    opened = [open_voc(place) for place in (tmp_path, tmp_path / "VOCdevkit", voc)]
    assert [one.root for one in opened] == [voc] * 3
    assert len({one.fingerprint for one in opened}) == 1
    assert (opened[0].name, len(opened[0])) == ("voc12-val-2", 2)


def test_items_are_the_files(tmp_path: Path) -> None:
    voc = write_voc(tmp_path)
    item = open_voc(voc).item(1)
    assert (item.name, item.image.mode, item.image.size) == ("2007_000002", "RGB", SIZE)
    assert np.unique(item.mask).tolist() == [0, 7, 255]
    assert np.unique(open_voc(voc, masks="object").item(1).mask).tolist() == [0, 2, 255]
    assert open_voc(voc).size(1) == SIZE


def test_only_the_chosen_kind_of_mask_is_needed(tmp_path: Path) -> None:
    voc = write_voc(tmp_path)
    objects = open_voc(voc, masks="object").fingerprint
    assert objects != open_voc(voc).fingerprint
    shutil.rmtree(voc / "SegmentationClass")
    assert open_voc(voc, masks="object").fingerprint == objects
    with pytest.raises(UserError, match=r"no folder SegmentationClass/\. It has .*voc-jaccard\.masks=object"):
        open_voc(voc)
    shutil.rmtree(voc / "SegmentationObject")
    with pytest.raises(UserError, match=r"no folder SegmentationClass") as caught:
        open_voc(voc)
    assert "--set" not in str(caught.value)  # the other kind is not there either


def test_the_embedded_masks_go_through_this_reader() -> None:
    made = embedded_voc(images=3)
    opened = open_voc(made.path)
    item = opened.item(2)
    name = opened.names[2]
    assert np.array_equal(item.mask, read_mask(made.path / f"VOC2012/SegmentationClass/{name}.png"))
    assert set(np.unique(open_voc(made.path, masks="object").item(2).mask)) == {0, 1}  # each image shows one object
    assert item.image.size == (224, 224)


def test_lists_are_names_or_files(tmp_path: Path) -> None:
    voc = write_voc(tmp_path)
    own = tmp_path / "mine.txt"
    own.write_text("2007_000002  1\n\n")  # as in ImageSets/Main: only the first word counts
    assert open_voc(voc, str(own)).names == ("2007_000002",)
    assert open_voc(voc, str(own)).name == "voc12-mine-1"
    assert open_voc(voc, "val.txt").names == open_voc(voc, "val").names


def test_only_the_official_images_are_called_val() -> None:
    """The digest is of 1,449 names; any other list says its length. The name depends on the names alone."""
    some = VocSet(Path("x/VOC2012"), "val", ("2007_000033",), (1, 1), masks="class")
    assert some.name == "voc12-val-1"
    elsewhere = VocSet(Path("x/shapes"), "val", ("2007_000033",), (1, 1), masks="class")
    assert elsewhere.name == "shapes-val-1"
    assert len(bytes.fromhex(OFFICIAL_VAL)) == 32


def test_the_fingerprint_changes_with_names_order_and_sizes(tmp_path: Path) -> None:
    voc = write_voc(tmp_path)
    first = open_voc(voc).fingerprint
    listed = voc / "ImageSets/Segmentation/val.txt"
    listed.write_text("2007_000002\n2007_000001\n")
    assert open_voc(voc).fingerprint != first
    listed.write_text("2007_000001\n2007_000002\n")
    assert open_voc(voc).fingerprint == first
    (voc / "JPEGImages/2007_000001.jpg").write_bytes(b"longer than before" * 100)
    assert open_voc(voc).fingerprint != first


@pytest.mark.parametrize(
    ("line", "words"),
    [
        ("2007_000009", r"val\.txt, line 3, names '2007_000009', but .*JPEGImages/2007_000009.jpg is missing"),
        ("../../secret", r"line 3, '../../secret': a path.*Nothing outside"),
        ("/etc/passwd", r"line 3.*Nothing outside"),
        ("..", r"line 3.*Nothing outside"),
        ("JPEGImages/2007_000001.jpg", r"line 3.*without folder and ending"),
        ("2007_000001", r"line 3, names '2007_000001', which line 1 has"),
    ],
)
def test_a_wrong_line_of_a_list_is_named(tmp_path: Path, line: str, words: str) -> None:
    voc = write_voc(tmp_path)
    with (voc / "ImageSets/Segmentation/val.txt").open("a") as file:
        file.write(f"{line}\n")
    with pytest.raises(UserError, match=words):
        open_voc(voc)


def test_wrong_places_are_named(tmp_path: Path) -> None:
    voc = write_voc(tmp_path, objects=False)
    with pytest.raises(UserError, match=r"none does not exist.*VOCdevkit/VOC2012"):
        open_voc(tmp_path / "none")
    with pytest.raises(UserError, match=r"val\.txt is a file, not a folder"):
        open_voc(voc / "ImageSets/Segmentation/val.txt")
    with pytest.raises(UserError, match=r"no list .*Segmentation/vall.txt.*Did you mean 'val'"):
        open_voc(voc, "vall")
    with pytest.raises(UserError, match=r"no folder SegmentationObject.*--set evaluators\.voc-jaccard\.masks=class"):
        open_voc(voc, masks="object")
    (voc / "SegmentationClass/2007_000002.png").unlink()
    with pytest.raises(UserError, match=r"line 2.*SegmentationClass/2007_000002.png is missing"):
        open_voc(voc)
    os.rename(voc / "SegmentationClass", voc / "SegmentationClasses")
    with pytest.raises(UserError, match=r"no folder SegmentationClass/.*Did you mean 'SegmentationClasses'"):
        open_voc(voc)
    os.rename(voc, voc.with_name("VOC2O12"))
    with pytest.raises(UserError, match=r"does not hold VOC 2012.*Did you mean 'VOC2O12'"):
        open_voc(tmp_path / "VOCdevkit")
    (tmp_path / "empty.txt").write_text("\n")
    os.rename(voc.with_name("VOC2O12"), voc)
    with pytest.raises(UserError, match=r"empty.txt names no image"):
        open_voc(voc, str(tmp_path / "empty.txt"))


def test_masks_that_do_not_fit_are_named(tmp_path: Path) -> None:
    voc = write_voc(tmp_path)
    mask = voc / "SegmentationClass/2007_000001.png"
    write_mask(mask, np.zeros(SIZE, np.uint8))
    with pytest.raises(
        UserError, match=r"2007_000001.png is 4 x 6 px, its image 2007_000001.jpg 6 x 4 px. It is trans"
    ):
        open_voc(voc).item(0)
    write_mask(mask, np.zeros((9, 9), np.uint8))
    with pytest.raises(UserError, match=r"9 x 9 px, its image") as caught:
        open_voc(voc).item(0)
    assert "transposed" not in str(caught.value)
    Image.new("RGB", SIZE).save(mask)
    with pytest.raises(UserError, match=r"2007_000001.png is RGB, not an indexed PNG"):
        open_voc(voc).item(0)
    mask.write_bytes(b"\x89PNG\r\n")
    with pytest.raises(UserError, match=r"cannot read the mask .*2007_000001.png"):
        open_voc(voc).item(0)
    (voc / "JPEGImages/2007_000001.jpg").write_bytes(b"no image")
    with pytest.raises(UserError, match=r"2007_000001.jpg"):
        open_voc(voc).item(0)


@pytest.mark.skipif("SSLBENCH_REAL_DATA" not in os.environ, reason="SSLBENCH_REAL_DATA names no folder of real data")
def test_real_images_of_voc() -> None:
    opened = open_voc(Path(os.environ["SSLBENCH_REAL_DATA"]) / "voc12")
    assert opened.name == "voc12-val-20"
    for index in range(len(opened)):
        assert set(np.unique(opened.item(index).mask).tolist()) <= {*range(21), 255}
