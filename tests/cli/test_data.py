"""`sslbench data`: what it finds in sets whose faults are known, for every kind of dataset, and its picture sheet."""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from tests.conftest import Command
from tests.datasets.test_voc import write_voc
from tests.davis_files import moving_square, write_davis
from tests.toy import write_image_folder


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """Two classes of 16 px; a copy under another name and class, a gray image, a test image from training, a text."""
    root = write_image_folder(tmp_path / "birds", train=6, test=3, px=16)
    train, val = root / "train", root / "val"
    shutil.copy(train / "a/0.png", train / "a/copy.png")
    Image.open(train / "a/1.png").save(train / "b/relabeled.webp", lossless=True)
    Image.open(train / "b/2.png").save(val / "b/leak.bmp")
    Image.new("RGB", (40, 20), (90, 90, 90)).save(train / "b/gray.png")
    (train / "notes.txt").write_text("x")
    return root


def facts(sslbench: Command, *words: str | Path) -> dict[str, Any]:
    status, out, err = sslbench("data", *words, "--json", "--no-sheet")
    assert status == 0, err
    found: dict[str, Any] = json.loads(out)
    return found


def test_splits_classes_sizes_and_duplicates(sslbench: Command, folder: Path) -> None:
    found = facts(sslbench, folder)
    (data,) = found["data"]
    train, test = data["splits"]["train"], data["splits"]["test"]
    assert (data["name"], data["plugin"], data["classes"], data["image_px"]) == ("birds", "image-folder", 2, 16)
    assert (train["images"], train["looked_at"], train["gray"]) == (15, 15, 1)
    assert train["class_counts"] == {"a": 7, "b": 8}
    assert (train["shorter_side_px"], train["longer_side_px"]) == ([16, 16, 20], [16, 16, 40])
    assert train["file_kinds"] == {".png": 14, ".webp": 1}
    assert (test["images"], test["file_kinds"]) == (7, {".png": 6, ".bmp": 1})
    assert data["notes"] == ["train/: passed over 1 file (1 .txt, e.g. notes.txt)"]
    within, leak = found["duplicates"]
    assert (within["where"], within["images"], within["other_labels"]) == ("within train", 2, 1)
    assert [[Path(name).name for name in pair] for pair in within["examples"]] == [
        ["copy.png", "0.png"], ["relabeled.webp", "1.png"],
    ]  # fmt: skip
    assert (leak["where"], leak["images"], leak["of"]) == ("test in train", 1, 7)
    assert [Path(name).name for name in leak["examples"][0]] == ["leak.bmp", "2.png"]


def test_the_words(sslbench: Command, folder: Path, tmp_path: Path) -> None:
    status, out, _ = sslbench("data", "birds", "--no-sheet")
    assert status == 0
    for words in (
        "birds  read as image-folder, ",
        "train      15 images of 2 classes, 7 to 8 (median 7.5) a class",
        "shorter side 16 to 20 (median 16) px, longer side 16 to 40 (median 16) px, 1 gray; 14 .png, 1 .webp",
        "test       7 images of 2 classes, 3 to 4 (median 3.5) a class",
        "note       train/: passed over 1 file",
        "within train: 2 of 15 images, pixel by pixel, 1 under another label, e.g. birds/train/a/copy.png = ",
        "test in train: 1 of 7 images, pixel by pixel, e.g. birds/val/b/leak.bmp = birds/train/b/2.png",
    ):
        assert words in out, words
    assert sorted(path.name for path in tmp_path.iterdir()) == ["birds"]


def test_images_to_evaluate_on_that_are_among_the_unlabeled_training_images(
    sslbench: Command, folder: Path, tmp_path: Path
) -> None:
    flat = tmp_path / "flat"
    flat.mkdir()
    for index in range(4):
        shutil.copy(folder / f"val/a/{index % 3}.png", flat / f"{index}.png")
    found = facts(sslbench, flat, "--eval-data", folder)
    assert [one["plugin"] for one in found["data"]] == ["images", "image-folder"]
    assert not found["data"][0]["splits"]["train"]["labeled"]
    copies = {one["where"]: one["images"] for one in found["duplicates"]}
    assert copies["within train"] in (1, 2)
    assert copies["test of birds in train of flat"] == 3
    assert "train of birds in train of flat" not in copies


def test_what_to_look_at_is_a_warning(sslbench: Command, tmp_path: Path) -> None:
    root = write_image_folder(tmp_path / "odd", train=1, test=1, px=24)
    (root / "train/a/cut.png").write_bytes((root / "train/a/0.png").read_bytes()[:300])
    warnings = facts(sslbench, root, "--set", "data.image_px=32")["data"][0]["warnings"]
    assert "train: 1 image cannot be read: cannot read odd/train/a/cut.png: it is damaged" in warnings[0]
    assert warnings[1].startswith("train: 1 class with a single image (b)")
    assert warnings[2].startswith("train: 2 of 3 images are smaller than the 32 px that networks get")


def test_a_large_set_is_looked_at_in_part_and_says_so(sslbench: Command, folder: Path) -> None:
    (data,) = facts(sslbench, folder, "--images", "5")["data"]
    assert data["splits"]["train"]["looked_at"] == 5
    _, out, _ = sslbench("data", folder, "--images", "2", "--no-sheet")
    assert "of the 2 images looked at" in out
    assert "no two of the images looked at are the same" in out


@pytest.mark.parametrize("kind", ["shapes", "images", "npz", "csv"])
def test_other_kinds_of_data(sslbench: Command, folder: Path, tmp_path: Path, kind: str) -> None:
    if kind == "shapes":
        words: tuple[str | Path, ...] = ("shapes", "--set", "data.train_images=12", "--set", "data.test_images=10")
    elif kind == "images":
        words = (folder / "train/a",)
    elif kind == "npz":
        pixels = np.random.default_rng(0).integers(0, 255, (12, 28, 28, 3), dtype=np.uint8)
        labels = np.arange(12)[:, None] % 2
        parts = {f"{part}_{what}": value for part in ("train", "val", "test")
                 for what, value in (("images", pixels), ("labels", labels))}  # fmt: skip
        np.savez(tmp_path / "cells.npz", **parts)
        words = (tmp_path / "cells.npz",)
    else:
        rows = [f"birds/train/{path.parent.name}/{path.name},{path.parent.name},train"
                for path in sorted((folder / "train").glob("*/*.png"))]  # fmt: skip
        rows += [f"birds/val/{path.parent.name}/{path.name},{path.parent.name},test"
                 for path in sorted((folder / "val").glob("*/*.png"))]  # fmt: skip
        (tmp_path / "birds.csv").write_text("path,label,split\n" + "\n".join(rows) + "\n")
        words = (tmp_path / "birds.csv",)
    (data,) = facts(sslbench, *words)["data"]
    assert data["splits"]["train"]["images"] == {"shapes": 12, "images": 7, "npz": 12, "csv": 14}[kind]
    assert data["splits"]["train"]["shorter_side_px"][0] > 0


def test_folders_with_masks_say_where_they_go(sslbench: Command, tmp_path: Path) -> None:
    root = write_davis(tmp_path, {"car": moving_square(3), "dog": moving_square(4)})
    status, out, _ = sslbench("data", root)
    assert status == 0
    assert "DAVIS: 2 sequences of val, 7 frames" in out
    assert f"sslbench eval RUN --davis {root}" in out


def test_folders_of_voc_say_which_masks_they_hold(sslbench: Command, tmp_path: Path) -> None:
    root = write_voc(tmp_path)
    status, out, _ = sslbench("data", root)
    assert status == 0
    assert "VOC with object masks: 2 images of the list val" in out
    assert out.strip().endswith(f"sslbench eval RUN --voc {root}")
    shutil.rmtree(root / "SegmentationObject")
    out = sslbench("data", root)[1]
    assert "VOC with class masks: 2 images" in out
    assert out.strip().endswith(f"sslbench eval RUN --voc {root} --set evaluators.voc-jaccard.masks=class")


def test_the_sheet_shows_samples_and_the_views_of_methods(sslbench: Command, folder: Path) -> None:
    status, out, err = sslbench("data", folder, "--method", "simclr,swav,random", "--out", "it.png")
    assert status == 0, err
    assert "written: it.png (samples, and the views of simclr, swav;" in out
    assert "no views   of random: it trains nothing" in out
    page = np.asarray(Image.open("it.png").convert("RGB")).astype(int)
    assert page.shape[1] > 900
    tile = np.asarray(Image.open(folder / "train/a/0.png").resize((112, 112), Image.Resampling.NEAREST)).astype(int)
    assert (page[40:152, 14:126] == tile).all(), "the first sample, below the title"
    bottom = page[200:]
    assert (bottom.max(2) - bottom.min(2) > 60).mean() > 0.03, "views in color below it"


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (("nowhere/x",), "does not exist"),
        (("birds", "--method", "simclrr"), "Did you mean 'simclr'"),
        (("birds", "--out", "sheet"), "give a name that ends with .png"),
        (("birds", "--out", "missing/sheet.png", "--method", "simclr"), "cannot write the sheet"),
        (("birds", "--set", "data.imagepx=3"), "Did you mean 'data.image_px'"),
    ],
)
def test_mistakes(sslbench: Command, folder: Path, words: tuple[str, ...], message: str) -> None:
    status, _, err = sslbench("data", *words)
    assert status == 2
    assert message in err
