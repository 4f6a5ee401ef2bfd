"""Labels never overlap, keep their order, and move least: against scikit-learn's isotonic regression."""

from __future__ import annotations

from itertools import pairwise

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from sklearn.isotonic import isotonic_regression

from ssl_bench.figures.labels import spread_out

LABELS = st.lists(st.tuples(st.floats(-0.2, 1.2), st.floats(0.01, 0.2)), min_size=1, max_size=8)


@given(labels=LABELS)
def test_labels_are_apart_and_moved_least(labels: list[tuple[float, float]]) -> None:
    wanted, heights = [w for w, _ in labels], [h for _, h in labels]
    found = spread_out(wanted, heights, low=-100.0, high=100.0)
    order = sorted(range(len(wanted)), key=lambda index: wanted[index])
    offsets = np.cumsum([0.0, *((heights[a] + heights[b]) / 2 for a, b in pairwise(order))])
    expected = isotonic_regression(np.array([wanted[index] for index in order]) - offsets) + offsets
    assert [found[index] for index in order] == pytest.approx(list(expected), abs=1e-9)
    for one, other in pairwise(order):
        assert found[other] - found[one] >= (heights[one] + heights[other]) / 2 - 1e-9


def test_labels_stay_within_the_axes_while_they_fit() -> None:
    assert spread_out([1.2, 1.1], [0.1, 0.1]) == pytest.approx([1.0, 0.9])
    assert spread_out([-1.0, -1.0], [0.1, 0.1]) == pytest.approx([0.0, 0.1])
    assert spread_out([], []) == []
