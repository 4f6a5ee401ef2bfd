"""k-means: the matching of clusters and classes against all permutations, and cases with a known answer."""

from __future__ import annotations

from itertools import permutations

import numpy as np
import pytest
import torch

from ssl_bench.errors import UserError
from ssl_bench.evaluators.kmeans import KMeans, matched
from tests.evaluators.on_features import clusters, measure


@pytest.mark.parametrize(("classes", "found"), [(4, 4), (3, 5), (5, 3)])
def test_the_matching_is_the_best_of_all_permutations(classes: int, found: int) -> None:
    random = np.random.default_rng(classes)
    truth, cluster = random.integers(0, classes, 80), random.integers(0, found, 80)
    truth[:classes], cluster[:found] = range(classes), range(found)
    side = max(classes, found)
    best = max(sum(order[one] == other for one, other in zip(cluster, truth, strict=True))
               for order in permutations(range(side)))  # fmt: skip
    assert matched(truth, cluster).sum() == best


def test_clusters_far_apart_are_found_whatever_their_order() -> None:
    train, test = clusters(60, noise=0.01), clusters(30, noise=0.01, seed=1)
    found = measure(KMeans, train, (test[0], (test[1] + 1) % 3))
    assert {name: one.value for name, one in found.items()} == pytest.approx({"accuracy": 100, "nmi": 100, "ari": 100})
    assert found["accuracy"].interval is not None


def test_nmi_and_ari_from_their_definitions() -> None:
    train, test = clusters(90, noise=1.5), clusters(90, noise=1.5, seed=1)
    found = measure(KMeans, train, test)
    from sklearn.cluster import KMeans as Clustering

    unit = torch.nn.functional.normalize(train[0], dim=1).numpy()
    model = Clustering(3, n_init=10, random_state=0).fit(unit)
    cluster = model.predict(torch.nn.functional.normalize(test[0], dim=1).numpy())
    table = np.array([[np.sum((cluster == c) & (test[1].numpy() == t)) for c in range(3)] for t in range(3)])
    joint, rows, columns = table / 90, table.sum(1) / 90, table.sum(0) / 90
    mutual = sum(
        p * np.log(p / (rows[i] * columns[j])) for (i, j), p in np.ndenumerate(joint) if p
    )  # fmt: skip
    entropy = [-np.sum(p[p > 0] * np.log(p[p > 0])) for p in (rows, columns)]
    assert found["nmi"].value == pytest.approx(100 * mutual / np.mean(entropy), abs=1e-9)
    pairs, inside = lambda n: n * (n - 1) / 2, None
    inside = sum(pairs(n) for n in table.ravel())
    a, b = sum(map(pairs, table.sum(1))), sum(map(pairs, table.sum(0)))
    expected = a * b / pairs(90)
    assert found["ari"].value == pytest.approx(100 * (inside - expected) / ((a + b) / 2 - expected), abs=1e-9)


def test_clusters_may_be_chosen_and_not_more_than_images() -> None:
    train, test = clusters(12), clusters(12, seed=1)
    assert measure(KMeans, train, test, clusters=5)["accuracy"].protocol.fields["clusters"] == 5
    with pytest.raises(UserError, match=r"'kmeans\.clusters' = 13 is more than the 12 training images"):
        measure(KMeans, train, test, clusters=13)
