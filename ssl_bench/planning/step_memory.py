"""The memory of a method's training step, predicted by a step on tensors without numbers.

What a device needs besides tensors (context, workspaces of kernels, fragmentation) is an allowance, see `devices`.
"""

from __future__ import annotations

import copy
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from random import Random

import torch
from PIL import Image
from torch import Tensor

from ssl_bench.blocks.device_views import TEMPORARIES
from ssl_bench.blocks.optimizers import OptimizerSettings, build_optimizer, set_schedule
from ssl_bench.errors import UserError
from ssl_bench.method import Batch, MakeViews, Method, Progress
from ssl_bench.planning.few_micro_batches import gradients_of_few
from ssl_bench.planning.live_memory import LiveMemory
from ssl_bench.planning.without_numbers import KINDS
from ssl_bench.registry.failures import in_words
from ssl_bench.training.micro_batches import Passes, add_gradients

PARTS = ("weights", "frozen weights and buffers", "gradients", "optimizer", "views", "activations")
"""In the order in which they are shown. Frozen weights are a teacher's, say; buffers a queue's."""
HELD = ("weights", "frozen weights and buffers", "optimizer")
"""Parts that stay between two steps."""


@dataclass(frozen=True)
class StepMemory:
    """Bytes at the peak of a training step, and its work."""

    parts: Mapping[str, int]
    """By `PARTS`; temporary tensors of the backward pass count as activations, of the optimizer as the optimizer's."""
    operations: int = 0
    """Floating point operations of the products, convolutions and attention of a step."""

    @property
    def peak(self) -> int:
        """All parts together."""
        return sum(self.parts.values())

    @property
    def held(self) -> int:
        """What stays between two steps: weights, buffers and the optimizer's moments."""
        return sum(self.parts[part] for part in HELD)

    @classmethod
    def on_line(cls, one: tuple[int, StepMemory], other: tuple[int, StepMemory], images: int) -> StepMemory:
        """At another number of images, along the straight line through two; at least 0 in every part."""
        (first, low), (second, high) = one, other
        share = (images - first) / (second - first)

        def between(less: int, more: int) -> int:
            return max(0, round(less + share * (more - less)))

        parts = {part: between(size, high.parts[part]) for part, size in low.parts.items()}
        return cls(parts, between(low.operations, high.operations))


@dataclass(frozen=True)
class HowToStep:
    """What decides the memory of a step besides the method and its views."""

    micro_batch: int | None = None
    """Most images in a forward pass; None: the whole batch."""
    autocast_dtype: torch.dtype | None = None
    batch_on_device: bool = True
    """Whether the whole batch lies in the memory that is planned, as on a CPU; a GPU gets a micro-batch at a time."""
    finishes_views: bool = False
    """Whether the device computes the color of the views (`blocks.device_views`)."""


AS_A_WHOLE = HowToStep()


def view_shapes(
    method: Method, make_views: MakeViews, batch_size: int, image_px: int
) -> list[tuple[torch.Size, torch.dtype]]:
    """Shape and type of every tensor of a batch's views, from one gray image."""
    views = make_views(Image.new("RGB", (image_px, image_px), (127, 127, 127)), Random(0))
    batch = tuple(view[None].expand(batch_size, *view.shape) for view in views)
    drawn = method.draw_over_batch()(batch, Random(0))
    return [(view.shape, view.dtype) for view in drawn]


def predict_step(
    method: Method,
    optimizer: OptimizerSettings,
    views: Sequence[tuple[torch.Size, torch.dtype]],
    how: HowToStep = AS_A_WHOLE,
) -> StepMemory:
    """The peak of a training step on tensors without numbers; `method` is left as it was.

    Raises `UserError` for a method whose step looks at numbers, e.g. by `.item()`: `measure_step` takes its place.
    """
    was_training = method.training
    for tensors_without_numbers in KINDS:
        try:
            with tensors_without_numbers(method):
                return _step_memory(method, optimizer, views, how, gradients_of_few)
        except Exception as error:
            problem = error
        finally:
            method.train(was_training)
    raise UserError(
        f"the memory of {type(method).__name__} cannot be predicted: its step looks at numbers or fails on tensors "
        f"that have none ({in_words(problem)})"
    ) from problem


def measure_step(
    method: Method,
    optimizer: OptimizerSettings,
    views: Sequence[tuple[torch.Size, torch.dtype]],
    how: HowToStep = AS_A_WHOLE,
) -> StepMemory:
    """As `predict_step`, by doing the step on a copy of the method and images of zeros, on the CPU."""

    def gradients(
        method: Method, batch: Batch, progress: Progress, passes: Passes, memory: LiveMemory
    ) -> Mapping[str, Tensor]:
        return add_gradients(method, batch, progress, passes).carry

    with torch.random.fork_rng(devices=[]):
        return _step_memory(copy.deepcopy(method), optimizer, views, how, gradients)


Gradients = Callable[[Method, Batch, Progress, Passes, LiveMemory], Mapping[str, Tensor]]
"""Adds the gradients of a batch; returns its carry."""


def _step_memory(
    method: Method,
    settings: OptimizerSettings,
    views: Sequence[tuple[torch.Size, torch.dtype]],
    how: HowToStep,
    gradients: Gradients,
) -> StepMemory:
    """One step in the order of `training.step.training_step`, with the optimizer's state of earlier ones."""
    memory = LiveMemory()
    trained = [parameter for parameter in method.train().parameters() if parameter.requires_grad]
    memory.add(trained, "weights")
    memory.add([*method.parameters(), *method.buffers()], "frozen weights and buffers")
    tensors = tuple(torch.zeros(shape, dtype=dtype) for shape, dtype in views)
    images = len(tensors[0])
    batch = Batch(tensors, *2 * (torch.zeros(images, dtype=torch.long),))
    if how.batch_on_device:
        memory.add(tensors, "views")
    else:
        memory.leave_out(tensors)
    progress = Progress(1, 2, 0, 1)
    passes = Passes(torch.device("cpu"), "plan", how.micro_batch, how.autocast_dtype)
    with memory:
        optimizer = build_optimizer(settings, method.parameter_groups())
        set_schedule(optimizer, settings, progress, images)
        memory.part = "gradients"
        for parameter in trained:
            parameter.grad = torch.zeros_like(parameter)
        memory.part = "optimizer"
        optimizer.step()  # makes its state
        optimizer.zero_grad(set_to_none=True)
        for parameter in trained:
            parameter.register_post_accumulate_grad_hook(  # type: ignore[no-untyped-call]
                lambda one: memory.move([one.grad], "gradients")
            )
        memory.part = "activations"
        if how.finishes_views:
            _finish_views(tensors, min(images, how.micro_batch or images))
        carry = gradients(method, batch, progress, passes, memory)
        method.before_optimizer(progress)
        memory.part = "optimizer"
        optimizer.step()
        optimizer.zero_grad(set_to_none=True)
        memory.part = "activations"
        with torch.no_grad():
            method.update(carry, progress)
    return StepMemory({part: memory.at_peak[part] for part in PARTS}, memory.operations)


def _finish_views(views: Sequence[Tensor], images: int) -> None:
    """Takes the memory in which a micro-batch's views are finished, the views themselves included, and frees it."""
    sizes = [view[:images].nbytes for view in views]
    torch.empty(sum(sizes) + TEMPORARIES * max(sizes), dtype=torch.uint8)
