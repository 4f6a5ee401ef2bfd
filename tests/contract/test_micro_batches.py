"""Every registered method: micro-batches give the gradients of the whole batch, in float64 and without batch norm."""

from __future__ import annotations

from typing import Any

import pytest

from ssl_bench import registry
from ssl_bench.testing.method_bench import Subject
from ssl_bench.testing.method_micro_batches import micro_batches_are_the_batch
from tests.methods import INSTALLED
from tests.plugins.ibot_like import IBOT
from tests.plugins.mae import MAE

TRAINED = [(name, {}) for name in INSTALLED if name != "random"]
VARIANTS: list[tuple[str, dict[str, Any]]] = [
    ("dino", {"assignment": "sinkhorn"}),
    ("dino", {"loss": "mse"}),
    ("swav", {"queue_size": 16, "queue_from_epoch": 0}),
]


@pytest.mark.parametrize(("name", "settings"), [*TRAINED, *VARIANTS])
def test_micro_batches_are_the_batch(name: str, settings: dict[str, Any]) -> None:
    micro_batches_are_the_batch(Subject(registry.method(name), settings))


@pytest.mark.parametrize("method", [IBOT, MAE])
def test_micro_batches_of_masked_images_are_the_batch(method: type) -> None:
    micro_batches_are_the_batch(Subject(method, {}))
