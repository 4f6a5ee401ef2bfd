"""Intervals against scipy's bootstrap and t tests, closed forms, a slow cluster bootstrap, and their coverage."""

from __future__ import annotations

import math

import numpy as np
import pytest
from scipy import stats

from ssl_bench.measurement import Outcomes
from ssl_bench.records.bootstrap import mean_interval, paired_interval, seeds_interval


def bits(share: float, n: int, seed: int = 0) -> Outcomes:
    return Outcomes.of(np.random.default_rng(seed).random(n) < share)


def constant(value: float, n: int = 50) -> Outcomes:
    return Outcomes.of(np.full(n, value))


@pytest.mark.parametrize(("share", "n"), [(0.5, 2000), (0.9, 300), (0.03, 500)])
def test_of_right_and_wrong_the_ends_are_those_of_the_binomial_distribution(share: float, n: int) -> None:
    found = bits(share, n)
    hits = int(found.values.sum())
    expected = stats.binom.ppf([0.025, 0.975], n, hits / n)
    assert mean_interval([found]) == pytest.approx(100 * expected / n, abs=1.01 * 100 / n), "one item more or less"


@pytest.mark.parametrize("n", [40, 400])
def test_of_scores_the_ends_are_those_of_scipys_bootstrap(n: int) -> None:
    scores = np.random.default_rng(3).beta(2, 5, n) * 100
    oracle = stats.bootstrap(
        (scores,), np.mean, n_resamples=10_000, method="percentile", random_state=np.random.default_rng(7)
    ).confidence_interval
    width = oracle.high - oracle.low
    assert mean_interval([Outcomes.of(scores)]) == pytest.approx((oracle.low, oracle.high), abs=0.03 * width)


def test_clusters_are_drawn_whole() -> None:
    random = np.random.default_rng(4)
    clusters = np.repeat(np.arange(12), random.integers(1, 6, 12))
    scores = (random.normal(50, 20, 12)[clusters] + random.normal(0, 2, len(clusters))).astype(np.float32)
    means = []
    for _ in range(3000):
        drawn = [scores[clusters == one] for one in random.integers(0, 12, 12)]
        means.append(np.concatenate(drawn).mean())
    low, high = np.quantile(means, [0.025, 0.975])
    assert mean_interval([Outcomes.of(scores, clusters)]) == pytest.approx((low, high), abs=0.06 * (high - low))
    alone = mean_interval([Outcomes.of(scores)])
    assert alone[1] - alone[0] < 0.8 * (high - low), "as if they were independent it would be too narrow"


@pytest.mark.parametrize("values", [(50.0, 53.0), (50.0, 53.0, 51.0), (40.0, 41.0, 42.5, 40.5, 39.0)])
def test_where_only_seeds_differ_it_is_students_interval(values: tuple[float, ...]) -> None:
    expected = stats.t.interval(0.95, len(values) - 1, np.mean(values), stats.sem(values))
    assert mean_interval([constant(one) for one in values]) == pytest.approx(expected, rel=2e-3)
    assert seeds_interval(values, [(one, one) for one in values]) == pytest.approx(expected)


@pytest.mark.parametrize(("one", "other"), [((50.0, 53.0, 51.0), (54.0, 55.0)), ((50.0,), (54.0, 55.0, 57.0))])
def test_where_only_seeds_differ_the_difference_is_that_of_the_two_sample_t_test(
    one: tuple[float, ...], other: tuple[float, ...]
) -> None:
    if len(one) > 1:
        expected = stats.ttest_ind(other, one).confidence_interval(0.95)
    else:  # scipy refuses a single value: the pooled variance is that of the others
        half = stats.t.ppf(0.975, 2) * np.std(other, ddof=1) * math.sqrt(1 + 1 / 3)
        expected = (np.mean(other) - one[0] - half, np.mean(other) - one[0] + half)
    found = paired_interval([constant(value) for value in one], [constant(value) for value in other])
    assert found == pytest.approx(tuple(expected), abs=0.01)


def test_a_paired_difference_is_the_bootstrap_of_the_items_differences() -> None:
    one = bits(0.6, 500)
    other = Outcomes.of(one.values ^ (np.random.default_rng(9).random(500) < 0.05))
    change = other.in_unit - one.in_unit
    oracle = stats.bootstrap(
        (change,), np.mean, n_resamples=10_000, method="percentile", random_state=np.random.default_rng(7)
    ).confidence_interval
    low, high = paired_interval([one], [other])
    assert (low, high) == pytest.approx((oracle.low, oracle.high), abs=0.21), "0.2 % is one item"
    apart = [mean_interval([run]) for run in (one, other)]
    assert high - low < 0.5 * (apart[0][1] - apart[0][0]), "shared luck cancels out"


@pytest.mark.parametrize("seeds", [1, 2, 3])
@pytest.mark.parametrize("kind", ["bits", "values", "clusters", "even"])
def test_the_opposite_difference_has_the_mirror_image_of_the_interval(kind: str, seeds: int) -> None:
    random = np.random.default_rng(seeds)
    clusters = np.sort(random.integers(30, size=200)).astype(np.int32) if kind == "clusters" else None

    def row(better: float) -> list[Outcomes]:
        if kind == "bits":
            return [Outcomes.of(random.random(200) < 0.5 + better) for _ in range(seeds)]
        if kind == "even":  # as many items for one as for the other: a difference of 0
            return [Outcomes.of(np.arange(200) % 2 == (better > 0)) for _ in range(seeds)]
        return [Outcomes.of(random.random(200) + better, clusters=clusters) for _ in range(seeds)]

    one, other = row(0.0), row(0.03)
    low, high = paired_interval(one, other)
    assert paired_interval(other, one) == pytest.approx((-high, -low), abs=1e-9)


@pytest.mark.parametrize(("seeds", "between"), [(1, 0.0), (3, 0.05)])
def test_an_interval_holds_the_truth_in_95_of_100_studies(seeds: int, between: float) -> None:
    """Items differ in how hard they are, seeds in how good they are: would another study have found the same?"""
    random = np.random.default_rng(seeds)
    studies, held = 300, 0
    for _ in range(studies):
        easy = random.uniform(0.3, 0.7, 150)
        runs = [Outcomes.of(random.random(150) < easy + random.normal(0, between)) for _ in range(seeds)]
        low, high = mean_interval(runs)
        held += low <= 50 <= high
    assert 0.925 <= held / studies <= 0.985


def test_without_outcomes_reach_and_seeds_are_added_in_quadrature() -> None:
    # both seeds reach 2 below and 1 above; Student: 12.706 * sqrt(2 / 2) for 49 and 51
    low, high = seeds_interval([49.0, 51.0], [(47.0, 50.0), (49.0, 52.0)])
    assert 50 - low == pytest.approx(math.hypot(2, 12.7062047), rel=1e-6)
    assert high - 50 == pytest.approx(math.hypot(1, 12.7062047), rel=1e-6)
    assert seeds_interval([49.0], [(47.0, 50.0)]) == pytest.approx((47, 50))


def test_the_same_outcomes_give_the_same_ends_and_other_items_are_refused() -> None:
    assert mean_interval([bits(0.5, 100)]) == mean_interval([bits(0.5, 100)])
    with pytest.raises(ValueError, match="different test items"):
        mean_interval([bits(0.5, 100), bits(0.5, 101)])
    with pytest.raises(ValueError, match="different test items"):
        paired_interval([bits(0.5, 100)], [Outcomes.of(np.ones(100), np.arange(100))])
