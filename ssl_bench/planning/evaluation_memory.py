"""The memory of an evaluation: extracting features, holding them, and searching them for k-NN."""

from __future__ import annotations

from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass

import torch
from torch import Tensor

from ssl_bench.backbone import Backbone, eval_mode
from ssl_bench.dataset import Dataset
from ssl_bench.planning.live_memory import LiveMemory
from ssl_bench.planning.without_numbers import KINDS

FLOAT = 4
"""Bytes of a value: features are float32."""
SEARCH_BLOCKS = 512 * 2**20
"""Allowance for the products and candidates that a k-NN search has in memory at once."""
MEASURED_IMAGES = 2
"""Forward pass that is really done where it cannot be predicted; what it takes grows with the images."""


@dataclass(frozen=True)
class EvaluationMemory:
    """Bytes that evaluating a network takes beside the network and whatever else is on the device."""

    extraction: int
    """At the peak of one forward pass: images and activations."""
    features: int
    """Features of all images in RAM, as k-NN and a linear probe read them."""
    search: int
    """A k-NN search on the device; where that has no room, it is done in RAM, where the features are already."""


def predict_evaluation(backbone: Backbone, dataset: Dataset, batch_size: int) -> EvaluationMemory:
    """Of all images of `dataset`, with `batch_size` images per forward pass; `backbone` is left as it was."""
    extraction, dims = _extraction(backbone, dataset.image_px, batch_size)
    train, test = len(dataset.train), 0 if dataset.test is None else len(dataset.test)
    features = (train + test) * sum(dims) * FLOAT
    search = (train + 2 * test) * dims[0] * FLOAT + SEARCH_BLOCKS  # queries are there as given and normalized
    return EvaluationMemory(extraction, features, search)


def most_images(needed: Callable[[int], int], room: int, most: int) -> int:
    """How many images a forward pass can have: `most`, or half of it, and so on; 0 where not even one fits.

    `needed` gives the bytes that an evaluation takes with so many.
    """
    while most and needed(most) > room:
        most //= 2
    return most


def _extraction(backbone: Backbone, image_px: int, batch_size: int) -> tuple[int, list[int]]:
    """(bytes at the peak of a forward pass, dimensions of the vectors that k-NN and a probe read)."""
    for tensors_without_numbers in KINDS:
        with suppress(Exception), tensors_without_numbers(backbone):
            return _forward(backbone, image_px, batch_size)
    with torch.random.fork_rng(devices=[]):  # a network that looks at numbers
        peak, dims = _forward(backbone, image_px, MEASURED_IMAGES)
    return peak * batch_size // MEASURED_IMAGES, dims


def _forward(backbone: Backbone, image_px: int, batch_size: int) -> tuple[int, list[int]]:
    memory = LiveMemory()
    memory.add([*backbone.parameters(), *backbone.buffers()], "weights")
    with eval_mode(backbone), torch.no_grad(), memory:
        images = torch.zeros(batch_size, 3, image_px, image_px)
        outputs: list[Tensor] = [backbone(images)]
        if type(backbone).probe_features is not Backbone.probe_features:
            outputs.append(backbone.probe_features(images))
    return memory.at_peak["activations"], [output.shape[1] for output in outputs]
