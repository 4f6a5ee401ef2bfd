"""How an evaluation fits the memory there is: a cap on a card, and as many images per forward pass as have room."""

from __future__ import annotations

from collections.abc import Callable, Sequence

import torch

from ssl_bench.backbone import Backbone
from ssl_bench.dataset import Dataset
from ssl_bench.errors import UserError
from ssl_bench.evaluation.speed import THROUGHPUT_BATCH
from ssl_bench.method import Method, evaluated_network
from ssl_bench.planning.devices import GB
from ssl_bench.planning.evaluation_memory import most_images, predict_evaluation
from ssl_bench.recipes.resolve import Resolved
from ssl_bench.registry.failures import in_words
from ssl_bench.runs.fitting import held_between_steps, limited_device


def images_in_a_run(resolved: Resolved, method: Method, device: torch.device, line: Callable[[str, str], None]) -> int:
    """Images per forward pass of a run's evaluations and of its timed passes; `method` is still on the CPU.

    On a CPU always the protocol's, so that records do not depend on the memory there is.
    """
    if device.type != "cuda":
        return THROUGHPUT_BATCH
    by_size = {one.image_px: one for one in (resolved.dataset, *resolved.evaluation_sets)}
    held = held_between_steps(method, resolved.recipe.optimizer)
    network, memory = evaluated_network(method), resolved.machine.memory
    return images_per_pass(
        network, list(by_size.values()), device, memory, lambda text: line("evaluation", text), held=held
    )


def images_per_pass(
    backbone: Backbone,
    datasets: Sequence[Dataset],
    device: torch.device,
    memory: str | None,
    say: Callable[[str], None],
    *,
    held: int | None = None,
) -> int:
    """Images per forward pass of evaluations on `device` within `memory`, e.g. "4GB", or within what a card has free.

    `backbone` is still on the CPU; `held` bytes, by default those of its weights, are on the device beside a pass. On
    a CPU, which has no limit by default, the features of all images lie in the same memory; on a card k-NN and probes
    move there only what has room (`evaluation.features.device_with_room`).

    Raises `UserError` where not even one image fits into `memory`.
    """
    if memory is None and device.type != "cuda":
        return THROUGHPUT_BATCH
    limited = limited_device(device, memory)
    weights = sum(one.nbytes for one in (*backbone.parameters(), *backbone.buffers())) if held is None else held

    def needed(images: int) -> int:
        predicted = [predict_evaluation(backbone, one, images) for one in datasets]
        return weights + max(one.extraction + one.features * limited.is_cpu for one in predicted)

    try:
        images = most_images(needed, limited.usable, THROUGHPUT_BATCH)
    except Exception as error:  # planning ends no evaluation: it says itself what is wrong
        say(f"{THROUGHPUT_BATCH} images per forward pass: what they take could not be predicted ({in_words(error)})")
        return THROUGHPUT_BATCH
    if not images and memory is not None:
        names, advice = ", ".join(one.name for one in datasets), "a set with fewer" if limited.is_cpu else "smaller"
        raise UserError(
            f"--memory {memory}: evaluating on {names} takes {limited.with_usable(needed(1)) / GB:.1f} GB with one "
            f"image at a time, of which {weights / GB:.1f} GB are weights and moments: give more, or {advice} images"
        )
    if images < THROUGHPUT_BATCH:
        room = "what is free on the card" if memory is None else f"--memory {memory}"
        say(f"{max(1, images)} images per forward pass instead of {THROUGHPUT_BATCH}, for {room}")
    return max(1, images)
