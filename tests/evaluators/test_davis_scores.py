"""J and F of DAVIS against a slow scorer written from the definitions, cases worked by hand, and the official figures.

The slow scorer loops over objects and pixels and measures every distance; it shares nothing with the code it checks.
All comparisons are exact or within 1e-12, the rounding of a division.
"""

from __future__ import annotations

import json
import math
from pathlib import Path

import numpy as np
import pytest
from numpy.typing import NDArray

from ssl_bench.datasets.davis import open_davis
from ssl_bench.datasets.indexed_png import Mask, write_mask
from ssl_bench.errors import UserError
from ssl_bench.evaluators.davis.boundary import bound_px, boundary, boundary_f, dilate
from ssl_bench.evaluators.davis.results import check_results, score_results
from ssl_bench.evaluators.davis.scores import MEASURES, mean_measures, score_frame, score_sequence, statistics
from tests.davis_files import moving_square, real_data, square, write_davis, write_masks

SIZE = (100, 100)
"""Outlines match within 2 px: 0.008 * 141.4 = 1.13, rounded up."""


def slow_outline(mask: Mask) -> list[tuple[int, int]]:
    """Pixels unlike a neighbor to the right, below, or below right (seg2bmap of the Berkeley benchmark)."""
    height, width = mask.shape
    values = mask.tolist()
    return [
        (y, x)
        for y in range(height)
        for x in range(width)
        if any(
            values[j][i] != values[y][x]
            for j, i in ((y, x + 1), (y + 1, x), (y + 1, x + 1))
            if j < height and i < width
        )
    ]


def slow_share_near(points: list[tuple[int, int]], others: list[tuple[int, int]], radius: int) -> float:
    """Share of `points` with one of `others` at most `radius` away."""
    near = 0
    for y, x in points:
        rows, columns = np.array(others).T
        near += bool(((rows - y) ** 2 + (columns - x) ** 2 <= radius**2).any())
    return near / len(points)


def slow_scores(truth: Mask, result: Mask, objects: int) -> list[tuple[float, float]]:
    """J and F of each object (Perazzi et al. 2016, section 5)."""
    radius = math.ceil(0.008 * math.sqrt(truth.shape[0] ** 2 + truth.shape[1] ** 2))
    scores = []
    for k in range(1, objects + 1):
        ours, theirs = (truth == k).astype(np.uint8), (result == k).astype(np.uint8)
        union = int(np.maximum(ours, theirs).sum())
        j = int((ours * theirs).sum()) / union if union else 1.0
        of_truth, of_result = slow_outline(ours), slow_outline(theirs)
        if of_truth and of_result:
            precision = slow_share_near(of_result, of_truth, radius)
            recall = slow_share_near(of_truth, of_result, radius)
            f = 2 * precision * recall / (precision + recall) if precision + recall else 0.0
        else:
            f = 1.0 if not of_truth and not of_result else 0.0
        scores.append((j, f))
    return scores


def slow_statistics(values: NDArray[np.float64]) -> tuple[float, float, float]:
    """Four bins between five cuts, evenly spaced from 1 to n, rounded half up; a bin holds both of its cuts."""
    cuts = [math.floor(1 + (len(values) - 1) * part / 4 + 0.5) for part in range(5)]
    bins = [values[cuts[part] - 1 : cuts[part + 1]] for part in range(4)]
    above = sum(value > 0.5 for value in values) / len(values)
    return sum(values) / len(values), above, sum(bins[0]) / len(bins[0]) - sum(bins[3]) / len(bins[3])


def blobs(generator: np.random.Generator, objects: int) -> tuple[Mask, Mask]:
    """Two masks of rectangles over each other, often at the border, of like places, some objects missing."""
    height, width = generator.integers(1, 50, 2)
    masks = np.zeros((2, height, width), np.uint8)
    for k in range(1, objects + 1):
        top, left = generator.integers(-10, height), generator.integers(-10, width)
        tall, wide = generator.integers(1, 30, 2)
        for mask in masks:
            if generator.random() < 0.85:
                down, right = generator.integers(-3, 4, 2)
                rows, columns = (max(top + down, 0), top + down + tall), (max(left + right, 0), left + right + wide)
                mask[slice(rows[0], max(rows[1], 0)), slice(columns[0], max(columns[1], 0))] = k
    if generator.random() < 0.3:
        masks[generator.random(masks.shape) < 0.02] = generator.integers(0, objects + 1)
    return masks[0], masks[1]


def test_random_masks_score_as_the_slow_scorer_says() -> None:
    generator = np.random.default_rng(0)
    seen = []
    for _ in range(150):
        truth, result = blobs(generator, objects=3)
        scores = score_frame(truth, result, 3)
        assert np.allclose(scores, slow_scores(truth, result, 3), rtol=0, atol=1e-12), (truth.shape,)
        seen += scores.ravel().tolist()
    assert {0.0, 1.0} < set(seen)
    assert len(set(seen)) > 200  # the masks are neither all alike nor all apart


@pytest.mark.parametrize("radius", [1, 2, 3, 5, 8, 11])
def test_dilation_is_by_the_whole_disk_and_by_nothing_else(radius: int) -> None:
    generator = np.random.default_rng(radius)
    for share in (0.0, 0.003, 0.05, 1.0):
        points = generator.random((23, 31)) < share
        rows, columns = np.mgrid[:23, :31]
        wanted = np.zeros((23, 31), bool)
        for y, x in np.argwhere(points):
            wanted |= (rows - y) ** 2 + (columns - x) ** 2 <= radius**2
        assert np.array_equal(dilate(points, radius), wanted)


def test_tolerated_distance_grows_with_the_diagonal() -> None:
    """0.008 * 979.7 = 7.8 for 480 x 854; 0.008 * 494.2 = 3.95; 0.008 * 2202.9 = 17.6; 0.008 * 125 = 1 exactly."""
    assert [bound_px(*size) for size in ((480, 854), (240, 432), (1080, 1920), (100, 75), SIZE)] == [8, 4, 18, 1, 2]


def test_outlines_lie_up_and_left_and_respect_the_border() -> None:
    mask = np.array([[0, 0, 0, 0], [0, 1, 0, 0], [0, 0, 0, 1]], bool)
    assert boundary(mask).astype(int).tolist() == [[1, 1, 0, 0], [1, 1, 1, 1], [0, 0, 1, 0]]
    assert not boundary(np.ones((5, 4), bool)).any()


@pytest.mark.parametrize(
    ("shift", "j", "f"),
    [
        (0, 1.0, 1.0),
        (2, 18 / 22, 1.0),  # within the bound of 2 px
        # the outline is a ring of 21 x 21 with 80 pixels. Of the ring 3 px to the right, the 2 * 20 pixels of the rows
        # that are at most 2 px beyond the other's row match, and 2 px at each end of the side that starts between rows
        (3, 17 / 23, 44 / 80),
        (50, 0.0, 0.0),
    ],
)
def test_a_square_shifted_sideways(shift: int, j: float, f: float) -> None:
    scores = score_frame(square(30, 20, 20, SIZE), square(30, 20 + shift, 20, SIZE), 1)
    assert scores[0] == pytest.approx([j, f], abs=1e-12)


@pytest.mark.parametrize(
    ("truth", "result", "wanted"),
    [
        (0, 0, (1.0, 1.0)),
        (0, 1, (0.0, 0.0)),
        (1, 0, (0.0, 0.0)),
        (255, 0, (1.0, 1.0)),  # void is background
        (2, 0, (1.0, 1.0)),  # an object that the first mask did not show
        (2, 1, (0.0, 0.0)),
    ],
)
def test_objects_in_one_mask_only(truth: int, result: int, wanted: tuple[float, float]) -> None:
    masks = square(10, 10, 20, SIZE, value=truth), square(10, 10, 20, SIZE, value=result)
    assert tuple(score_frame(*masks, 1)[0]) == wanted


def test_an_object_that_fills_the_frame_has_no_outline() -> None:
    """As for the official scorer: full against full is 1, and against a part there is nothing to match."""
    full, part = np.ones((20, 30), bool), np.arange(600).reshape(20, 30) < 300
    assert boundary_f(full, full, 1) == 1
    assert boundary_f(full, part, 1) == 0
    assert score_frame(full.astype(np.uint8), part.astype(np.uint8), 1).tolist() == [[0.5, 0.0]]


@pytest.mark.parametrize(
    ("values", "mean", "recall", "decay"),
    [
        ([0.4], 0.4, 0.0, 0.0),
        ([1.0, 0.25], 0.625, 0.5, 0.75),  # cuts 1 1 2 2 2: first against second
        ([1.0, 0.5, 0.0], 0.5, 1 / 3, 0.75),  # cuts 1 2 2 3 3: halves go up, (1 + 0.5) / 2 against 0
        ([1.0, 0.8, 0.6, 0.4, 0.2], 0.6, 0.6, 0.6),  # cuts 1 2 3 4 5: 0.9 against 0.3
        ([0.5, 0.5000001, 1.0, 0.0], 0.500000025, 0.5, 0.00000005),  # 0.5 itself is not recalled; cuts 1 2 3 3 4
        ([0.0, 0.0, 1.0, 1.0], 0.5, 0.5, -1.0),  # getting better is a negative decay
    ],
)
def test_mean_recall_and_decay_by_hand(values: list[float], mean: float, recall: float, decay: float) -> None:
    assert statistics(np.array(values)) == pytest.approx((mean, recall, decay), abs=1e-7)


def test_the_bins_of_decay_for_every_length() -> None:
    generator = np.random.default_rng(0)
    for frames in range(1, 400):
        values = generator.random(frames)
        assert statistics(values) == pytest.approx(slow_statistics(values), abs=1e-12), frames


def test_first_and_last_frame_are_left_out(tmp_path: Path) -> None:
    """They are not even asked for; each of the others once, in order."""
    sequence = open_davis(write_davis(tmp_path, {"ball": moving_square(6)})).sequences[0]
    asked = []

    def result(frame: int) -> Mask:
        asked.append(frame)
        return sequence.mask(frame) if frame != 2 else np.zeros(sequence.size, np.uint8)

    (ball,) = score_sequence(sequence, result)
    assert asked == [1, 2, 3, 4]
    assert (ball.name, ball.j.tolist(), ball.f.tolist()) == ("ball_1", [1, 0, 1, 1], [1, 0, 1, 1])


def test_every_object_counts_the_same(tmp_path: Path) -> None:
    """Three objects in two sequences of unlike length: the mean is over the three, not over sequences or frames."""
    pair = [np.maximum(mask, square(0, 0, 5, (40, 60), value=2)) for mask in moving_square(8)]
    davis = write_davis(tmp_path, {"one": moving_square(4), "pair": pair})
    nothing = [np.zeros((40, 60), np.uint8)] * 8
    write_masks(tmp_path / "masks/one", nothing[:4])
    write_masks(tmp_path / "masks/pair", pair)
    scores = score_results(tmp_path / "masks", open_davis(davis).sequences)
    assert [one.name for one in scores] == ["one_1", "pair_1", "pair_2"]
    means = mean_measures(scores)
    assert tuple(means) == MEASURES
    assert means == pytest.approx({name: 0.0 if "Decay" in name else 2 / 3 for name in MEASURES}, abs=1e-12)


def test_objects_missing_from_a_result_count_as_empty(tmp_path: Path) -> None:
    truth = [np.maximum(mask, square(0, 0, 5, (40, 60), value=2)) for mask in moving_square(4)]
    write_masks(tmp_path / "masks/pair", [np.where(mask == 2, 0, mask).astype(np.uint8) for mask in truth])
    sequences = open_davis(write_davis(tmp_path, {"pair": truth})).sequences
    first, second = score_results(tmp_path / "masks", sequences)
    assert (first.j.tolist(), second.j.tolist(), second.f.tolist()) == ([1, 1], [0, 0], [0, 0])


def test_a_result_is_refused_before_any_scoring(tmp_path: Path) -> None:
    sequences = open_davis(write_davis(tmp_path, {"a": moving_square(4), "b": moving_square(4)})).sequences
    write_masks(tmp_path / "masks/a", moving_square(4))
    write_masks(tmp_path / "masks/b", moving_square(2))
    said: list[str] = []
    with pytest.raises(UserError, match=r"b/00002\.png is missing: 1 of the 2"):
        score_results(tmp_path / "masks", sequences, say=said.append)
    assert said == []


def test_only_scored_frames_need_a_mask(tmp_path: Path) -> None:
    sequences = open_davis(write_davis(tmp_path, {"a": moving_square(4)})).sequences
    (tmp_path / "masks/a").mkdir(parents=True)
    for frame in (1, 2):
        write_mask(tmp_path / f"masks/a/{frame:05d}.png", moving_square(4)[frame])
    check_results(tmp_path / "masks", sequences)
    assert mean_measures(score_results(tmp_path / "masks", sequences))["J&F-Mean"] == 1


def test_masks_of_osvos_score_as_the_official_scorer_says() -> None:
    """`osvos_expected.json` has the official scorer's figures in full: equal within 1e-12."""
    real = real_data("davis2017") / "davis2017"
    expected = json.loads((real / "osvos_expected.json").read_text())
    scores = score_results(real / "osvos_masks", open_davis(real).sequences)
    assert [one.name for one in scores] == list(expected)
    for one in scores:
        measures = one.measures()
        assert measures["J-Mean"] == pytest.approx(expected[one.name]["J"], abs=1e-12)
        assert measures["F-Mean"] == pytest.approx(expected[one.name]["F"], abs=1e-12)


def test_seven_real_objects_against_a_shifted_copy() -> None:
    (sequence,) = open_davis(real_data("davis2017-multi") / "davis2017-multi").sequences

    def shifted(frame: int) -> Mask:
        mask = np.zeros(sequence.size, np.uint8)
        mask[3:, :-4] = sequence.mask(frame)[:-3, 4:]
        return mask

    for one in score_sequence(sequence, sequence.mask):
        assert (set(one.j), set(one.f)) == ({1.0}, {1.0}), one.name
    scores = score_sequence(sequence, shifted)
    assert len(scores) == 7
    for frame in (20, 78):
        wanted = slow_scores(sequence.mask(frame), shifted(frame), 7)
        found = [(one.j[frame - 1], one.f[frame - 1]) for one in scores]
        assert np.allclose(found, wanted, rtol=0, atol=1e-12)
        assert 0 < min(f for _, f in wanted) < 1
