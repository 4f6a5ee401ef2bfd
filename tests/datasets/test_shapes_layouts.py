"""The embedded masks and clips lie on the disk as VOC 2012 and DAVIS 2017 do, written once."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from ssl_bench.datasets.indexed_png import PALETTE, read_mask, write_mask
from ssl_bench.datasets.shapes.layouts import embedded_davis, embedded_voc
from ssl_bench.datasets.shapes.render import render, render_clip
from ssl_bench.errors import UserError


def test_the_palette_is_the_official_one() -> None:
    """The first entries as printed in VOC's and DAVIS's own files, and the void color."""
    printed = [(0, 0, 0), (128, 0, 0), (0, 128, 0), (128, 128, 0), (0, 0, 128), (128, 0, 128), (0, 128, 128)]
    assert [tuple(map(int, color)) for color in PALETTE[:7]] == printed
    assert tuple(map(int, PALETTE[255])) == (224, 224, 192)


def test_masks_survive_the_file_and_carry_the_palette(tmp_path: Path) -> None:
    mask = np.arange(256, dtype=np.uint8).reshape(8, 32)
    write_mask(tmp_path / "mask.png", mask)
    assert np.array_equal(read_mask(tmp_path / "mask.png"), mask)
    with Image.open(tmp_path / "mask.png") as image:
        assert image.mode == "P"
        assert np.array_equal(np.array(image.convert("RGB")), PALETTE[mask])


def test_what_is_no_mask_is_named(tmp_path: Path) -> None:
    Image.new("RGB", (4, 4)).save(tmp_path / "color.png")
    (tmp_path / "broken.png").write_bytes(b"\x89PNG\r\n")
    for name, words in (("color.png", "RGB"), ("broken.png", "cannot read"), ("none.png", "missing")):
        with pytest.raises(UserError, match=words) as caught:
            read_mask(tmp_path / name)
        assert name in str(caught.value)


def test_voc_layout() -> None:
    made = embedded_voc(images=3)
    root = made.path / "VOC2012"
    names = (root / "ImageSets/Segmentation/val.txt").read_text().split()
    assert len(names) == 3
    for index, name in enumerate(names):
        image, label, mask = render(0, "test", index, 224)
        assert np.array_equal(read_mask(root / "SegmentationObject" / f"{name}.png"), mask)
        assert np.array_equal(read_mask(root / "SegmentationClass" / f"{name}.png"), mask * (label + 1))
        with Image.open(root / "JPEGImages" / f"{name}.jpg") as stored:
            assert np.abs(np.array(stored).astype(int) - image).mean() < 6  # JPEG


def test_davis_layout_is_written_once() -> None:
    made = embedded_davis(clips=2, frames=3)
    assert (made.path / "ImageSets/2017/val.txt").read_text().split() == ["shapes-00", "shapes-01"]
    masks = render_clip(0, 1, (224, 320), 3)[1]
    for frame in range(3):
        assert np.array_equal(read_mask(made.path / f"Annotations/480p/shapes-01/{frame:05d}.png"), masks[frame])
        assert (made.path / f"JPEGImages/480p/shapes-01/{frame:05d}.jpg").is_file()
    written = (made.path / "ImageSets/2017/val.txt").stat().st_mtime_ns
    assert embedded_davis(clips=2, frames=3) == made
    assert (made.path / "ImageSets/2017/val.txt").stat().st_mtime_ns == written
    assert embedded_davis(clips=1, frames=3).fingerprint != made.fingerprint


def test_a_cache_that_cannot_be_written_is_named(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "file").write_text("")
    monkeypatch.setenv("SSLBENCH_CACHE", str(tmp_path / "file"))
    with pytest.raises(UserError, match="SSLBENCH_CACHE"):
        embedded_voc(images=1)
