"""How an evaluation fits `--memory`: a cap on a card, and as many images per forward pass as there is room for."""

from __future__ import annotations

from collections.abc import Callable

import torch

from ssl_bench.backbone import Backbone
from ssl_bench.dataset import Dataset
from ssl_bench.errors import UserError
from ssl_bench.evaluation.speed import THROUGHPUT_BATCH
from ssl_bench.planning.devices import GB
from ssl_bench.planning.evaluation_memory import predict_evaluation
from ssl_bench.runs.fitting import limited_device


def images_per_pass(
    backbone: Backbone, dataset: Dataset, device: torch.device, memory: str | None, say: Callable[[str], None]
) -> int:
    """Images per forward pass of an evaluation on `device` within `memory`, e.g. "4GB"; None is no limit.

    `backbone` is still on the CPU. On a CPU the features of all images lie in the same memory; on a card k-NN and
    probes move there only what has room (`evaluation.features.device_with_room`).

    Raises `UserError` where not even one image fits.
    """
    if memory is None:
        return THROUGHPUT_BATCH
    limited = limited_device(device, memory)
    weights = sum(one.nbytes for one in (*backbone.parameters(), *backbone.buffers()))
    images = THROUGHPUT_BATCH
    while True:
        predicted = predict_evaluation(backbone, dataset, images)
        features = predicted.features if limited.is_cpu else 0
        needed = weights + predicted.extraction + features
        if needed <= limited.usable:
            break
        if images == 1:
            raise UserError(
                f"--memory {memory}: evaluating on {dataset.name} takes {limited.with_usable(needed) / GB:.1f} GB with "
                f"one image at a time ({weights / GB:.1f} GB weights, {features / GB:.1f} GB features of all images): "
                "give more, or a set with fewer images"
            )
        images //= 2
    if images < THROUGHPUT_BATCH:
        say(f"{images} images per forward pass instead of {THROUGHPUT_BATCH}, for --memory {memory}")
    return images
