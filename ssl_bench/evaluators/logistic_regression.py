"""Logistic regression on frozen features with scikit-learn, its strength chosen by cross-validation: for small sets.

DINOv2 (Oquab et al. 2023, arXiv 2304.07193, the authors' dinov2/eval/log_regression.py): l2-regularized multinomial
logistic regression by L-BFGS, at most 1,000 iterations, float64, the inverse strength C from a log grid of 45 values,
chosen on a tenth of the training set. CLIP (Radford et al. 2021, arXiv 2103.00020, appendix A.3) does the same.

What differs, and why: C is chosen by stratified cross-validation, since a tenth of a few hundred images cannot tell
values apart; of values that are equally good the strongest regularization is taken. Features are standardized (mean 0,
deviation 1 on the part that is fitted), where the authors take them as they are: one grid of C then fits every network,
also an untrained one, whose features differ by a thousandth of their mean. `scaling` has both of the other choices. The
grid has one value per decade: finer ones change an accuracy by less than its interval. The test set is looked at once.

The features are those that k-NN reads (the class token or the pooled map of the last layer), as in DINOv2.
"""

from __future__ import annotations

import warnings
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray
from pydantic import model_validator

from ssl_bench.evaluator import Evaluation, Evaluator, Measurement, Protocol
from ssl_bench.measurement import accuracy_of
from ssl_bench.settings import Settings, setting

SLOW_FROM = 20_000
"""Training images from which on it takes long enough to say so."""

Vectors = NDArray[np.float64]
Labels = NDArray[np.int64]


class LogisticRegressionConfig(Settings):
    """Settings of the logistic regression."""

    strengths: tuple[float, ...] = setting(
        (1e-6, 1e-5, 1e-4, 1e-3, 1e-2, 0.1, 1.0, 10.0),
        "inverse strengths C of the l2 penalty that are tried; C multiplies the sum of the images' losses",
        source="DINOv2 log_regression.py: 1e-6 to 1e5; standardized features need no weaker penalty than 10",
        min_length=1,
    )
    folds: int = setting(5, "folds of the cross-validation; fewer where no class has as many images", ge=2)
    max_iterations: int = setting(
        1000, "iterations of L-BFGS after which it stops", source="DINOv2 log_regression.py", ge=1
    )
    scaling: Literal["standardized", "l2-normalized", "raw"] = setting(
        "standardized", "what is done to features first: mean 0 and deviation 1 each, length 1, or nothing"
    )

    @model_validator(mode="after")
    def _sensible(self) -> LogisticRegressionConfig:
        if min(self.strengths) <= 0 or len(set(self.strengths)) < len(self.strengths):
            raise ValueError(f"strengths must be different numbers above 0, not {list(self.strengths)}")
        return self


class LogisticRegression(Evaluator):
    """Logistic regression on frozen features, for small sets (scikit-learn, L-BFGS, C by cross-validation)."""

    Config = LogisticRegressionConfig
    reads_images = False
    feature_kinds = frozenset({"features"})
    config: LogisticRegressionConfig

    def evaluate(self, evaluation: Evaluation) -> list[Measurement]:
        """Test accuracy `top1` (primary), and `mean_class_top1`: the mean of the classes' accuracies."""
        train, test = evaluation.features("train"), evaluation.features("test")
        labels, truth = train.labels.numpy(), test.labels.numpy()
        if len(labels) >= SLOW_FROM:
            evaluation.say(f"logistic regression on {len(labels):,} images takes a while: it is meant for small sets")
        predicted, details = self.fit_predict(
            train.vectors.double().numpy(), labels, test.vectors.double().numpy(), evaluation.seed
        )
        protocol = Protocol.of(
            "logistic regression, {solver}, l2 penalty, {scaling} features, C by {folds}-fold stratified "
            "cross-validation from {strengths}, at most {max_iterations} iterations, trained on all of train, "
            "{transform}",
            solver="L-BFGS",
            scaling=self.config.scaling,
            folds=folds_of(labels, self.config.folds),
            strengths=tuple(sorted(self.config.strengths)),
            max_iterations=self.config.max_iterations,
            transform=train.transform,
        )
        right = predicted == truth
        of_class = [float(right[truth == label].mean()) for label in np.unique(truth)]
        return [
            accuracy_of("top1", right, protocol=protocol, primary=True, details=details),
            Measurement(
                metric="mean_class_top1", value=100 * float(np.mean(of_class)), unit="%", higher_is_better=True,
                n=len(truth), protocol=protocol, details=f"over the {len(of_class):,} classes of the test images",
            ),
        ]  # fmt: skip

    def fit_predict(self, vectors: Vectors, labels: Labels, queries: Vectors, seed: int) -> tuple[Labels, str]:
        """The classes of `queries` (m, dim) after fitting `vectors` (n, dim), and what was chosen, in words."""
        if len(present := np.unique(labels)) == 1:
            return np.full(len(queries), present[0]), "all training images are of one class"
        from sklearn.exceptions import ConvergenceWarning, FitFailedWarning
        from sklearn.model_selection import GridSearchCV, StratifiedKFold

        folds = folds_of(labels, self.config.folds)
        strengths = sorted(self.config.strengths)
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", ConvergenceWarning)  # reported in the details
            warnings.simplefilter("ignore", FitFailedWarning)  # of a fold whose other images are of one class: 0 %
            warnings.filterwarnings("ignore", message="The least populated class")  # it is missing from some folds
            if folds == 0 or len(strengths) == 1:
                strength, score = strengths[len(strengths) // 2], ""
            else:
                search = GridSearchCV(
                    self.model(), {"classifier__C": strengths}, scoring="accuracy", refit=False, error_score=0.0,
                    cv=StratifiedKFold(folds, shuffle=True, random_state=seed % 2**32),
                )  # fmt: skip
                search.fit(vectors, labels)
                strength = search.best_params_["classifier__C"]
                score = f", cross-validated {100 * search.best_score_:.2f} %"
            fitted = self.model().set_params(classifier__C=strength).fit(vectors, labels)
        iterations = int(np.max(fitted["classifier"].n_iter_))
        details = f"C = {strength:g}{score}, {len(labels):,} images, {iterations:,} iterations"
        if iterations >= self.config.max_iterations:
            details += " (not converged)"
        if len(strengths) > 1 and folds and strength in (strengths[0], strengths[-1]):
            details += f"; C = {strength:g} is at the end of the grid"
        return fitted.predict(queries), details

    def model(self) -> Any:
        """The scaling and scikit-learn's classifier, unfitted."""
        from sklearn.linear_model import LogisticRegression as Classifier
        from sklearn.pipeline import Pipeline
        from sklearn.preprocessing import Normalizer, StandardScaler

        scaler = {"standardized": StandardScaler, "l2-normalized": Normalizer}.get(self.config.scaling)
        classifier = Classifier(solver="lbfgs", max_iter=self.config.max_iterations)
        return Pipeline([("scaler", scaler() if scaler else "passthrough"), ("classifier", classifier)])


def folds_of(labels: Labels, wanted: int) -> int:
    """How many folds can be drawn: no more than the largest class has images; 0 where that is one."""
    largest = int(np.bincount(labels).max())
    return min(wanted, largest) if largest > 1 else 0
