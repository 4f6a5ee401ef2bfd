"""Strip and animation of a sequence: colors, outlines, layout, and that the scores on them are the sequence's."""

from __future__ import annotations

import io
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from ssl_bench.datasets.davis import DavisSequence, open_davis
from ssl_bench.datasets.indexed_png import write_mask
from ssl_bench.datasets.shapes.layouts import embedded_davis
from ssl_bench.errors import UserError
from ssl_bench.evaluators.davis.pictures import (
    STRIP_TILE_PX,
    animation,
    evenly,
    outline,
    overlay,
    strip,
    write_pictures,
)
from ssl_bench.evaluators.davis.scores import score_sequence


@pytest.fixture
def sequence() -> DavisSequence:
    return open_davis(embedded_davis(clips=2, frames=5).path).sequences[0]


@pytest.fixture
def masks(sequence: DavisSequence, tmp_path: Path) -> Path:
    """Predictions: the truth, moved by some pixels more in each frame."""
    (tmp_path / sequence.name).mkdir()
    for index, name in enumerate(sequence.frame_names):
        write_mask(tmp_path / sequence.name / f"{name}.png", np.roll(sequence.mask(index), 5 * index, axis=1))
    return tmp_path


def test_objects_are_half_their_color_and_outlined() -> None:
    """Object 1 is 128 0 0 in the palette, 255 0 0 here; void and background are left as they are."""
    image = Image.new("RGB", (20, 20), (100, 100, 100))
    mask = np.zeros((20, 20), np.uint8)
    mask[5:15, 5:15] = 1
    mask[:2] = 255
    shown = np.asarray(overlay(image, mask))
    assert shown[10, 10].tolist() == [178, 50, 50]
    assert shown[5, 10].tolist() == shown[10, 14].tolist() == [255, 0, 0]
    assert (shown[mask != 1] == 100).all()


def test_outlines_are_two_pixels_wide_and_inside() -> None:
    mask = np.zeros((12, 12), np.uint8)
    mask[2:10, 2:6], mask[2:10, 6:10] = 1, 2
    edge = outline(mask)
    assert not edge[mask == 0].any()
    assert edge[2:4, 2:10].all()
    assert edge[4:8, 4:8].all()  # where the two objects meet
    single = np.zeros((12, 12), np.uint8)
    single[2:10, 2:10] = 3
    assert (outline(single) == (single > 0)).sum() == 144 - 16  # all but the 4 x 4 in the middle
    assert not outline(np.full((8, 8), 1, np.uint8)).any()  # the frame's border is no outline


def test_frames_are_evenly_spaced() -> None:
    assert evenly(50, 5) == [0, 12, 24, 37, 49]
    assert evenly(3, 5) == [0, 1, 2]
    assert evenly(9, 2) == [0, 8]
    assert evenly(9, 1) == [0]


def test_a_strip_has_image_target_and_prediction(sequence: DavisSequence, masks: Path) -> None:
    scores = score_sequence(sequence, lambda index: np.roll(sequence.mask(index), 5 * index, axis=1))
    sheet = strip(sequence, masks, scores, "someone", frames=3)
    tile = (STRIP_TILE_PX, STRIP_TILE_PX * 224 // 320)
    assert sheet.width > 3 * tile[0]
    assert sheet.height > 3 * tile[1]
    pixels = np.asarray(sheet)
    first = np.asarray(sequence.frame(0).resize(tile, Image.Resampling.LANCZOS))
    top, left = 110, 12
    assert np.array_equal(pixels[top : top + tile[1], left : left + tile[0]], first)
    target, prediction = (
        pixels[top : top + tile[1], left + column * (tile[0] + left) :][:, : tile[0]] for column in (1, 2)
    )
    assert np.array_equal(target, prediction)  # the first mask is given
    assert not np.array_equal(target, first)


def test_an_animation_has_every_frame_of_a_short_sequence(sequence: DavisSequence, masks: Path) -> None:
    scores = score_sequence(sequence, sequence.mask)
    with Image.open(io.BytesIO(animation(sequence, masks, scores))) as shown:
        assert shown.n_frames == 5
        assert shown.info["loop"] == 0
        shown.seek(4)
        moved = np.asarray(shown.convert("RGB")).copy()
        shown.seek(0)
        assert not np.array_equal(moved, np.asarray(shown.convert("RGB")))


def test_both_files_are_written(sequence: DavisSequence, masks: Path, tmp_path: Path) -> None:
    scores = score_sequence(sequence, sequence.mask)
    written = write_pictures(tmp_path / "new" / "pictures", sequence, masks, scores)
    assert [path.name for path in written] == ["shapes-00.png", "shapes-00.gif"]
    assert all(path.is_file() for path in written)
    (tmp_path / "file").write_text("")
    with pytest.raises(UserError, match="cannot make the folder"):
        write_pictures(tmp_path / "file" / "pictures", sequence, masks, scores)
