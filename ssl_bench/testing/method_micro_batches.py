"""The check of what a method says of micro-batches: that they give the gradients of the whole batch."""

from __future__ import annotations

import dataclasses

import torch
from torch import Tensor

from ssl_bench.method import Method, has_whole_batch_loss
from ssl_bench.testing.method_bench import MIDDLE, Bench, Subject, progress_at
from ssl_bench.testing.outcomes import CheckSkipped, require
from ssl_bench.training.micro_batches import Passes, add_gradients

MICRO_BATCHES = (1, 3)
"""Of 8 images: eight of one image, and three of unequal size."""
TOLERANCE = 1e-5
"""Largest difference, relative to the norm of a tensor."""


def micro_batches_are_the_batch(subject: Subject) -> None:
    """For a method that says so, gradients, loss, logs and the next state are those of the whole batch.

    In float64 and eval mode: batch norm then uses its running statistics, dropout and drop path are off. On the first
    network alone, since no other is computed differently then.
    """
    plugin, bench = subject.plugin, subject.working[0]
    if not has_whole_batch_loss(plugin) and not bench.build().mean_over_images:
        raise CheckSkipped(
            "runs with machine.micro_batch are marked as approximate; if the loss is a mean over images, say so: "
            "mean_over_images = True; if it compares images, write embed() and loss() in place of step()"
        )
    whole = _after_a_step(bench, None)
    for images in MICRO_BATCHES:
        parts = _after_a_step(bench, images)
        for name, tensor in whole.items():
            difference = float((tensor - parts[name]).norm() / tensor.norm().clamp_min(1e-9))
            require(
                difference <= TOLERANCE,
                f"micro-batches of {images} image{'s' * (images > 1)} change the {name} by {difference:.1%}: "
                f"{_what_to_do(plugin, name)}",
            )


def _after_a_step(bench: Bench, micro_batch: int | None) -> dict[str, Tensor]:
    """Gradients, loss, logs and state after a step, by name, in float64."""
    method = bench.build().double().eval()
    state = {name: tensor for name, tensor in method.state_dict().items() if tensor.is_floating_point()}
    for tensor in state.values():  # so that a teacher differs from its student
        tensor.add_(0.01 * tensor.std(correction=0) * torch.randn_like(tensor))
    given, progress = bench.batch(), progress_at(MIDDLE)
    views = tuple(view.double() if view.is_floating_point() else view for view in given.views)
    passes = Passes(torch.device("cpu"), "check", micro_batch)
    output = add_gradients(method, dataclasses.replace(given, views=views), progress, passes)
    found = {f"gradient of {name}": p.grad for name, p in method.named_parameters() if p.grad is not None}
    found |= {"loss": output.loss, **{f"log {name!r}": value for name, value in output.logs.items()}}
    with torch.no_grad():
        method.update(output.carry, progress)
    found |= {f"{name} after update()": tensor for name, tensor in state.items()}
    return {name: tensor.detach().double() for name, tensor in found.items()}


def _what_to_do(plugin: type[Method], name: str) -> str:
    if name.startswith("log "):
        return "log what is no mean over images in batch_logs(carry), which sees the carry of the whole batch"
    if name.endswith("after update()"):
        return "carry what each image gives, or a sum and a count instead of a mean: micro-batches differ in size"
    if has_whole_batch_loss(plugin):
        return "embed() must look at one image at a time; what compares images belongs into loss()"
    return (
        "its loss is no mean over images, so take back mean_over_images, or write embed() and loss() in place of step()"
    )
