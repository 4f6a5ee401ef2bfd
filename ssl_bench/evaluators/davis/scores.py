"""J and F of DAVIS 2017, semi-supervised: how well masks follow the objects that the first frame's mask shows.

J is the Jaccard index of the masks (region), F compares their outlines (davis_boundary). As the released scorer
davis2017-evaluation computes them: per object and frame, the first frame (given) and the last left out; void pixels of
the truth are background; an object that neither mask shows scores 1; mean, recall and decay over an object's frames,
then the mean over the objects of all sequences alike.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from ssl_bench.datasets.davis import DavisSequence
from ssl_bench.datasets.indexed_png import Mask
from ssl_bench.evaluators.davis.boundary import Binary, bound_px, boundary_f

MEASURES = ("J&F-Mean", "J-Mean", "J-Recall", "J-Decay", "F-Mean", "F-Recall", "F-Decay")
"""Named and ordered as the released scorer's global results."""
RECALLED = 0.5
"""A frame counts for recall above this score."""


class Statistics(NamedTuple):
    """Of one object over its scored frames, 0 to 1: `decay` is the first quarter's mean less the last quarter's."""

    mean: float
    recall: float
    decay: float


class ObjectScores(NamedTuple):
    """One object: `name` is SEQUENCE_NUMBER as in the released scorer's file, `j` and `f` hold one value per frame."""

    name: str
    j: NDArray[np.float64]
    f: NDArray[np.float64]

    def measures(self) -> dict[str, float]:
        """The `MEASURES` of this object."""
        j, f = statistics(self.j), statistics(self.f)
        return dict(zip(MEASURES, ((j.mean + f.mean) / 2, *j, *f), strict=True))


def score_sequence(sequence: DavisSequence, result: Callable[[int], Mask]) -> list[ObjectScores]:
    """Scores of each object of `sequence`; `result(i)` is the mask to score for frame i, asked for once, in order.

    The first and the last frame are not asked for. Raises `UserError` for a truth that cannot be read.
    """
    scored, objects = range(1, len(sequence) - 1), sequence.objects()
    scores = np.empty((len(scored), objects, 2))
    for row, frame in zip(scores, scored, strict=True):
        row[:] = score_frame(sequence.mask(frame), result(frame), objects)
    return [ObjectScores(f"{sequence.name}_{k + 1}", scores[:, k, 0], scores[:, k, 1]) for k in range(objects)]


def score_frame(truth: Mask, result: Mask, objects: int) -> NDArray[np.float64]:
    """(objects, 2): J and F of objects 1 to `objects` in one frame. Other values of either mask count as background."""
    assert truth.shape == result.shape, (truth.shape, result.shape)
    radius_px = bound_px(*truth.shape)
    return np.array([_score_object(truth == k, result == k, radius_px) for k in range(1, objects + 1)])


def statistics(per_frame: NDArray[np.float64]) -> Statistics:
    """Mean, share of frames above 0.5, and decay of one object's (frames,) scores.

    The quarters for decay overlap by a frame and are cut where the released scorer cuts them (utils.db_statistics).
    It holds the cuts in 8 bits, which is right up to 256 frames, and DAVIS has no longer sequence; here they are whole.
    """
    last = len(per_frame) - 1
    # 1 + last / 4 and 1 + 3 last / 4 counted from 1 and rounded, halves up
    first_quarter, last_quarter = (int(np.round(1 + last * part + 1e-10)) - 1 for part in (0.25, 0.75))
    decay = per_frame[: first_quarter + 1].mean() - per_frame[last_quarter:].mean()
    return Statistics(float(per_frame.mean()), float((per_frame > RECALLED).mean()), float(decay))


def mean_measures(objects: Sequence[ObjectScores]) -> dict[str, float]:
    """The `MEASURES` over all objects: each object counts the same, whatever its sequence's length or object count."""
    each = [scores.measures() for scores in objects]
    return {name: float(np.mean([measures[name] for measures in each])) for name in MEASURES}


def _score_object(truth: Binary, result: Binary, radius_px: int) -> tuple[float, float]:
    either = truth | result
    if not either.any():
        return 1.0, 1.0
    rows = _span(np.flatnonzero(either.any(axis=1)))
    box = rows, _span(np.flatnonzero(either[rows].any(axis=0)))
    truth, result = truth[box], result[box]
    union = np.count_nonzero(either[box])
    overlap = np.count_nonzero(truth) + np.count_nonzero(result) - union
    return overlap / union, boundary_f(truth, result, radius_px)


def _span(places: NDArray[np.intp]) -> slice:
    """From one before the first to one after the last: outlines lie up and left, and need what is beside the object."""
    return slice(max(int(places[0]) - 1, 0), int(places[-1]) + 2)
