"""Logistic regression: scikit-learn's own on the same features, and sets so small that folds are hard to draw."""

from __future__ import annotations

import warnings

import numpy as np
import pytest
import torch
from sklearn.linear_model import LogisticRegression as Classifier
from sklearn.model_selection import StratifiedKFold

from ssl_bench.errors import UserError
from ssl_bench.evaluators.logistic_regression import LogisticRegression
from tests.evaluators.on_features import clusters, measure

TRAIN, TEST = clusters(90, noise=1.2), clusters(60, noise=1.2, seed=1)
FEW = (1e-4, 1e-2, 1.0)


def scaled(scaling: str, fitted: np.ndarray, vectors: np.ndarray) -> np.ndarray:
    if scaling == "standardized":
        return (vectors - fitted.mean(0)) / fitted.std(0)
    return vectors / np.linalg.norm(vectors, axis=1, keepdims=True) if scaling == "l2-normalized" else vectors


@pytest.mark.parametrize(
    ("scaling", "seed"), [("standardized", 0), ("standardized", 1), ("l2-normalized", 0), ("raw", 0)]
)
def test_it_is_scikit_learns_own_with_the_best_c_of_the_folds(scaling: str, seed: int) -> None:
    vectors, labels = TRAIN[0].double().numpy(), TRAIN[1].numpy()
    queries, truth = TEST[0].double().numpy(), TEST[1].numpy()

    def predictions(strength: float, rows: np.ndarray, asked: np.ndarray) -> np.ndarray:
        model = Classifier(C=strength, max_iter=1000).fit(scaled(scaling, vectors[rows], vectors[rows]), labels[rows])
        return model.predict(scaled(scaling, vectors[rows], asked))

    folds = list(StratifiedKFold(5, shuffle=True, random_state=seed).split(vectors, labels))
    scores = [
        np.mean([np.mean(predictions(strength, kept, vectors[out]) == labels[out]) for kept, out in folds])
        for strength in FEW
    ]
    best = FEW[int(np.argmax(scores))]  # of equal ones the smallest
    right = predictions(best, np.arange(len(labels)), queries) == truth
    found = measure(LogisticRegression, TRAIN, TEST, seed=seed, strengths=FEW, scaling=scaling)
    assert found["top1"].value == pytest.approx(100 * right.mean(), abs=1e-9)
    assert f"C = {best:g}, cross-validated {100 * max(scores):.2f} %, 90 images" in found["top1"].details
    by_class = [right[truth == label].mean() for label in range(3)]
    assert found["mean_class_top1"].value == pytest.approx(100 * np.mean(by_class))
    assert 40 < found["top1"].value < 100, "or the case is too easy to tell anything"


def test_the_measurement_has_an_interval_and_a_protocol() -> None:
    found = measure(LogisticRegression, TRAIN, TEST, strengths=FEW)["top1"]
    assert found.n == 60
    assert found.interval is not None
    assert found.interval[0] < found.value < found.interval[1]
    assert found.protocol.fields["strengths"] == FEW
    assert (
        found.protocol.text == "logistic regression, L-BFGS, l2 penalty, standardized features, C by 5-fold stratified "
        "cross-validation from 0.0001 0.01 1, at most 1000 iterations, trained on all of train, as is"
    )


def test_scale_and_place_of_features_do_not_matter() -> None:
    moved = [(1000 * vectors - 3, labels) for vectors, labels in (TRAIN, TEST)]
    one, other = (measure(LogisticRegression, *sets, strengths=FEW)["top1"] for sets in (moved, (TRAIN, TEST)))
    assert one.value == other.value


@pytest.mark.parametrize(
    ("labels", "folds"),
    [([0] * 20 + [1], 5), ([0, 0, 1, 1], 2), ([0, 1, 2], 0), ([1] * 6, 5), ([0, 0, 0, 1, 2, 3], 3)],
)
def test_few_images_a_class(labels: list[int], folds: int) -> None:
    truth = torch.tensor(labels)
    vectors = 10 * torch.nn.functional.one_hot(truth, 4).float() + torch.randn(
        len(truth), 4, generator=torch.Generator().manual_seed(0)
    )
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        found = measure(LogisticRegression, (vectors, truth), (vectors, truth), strengths=(0.1, 1.0, 10.0))
    assert found["top1"].value >= (50 if folds == 3 else 95), "where no C helps, the strongest penalty is taken"
    assert found["top1"].protocol.fields["folds"] == folds


def test_what_is_worth_knowing_is_said() -> None:
    details = measure(LogisticRegression, TRAIN, TEST, strengths=(10.0, 100.0), max_iterations=2)["top1"].details
    assert "2 iterations (not converged)" in details
    assert "is at the end of the grid" in details


@pytest.mark.parametrize("strengths", [(0.0, 1.0), (1.0, 1.0), ()])
def test_wrong_strengths(strengths: tuple[float, ...]) -> None:
    with pytest.raises(UserError, match="strengths"):
        measure(LogisticRegression, TRAIN, TEST, strengths=strengths)
