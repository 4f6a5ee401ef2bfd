"""The contract of an evaluator: a frozen backbone in, named measurements with their protocol out."""

from __future__ import annotations

import typing
from abc import ABC, abstractmethod
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any, ClassVar, Literal

from torch import Tensor

from ssl_bench.backbone import Backbone
from ssl_bench.dataset import Dataset
from ssl_bench.measurement import Measurement, Outcomes, Protocol
from ssl_bench.settings import Settings

__all__ = [
    "DataRead", "Evaluation", "Evaluator", "FeatureKind", "FeatureSource", "Features", "Measurement", "Outcomes",
    "Protocol", "SplitName",
]  # fmt: skip

SplitName = Literal["train", "test"]
FeatureKind = Literal["features", "probe_features"]
"""What a k-NN reads (`Backbone.forward`), and what a linear probe reads (`Backbone.probe_features`)."""


@dataclass(frozen=True)
class Features:
    """Frozen features of one split in its own order: `vectors` (n, dim) float32 on the CPU, `labels` (n,) int64."""

    vectors: Tensor
    labels: Tensor
    """-1 for every image of a split without labels; an evaluator with `needs_labels` never gets such a split."""
    transform: Protocol
    """How the network saw the images, as part of a protocol: `Protocol.of("{k}-NN, {view}", k=20, view=transform)`."""


class FeatureSource(typing.Protocol):
    """Extracts once and shares: asking twice for the same split and kind returns the same tensors."""

    def __call__(self, split: SplitName, kind: FeatureKind = "features") -> Features:
        """The features of every image of `split`, of the kind a k-NN (`features`) or a linear probe reads.

        Raises `UserError` where the data have no such split (a set without labels has no "test").
        """
        ...


@dataclass(frozen=True)
class Evaluation:
    """What an evaluator may use. Nothing here leads to the training run."""

    backbone: Backbone
    """In eval mode; an evaluator that fine-tunes works on a copy.deepcopy of it."""
    features: FeatureSource
    dataset: Dataset
    seed: int
    output_dir: Path
    """Folder for pictures and masks; created by who writes there."""
    say: Callable[[str], None] = lambda line: None
    """Shows one line of progress to the user."""


@dataclass(frozen=True)
class DataRead:
    """What an evaluator reads, for its record and for tables that must not mix two sets."""

    name: str
    fingerprint: str
    """Hex digest that changes with the data, as `Dataset.fingerprint`."""
    synthetic: bool
    image_px: int
    """Side at which the network sees the images; the shorter side where they are not squares."""


class Evaluator(ABC):
    """Base class of an evaluator plugin. The class docstring's first line names it, the module's cites the paper."""

    Config: ClassVar[type[Settings]]
    requires: ClassVar[frozenset[str]] = frozenset()
    """What the backbone must support, e.g. {"attention"}: refused before training, not after."""
    needs_labels: ClassVar[bool] = True
    """Whether it reads labels or the test split of `Evaluation.dataset`: then it runs on labeled data only."""
    version: ClassVar[int] = 1
    """Raised when the same settings and data would give other numbers: then `sslbench eval` measures again instead of
    reading what was measured before. Put it into the protocol, so that tables keep the two apart."""
    reads_images: ClassVar[bool] = True
    """Whether it needs more than `Evaluation.features` and labels: the network, or the images. One that does not also
    evaluates features that were made elsewhere (`sslbench eval --features`)."""
    feature_kinds: ClassVar[frozenset[FeatureKind]] = frozenset()
    """The kinds of features that it reads. The kinds of all evaluators of a run are extracted in one pass over the
    images; one that is asked for without standing here costs a pass of its own."""
    during_training: ClassVar[bool] = False
    """Whether it is quick enough for `training.eval_every`: then it also measures every network during training."""

    def __init__(self, config: Any) -> None:
        self.config = config

    def data(self, dataset: Dataset) -> DataRead:
        """What is read: the run's own dataset, unless an evaluator with a set of its own overrides this.

        Where such a set lies is the setting `path` (`settings.DATA_PATH`), which is in no digest: the fingerprint is.

        Called before training, so raise `UserError` here for a folder that is not as expected.
        """
        return DataRead(dataset.name, dataset.fingerprint, dataset.synthetic, dataset.image_px)

    def metrics(self, train_images: int | None = None) -> tuple[str, ...] | None:
        """Names of what it measures with these settings, so that a column of a table that nothing fills is found
        before anything runs; None where that is not known before.

        `train_images` are those of the dataset it will evaluate on; None: not known.
        """
        return None

    def check(self, dataset: Dataset) -> None:  # noqa: B027 (a hook that most evaluators have no use for)
        """Raise `UserError` for a dataset that these settings cannot evaluate, e.g. one of fewer images than k.

        Called before training with each dataset that will be evaluated.
        """

    @abstractmethod
    def evaluate(self, evaluation: Evaluation) -> list[Measurement]:
        """Measure; the same input gives the same numbers. Exactly one measurement is `primary`.

        A measurement that is a mean over test items may give each item's score as `outcomes`: they are kept beside the
        record, and intervals and comparisons use them.
        """
