"""The bilinear resize without OpenCV: OpenCV's own numbers, and its formula written pixel by pixel."""

from __future__ import annotations

import math

import numpy as np
import pytest

from ssl_bench.evaluators.davis.opencv_resize import resize_bilinear

IMAGE = np.array([[95, 130, 194, 217, 207], [235, 15, 163, 33, 215], [217, 130, 248, 189, 16]], dtype=np.uint8)
# cv2.resize(IMAGE, (columns, rows)).tolist() of OpenCV 5.0.0 and 4.10.0
BY_OPENCV = {
    (4, 4): [[99, 154, 208, 208], [167, 102, 129, 198], [207, 109, 130, 134], [206, 174, 211, 37]],
    (7, 2): [[121, 214], [114, 195], [92, 137], [70, 79], [105, 107], [140, 136], [152, 146]],
    (3, 9): [
        [95, 107, 126, 158, 194, 207, 216, 210, 207],
        [235, 162, 39, 81, 163, 91, 53, 154, 215],
        [217, 188, 140, 182, 248, 215, 170, 74, 16],
    ],
    (4, 3): [[107, 194, 210], [141, 175, 175], [171, 195, 124], [188, 248, 73]],
}


@pytest.mark.parametrize("size", BY_OPENCV)
def test_as_opencv_gives_it(size: tuple[int, int]) -> None:
    assert resize_bilinear(IMAGE[:, :, None], *size)[:, :, 0].tolist() == BY_OPENCV[size]


@pytest.mark.parametrize(
    "sizes", [((24, 43), (24, 40)), ((43, 24), (40, 24)), ((12, 21), (24, 40)), ((40, 60), (20, 30))]
)
def test_the_formula(sizes: tuple[tuple[int, int], tuple[int, int]]) -> None:
    """Bilinear at (i + 0.5) scale - 0.5, edges repeated, unrounded: OpenCV rounds, and truncates, to within a level."""
    (rows, columns), (height, width) = sizes
    image = np.random.default_rng(0).integers(0, 256, (rows, columns, 3), dtype=np.uint8)
    ours = resize_bilinear(image, height, width)
    assert ours.shape == (height, width, 3)
    assert ours.dtype == np.uint8
    for y in range(height):
        for x in range(width):
            down, right = (y + 0.5) * rows / height - 0.5, (x + 0.5) * columns / width - 0.5
            exact = np.zeros(3)
            for row in (math.floor(down), math.floor(down) + 1):
                for column in (math.floor(right), math.floor(right) + 1):
                    pixel = image[min(max(row, 0), rows - 1), min(max(column, 0), columns - 1)]
                    exact += (1 - abs(down - row)) * (1 - abs(right - column)) * pixel
            assert np.abs(ours[y, x] - exact).max() < 1, (y, x)


def test_the_same_size_is_the_same_image() -> None:
    image = np.random.default_rng(1).integers(0, 256, (9, 11, 3), dtype=np.uint8)
    assert np.array_equal(resize_bilinear(image, 9, 11), image)


def test_there_is_no_antialiasing() -> None:
    """A quarter of the size skips pixels: stripes that a mean would turn gray stay what they are where it looks."""
    stripes = np.zeros((8, 64, 1), np.uint8)
    stripes[:, 1::4] = stripes[:, 2::4] = 255
    assert (resize_bilinear(stripes, 8, 16) == 255).all()
