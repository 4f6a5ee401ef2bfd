"""Attention masks and their Jaccard against slow definitions, pixel by pixel, and cases worked by hand."""

from __future__ import annotations

import math
from fractions import Fraction

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from ssl_bench.evaluators.voc_jaccard.attention_masks import (
    ImageScores,
    box_jaccards,
    jaccards,
    joined,
    keep_mass,
    pixels_in_patches,
    score_image,
    score_set,
    true_values,
    upsampled,
)


def kept_slowly(values: list[float], share: Fraction) -> list[bool]:
    """Patches by falling value (of equal ones the later first) until their exact sum reaches the share."""
    exact = [Fraction(value) for value in values]
    order = sorted(range(len(values)), key=lambda i: (-exact[i], -i))
    kept, mass = [False] * len(values), Fraction(0)
    for index in order:
        if mass >= share * sum(exact):
            break
        kept[index] = True
        mass += exact[index]
    return kept


def jaccard_slowly(predicted: np.ndarray, mask: np.ndarray, value: int) -> float:
    both = either = 0
    for seen, true in zip(predicted.ravel().tolist(), mask.ravel().tolist(), strict=True):
        if true == 255:
            continue
        both += seen and true == value
        either += seen or true == value
    return both / either


# the mass


def test_the_mass_by_hand() -> None:
    assert keep_mass(np.array([0.5, 0.125, 0.25, 0.125]), 0.6).tolist() == [True, False, True, False]
    assert keep_mass(np.array([0.5, 0.125, 0.25, 0.125]), 0.5).tolist() == [True, False, False, False]
    # equal patches at the boundary: the later ones are kept
    assert keep_mass(np.array([0.25, 0.25, 0.25, 0.25]), 0.5).tolist() == [False, False, True, True]
    assert keep_mass(np.array([0.2, 0.1, 0.2]) * 7, 1e-9).tolist() == [False, False, True]


@given(st.lists(st.integers(1, 10**6), min_size=1, max_size=40), st.integers(1, 1023))
@settings(max_examples=300, deadline=None)
def test_the_mass_is_the_smallest_set_that_holds_it(values: list[int], part: int) -> None:
    share = Fraction(part, 1024)
    found = keep_mass(np.array(values, float), float(share)).tolist()
    expected = kept_slowly(values, share)
    boundary = {sum(sorted(values)[:count]) for count in range(len(values))}
    if (1 - share) * sum(values) not in boundary:  # an exact hit is a tie that rounding decides
        assert found == expected
    assert sum(found) in (sum(expected), sum(expected) + 1)


def test_the_mass_is_that_of_the_authors_script() -> None:
    """visualize_attention.py's steps in float64: sort ascending, sum up, keep what lies above 1 - threshold."""
    maps = torch.rand(6, 49, dtype=torch.float64, generator=torch.Generator().manual_seed(0)) ** 3
    ascending, index = torch.sort(maps)
    above = torch.cumsum(ascending / ascending.sum(dim=1, keepdim=True), dim=1) > 1 - 0.6
    back = torch.argsort(index)
    expected = torch.stack([above[head][back[head]] for head in range(6)])
    assert np.array_equal(keep_mass(maps.numpy(), 0.6), expected.numpy())


# pixels


def test_pixels_belong_to_the_patch_that_holds_their_center() -> None:
    patches = np.array([[True, False, False], [False, True, True]])
    # 5 rows over 2 patches: centers 0.5 1.5 | 2.5 3.5 4.5 of 5, the middle one at 2.5 belongs to the second
    expected = np.array([[1, 1, 0, 0, 0, 0, 0]] * 2 + [[0, 0, 1, 1, 1, 1, 1]] * 3, bool)
    assert np.array_equal(upsampled(patches, (5, 7)), expected)
    whole = torch.nn.functional.interpolate(torch.from_numpy(patches)[None, None].float(), scale_factor=4)[0, 0] > 0
    assert np.array_equal(upsampled(patches, (8, 12)), whole.numpy())  # whole patches: PyTorch's "nearest"


@pytest.mark.parametrize(("size", "grid"), [((12, 16), (3, 4)), ((23, 17), (5, 3)), ((4, 5), (6, 7))])
def test_jaccard_counted_in_patches_is_that_of_pixels(size: tuple[int, int], grid: tuple[int, int]) -> None:
    random = np.random.default_rng(0)
    mask = random.choice(np.array([0, 3, 9, 255], np.uint8), size)
    kept = random.random((5, grid[0] * grid[1])) < 0.4
    found = jaccards(kept, pixels_in_patches(mask, grid), [3, 9])
    for head in range(5):
        full = upsampled(kept[head].reshape(grid), size)
        for row, value in enumerate((3, 9)):
            assert found[row, head] == pytest.approx(jaccard_slowly(full, mask, value), abs=1e-12)


def test_jaccard_by_hand_with_void() -> None:
    #  1 1 | 0 255        kept: left half. Class 1 has 3 pixels, 2 of them kept; void counts for nothing.
    #  255 0 | 1 0        kept and not void: 1 1 0 -> union 3 + 3 - 2 = 4
    mask = np.array([[1, 1, 0, 255], [255, 0, 1, 0]], np.uint8)
    found = jaccards(np.array([[True, False]]), pixels_in_patches(mask, (1, 2)), [1])
    assert found.tolist() == [[2 / 4]]


def test_true_values_leave_out_background_and_void() -> None:
    classes = np.array([[0, 5, 5], [9, 255, 0]], np.uint8)
    assert joined(classes).tolist() == [[0, 1, 1], [1, 255, 0]]
    assert true_values(classes) == [5, 9]
    assert true_values(np.array([[0, 255]], np.uint8)) == []


# baselines


@pytest.mark.parametrize("size", [(40, 60), (41, 33), (7, 5)])
def test_whole_image_and_center_box_by_formula(size: tuple[int, int]) -> None:
    mask = np.random.default_rng(1).choice(np.array([0, 2, 255], np.uint8), size)
    found = box_jaccards(mask, [2])
    side = math.sqrt(0.5)
    box = np.zeros(size, bool)
    for y in range(size[0]):
        for x in range(size[1]):
            box[y, x] = abs(y + 0.5 - size[0] / 2) < side * size[0] / 2 and abs(x + 0.5 - size[1] / 2) < (
                side * size[1] / 2
            )
    assert found[0, 0] == pytest.approx((mask == 2).sum() / (mask != 255).sum(), abs=1e-12)
    assert found[0, 1] == pytest.approx(jaccard_slowly(box, mask, 2), abs=1e-12)


def test_the_center_box_has_half_the_area() -> None:
    mask = np.ones((1000, 1500), np.uint8)
    assert box_jaccards(mask, [1])[0] == pytest.approx([1.0, 0.5], abs=1e-3)


# heads


def test_the_rules_by_hand() -> None:
    """Two images, three heads: by mask (0.9 + 0.8) / 2 and 0.7; by image 0.6 (head 2) and 0.7; alone head 2 or 3."""
    first = ImageScores(np.array([[0.9, 0.4, 0.1], [0.1, 0.8, 0.2]]), np.array([0.2, 0.4]), np.full((2, 2), 0.25))
    second = ImageScores(np.array([[0.0, 0.5, 0.7]]), np.array([0.5]), np.array([[0.35, 0.75]]))
    by_mask = score_set([first, second], "mask")
    assert by_mask.best_head == pytest.approx([0.85, 0.7], abs=1e-12)
    assert by_mask.best_single_head == pytest.approx([0.6, 0.5], abs=1e-12)
    assert by_mask.single_head == 1
    assert by_mask.average_head == pytest.approx([(0.5 + 0.6 + 0.15) / 3, 0.4], abs=1e-12)
    assert by_mask.mean_map == pytest.approx([0.3, 0.5], abs=1e-12)
    assert by_mask.whole_image == pytest.approx([0.25, 0.35], abs=1e-12)
    assert by_mask.center_box == pytest.approx([0.25, 0.75], abs=1e-12)
    assert score_set([first, second], "image").best_head == pytest.approx([0.6, 0.7], abs=1e-12)


def test_an_image_is_scored_as_written_slowly() -> None:
    random = np.random.default_rng(2)
    maps, mask = random.random((3, 4, 5)) ** 4, random.choice(np.array([0, 6, 8, 255], np.uint8), (37, 43))
    found = score_image(maps, mask, [6, 8], 0.6)
    for head, one in enumerate([*maps, maps.mean(axis=0)]):
        kept = np.array(kept_slowly(one.ravel().tolist(), Fraction(6, 10))).reshape(4, 5)
        for row, value in enumerate((6, 8)):
            expected = jaccard_slowly(upsampled(kept, (37, 43)), mask, value)
            value_found = found.mean_map[row] if head == 3 else found.heads[row, head]
            assert value_found == pytest.approx(expected, abs=1e-12)
