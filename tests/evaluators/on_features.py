"""Evaluating given features instead of a network's."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from ssl_bench.evaluator import Evaluation, Evaluator, Features, Measurement, Protocol
from ssl_bench.settings import parse_settings
from tests.toy import ToyBackbone, ToyDataset

Labeled = tuple[Tensor, Tensor]


def measure(
    kind: type[Evaluator], train: Labeled, test: Labeled, *, seed: int = 0, **config: Any
) -> dict[str, Measurement]:
    """Measurements by name of features (n, dim) with labels (n,)."""
    splits = {"train": Features(*train, Protocol(text="as is")), "test": Features(*test, Protocol(text="as is"))}
    dataset = ToyDataset()
    dataset.classes = tuple(map(str, range(int(train[1].max()) + 1)))
    settings = parse_settings(kind.Config, config, "evaluators.it", "it")
    evaluation = Evaluation(ToyBackbone(), lambda split, kind="features": splits[split], dataset, seed, Path("unused"))
    return {one.metric: one for one in kind(settings).evaluate(evaluation)}


def clusters(count: int, *, dim: int = 8, classes: int = 3, noise: float = 1.0, seed: int = 0) -> Labeled:
    """Vectors around a center for each class, scaled unevenly and off center as features are."""
    generator = torch.Generator().manual_seed(seed)
    centers = torch.randn(classes, dim, generator=torch.Generator().manual_seed(99))
    labels = torch.arange(count) % classes
    vectors = centers[labels] + noise * torch.randn(count, dim, generator=generator)
    return vectors * torch.logspace(0, -2, dim) + 5, labels
