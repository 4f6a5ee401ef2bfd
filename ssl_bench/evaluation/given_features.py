"""Features that are given in place of a network and images, as evaluators read them."""

from __future__ import annotations

import hashlib
from pathlib import Path
from typing import Any, ClassVar

import numpy as np
import torch
from numpy.typing import NDArray
from PIL import Image
from torch import Tensor

from ssl_bench.backbone import Backbone
from ssl_bench.dataset import Dataset
from ssl_bench.errors import UserError
from ssl_bench.evaluation.feature_files import Matrix
from ssl_bench.evaluator import FeatureKind, Features, Protocol, SplitName
from ssl_bench.settings import Settings

AS_GIVEN = Protocol(text="features as given")
"""In place of the transform: nothing is known of how images were seen."""


class GivenSplit:
    """Labels without images."""

    def __init__(self, count: int, labels: list[int] | None) -> None:
        self.count, self.labels = count, labels

    def __len__(self) -> int:
        return self.count

    def image(self, index: int) -> Image.Image:
        """Raises `UserError`."""
        raise UserError("there are no images: only features were given")


class GivenData(Dataset):
    """What is known of a dataset of which there are features alone.

    Its fingerprint covers the labels in their order: features of several networks for the same images share it.
    """

    Config = Settings
    has_images: ClassVar[bool] = False
    train: GivenSplit
    test: GivenSplit | None

    def __init__(self, name: str, train: Matrix, test: Matrix) -> None:
        self.config, self.path, self.name, self.image_px = Settings(), None, name, 0
        self.classes, labels = class_indices(train, test)
        self.train = GivenSplit(len(train.vectors), labels["train"])
        self.test = GivenSplit(len(test.vectors), labels["test"]) if labels["test"] is not None else None
        content = f"{len(self.train)} {len(test.vectors)} {labels['train']} {labels['test']}"
        self._fingerprint = hashlib.sha256(content.encode()).hexdigest()

    @property
    def fingerprint(self) -> str:
        """Of the labels, or of the dataset that they were found to be of."""
        return self._fingerprint

    def be(self, known: Dataset) -> None:
        """Take name and fingerprint of the dataset that the features are of. Raises `UserError` where its labels are
        others, or in another order."""
        theirs: dict[int, int] = {}
        for word, mine, split in (("train", self.train, known.train), ("test", self.test, known.test)):
            told = None if split is None else split.labels
            if mine is None or mine.labels is None or told is None:
                raise UserError(f"the features cannot be compared with {known.name}: {word} labels are missing")
            if len(mine) != len(told):
                raise UserError(
                    f"{word}: {len(mine):,} features, and {known.name} has {len(told):,} images. Give the features of "
                    "all of them, or leave --data out"
                )
            for row, (label, wanted) in enumerate(zip(mine.labels, told, strict=True)):
                if theirs.setdefault(label, wanted) != wanted:
                    raise UserError(
                        f"{word}: the labels are not those of {known.name} in its order (by class, then by file name; "
                        f"first at row {row:,}). Leave --data out, or order the features so"
                    )
            mine.labels = list(told)
        if len(set(theirs.values())) != len(theirs):
            raise UserError(f"several labels of the features are one class of {known.name}: leave --data out")
        self.name, self.path, self.classes, self._fingerprint = known.name, known.path, known.classes, known.fingerprint
        self.image_px, self.synthetic = known.image_px, known.synthetic  # type: ignore[misc]


class GivenNetwork(Backbone):
    """Stands for the network that made the features, of which only their width is known."""

    Config = Settings
    kind = "vit"
    patch_px = None

    def __init__(self, dim: int) -> None:
        super().__init__(None, image_px=0)
        self.image_px, self.feature_dim = 0, dim

    @property
    def probe_reads(self) -> str:
        """Whoever made them knows."""
        return "the features that were given"

    def forward(self, images: Tensor) -> Tensor:
        """Raises `UserError`."""
        raise UserError("there is no network: only features were given")


class GivenFeatures:
    """A `FeatureSource` of two matrices."""

    def __init__(self, train: Matrix, test: Matrix, data: GivenData) -> None:
        self._kept: dict[tuple[SplitName, str], Features] = {}
        parts: tuple[tuple[SplitName, Matrix, GivenSplit | None], ...] = (
            ("train", train, data.train), ("test", test, data.test),
        )  # fmt: skip
        for name, part, split in parts:
            told = None if split is None else split.labels
            labels = torch.as_tensor([-1] * len(part.vectors) if told is None else told, dtype=torch.int64)
            probe = part.vectors if part.probe_vectors is None else part.probe_vectors
            for kind, vectors in (("features", part.vectors), ("probe_features", probe)):
                self._kept[name, kind] = Features(torch.from_numpy(vectors), labels, AS_GIVEN)

    def __call__(self, split: SplitName, kind: FeatureKind = "features") -> Features:
        """The same tensors at every call."""
        return self._kept[split, kind]


def class_indices(train: Matrix, test: Matrix) -> tuple[tuple[str, ...], dict[str, list[int] | None]]:
    """Names of the classes, in the order of the labels, and their indices by split; none without labels in both.

    Raises `UserError` for one class, and for labels of the test split that the training split lacks.
    """
    if train.labels is None or test.labels is None:
        if (train.labels is None) != (test.labels is None):
            lacking = train.name if train.labels is None else test.name
            raise UserError(f"{lacking} has no labels, the other file has: give them in both, or in neither")
        return (), {"train": None, "test": None}
    if (train.labels.dtype.kind in "US") != (test.labels.dtype.kind in "US"):
        raise UserError(f"the labels of {train.name} are {train.labels.dtype}, of {test.name} {test.labels.dtype}")
    known = np.unique(train.labels)
    unknown = np.setdiff1d(test.labels, known)
    if len(unknown):
        raise UserError(
            f"{test.name} has {len(unknown):,} labels that {train.name} lacks ({_some(unknown)}; there are "
            f"{_some(known)}): both must count the same classes"
        )
    if len(known) < 2:
        raise UserError(f"{train.name} has one class ({_some(known)}): there is nothing to tell apart")
    names = tuple(value.decode() if isinstance(value, bytes) else str(value) for value in known.tolist())
    return names, {name: np.searchsorted(known, part).tolist() for name, part in
                   (("train", train.labels), ("test", test.labels))}  # fmt: skip


def check_together(train: Matrix, test: Matrix) -> None:
    """Raises `UserError` for matrices of different widths."""
    for what, one, other in (
        ("features", train.vectors, test.vectors), ("probe_features", train.probe_vectors, test.probe_vectors),
    ):  # fmt: skip
        if (one is None) != (other is None):
            raise UserError(f"only one of {train.name} and {test.name} has {what}: give them in both, or in neither")
        if one is not None and other is not None and one.shape[1] != other.shape[1]:
            raise UserError(
                f"the {what} of {train.name} have {one.shape[1]:,} dimensions and those of {test.name} "
                f"{other.shape[1]:,}: both must be of one network"
            )


def name_of(train: Path, test: Path) -> str:
    """What the data are called after their files: what the names share, else their folder, e.g. "cifar10"."""
    words = train.stem.replace("-", "_").split("_")
    shared = [word for word in words if word in test.stem.replace("-", "_").split("_") and word not in ("features",)]
    return "_".join(shared) or train.resolve().parent.name or "features"


def _some(values: NDArray[Any]) -> str:
    shown = ", ".join(map(str, values[:5].tolist()))
    return f"{shown}, ..." if len(values) > 5 else shown
