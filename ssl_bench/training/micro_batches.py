"""The gradients of a batch from micro-batches, and whether they are exactly those of the whole batch.

A method whose loss is a mean over images (`Method.mean_over_images`) is computed micro-batch by micro-batch, each
weighted by its share of the images. A loss over the whole batch (`WholeBatchLoss`) takes two passes, as in GradCache
(Gao et al. 2021, arXiv 2101.06983, section 3): all micro-batches are embedded without a graph; the loss over all
embeddings gives the gradient of each; then every micro-batch is embedded again, with the same random numbers, and this
gradient is propagated through it. Any other method is accumulated like a mean, as an approximation.

Batch norm is the exception: in training it sees one micro-batch at a time, whatever the method.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass
from random import Random
from typing import Any, cast

import torch
from torch import Tensor
from torch.nn.modules.batchnorm import _BatchNorm

from ssl_bench.blocks.recompute import running_statistics_kept
from ssl_bench.errors import UserError
from ssl_bench.method import Batch, Method, Progress, StepOutput, WholeBatchLoss, has_whole_batch_loss


@dataclass(frozen=True)
class Exactness:
    """Whether micro-batches give the gradients of the whole batch."""

    exact: bool
    reason: str
    """Why not; empty where they do."""
    forward_passes: int
    """Of every micro-batch in a step: 2 where gradients are cached."""


def exactness(method: Method, micro_batch: int | None, batch_size: int) -> Exactness:
    """Whether a step of `batch_size` images in micro-batches is exact, for a method on its network."""
    if micro_batch is None or micro_batch >= batch_size:
        return Exactness(True, "", 1)
    reasons = []
    if has_batch_norm(method):
        reasons.append(f"batch norm sees {micro_batch} images of {batch_size}")
    cached = caches_gradients(method)
    if not cached and not method.mean_over_images:
        reasons.append("the method does not say that its loss is a mean over images")
    return Exactness(not reasons, "; ".join(reasons), 2 if cached else 1)


def caches_gradients(method: Method) -> bool:
    """A mean needs no second pass, even where the method is written in two parts."""
    return has_whole_batch_loss(type(method)) and not method.mean_over_images


def has_batch_norm(method: Method) -> bool:
    """Whether batch norm takes part in the method's training; its frozen parts use their running statistics."""
    frozen = {id(module) for name in method.frozen for module in method.get_submodule(name).modules()}
    return any(isinstance(module, _BatchNorm) and id(module) not in frozen for module in method.modules())


def smallest_micro_batch(method: Method, batch_size: int) -> int:
    """Images at once of the most parts into which a batch can be split: batch norm needs two images in each."""
    most_parts = max(1, batch_size // (2 if has_batch_norm(method) else 1))
    return -(-batch_size // most_parts)


def refuse_single_images(method: Method, batch_size: int, micro_batch: int | None) -> None:
    """Raises `UserError` for a micro-batch of one image where batch norm needs two."""
    least = smallest_micro_batch(method, batch_size)
    if micro_batch is not None and micro_batch < least:
        raise UserError(
            f"machine.micro_batch = {micro_batch} makes micro-batches of a single image out of {batch_size}, and batch "
            f"norm needs at least 2: give --set machine.micro_batch={least}"
        )


@dataclass(frozen=True)
class Passes:
    """How the forward and backward passes of a step are computed."""

    device: torch.device
    seed: str
    """Of the step's random numbers; every micro-batch has its own."""
    micro_batch: int | None = None
    autocast_dtype: torch.dtype | None = None
    scale: Callable[[Tensor], Tensor] = lambda loss: loss
    """What is done to a loss before its backward pass."""

    def autocast(self) -> AbstractContextManager[Any]:
        """The precision of a forward pass."""
        if self.autocast_dtype is None:
            return nullcontext()
        return torch.autocast(self.device.type, dtype=self.autocast_dtype)

    def draw_for(self, number: int) -> None:
        """Set torch's global random state for a micro-batch."""
        torch.manual_seed(Random(f"{self.seed}-{number}" if number else self.seed).getrandbits(63))


def add_gradients(method: Method, batch: Batch, progress: Progress, passes: Passes) -> StepOutput:
    """Add the gradients of a batch's loss to the parameters'. Returns loss, logs and carry of the whole batch.

    `batch` may lie on the host: one micro-batch at a time is moved to the device.
    """
    parts = batch.split(passes.micro_batch)
    if len(parts) > 1 and caches_gradients(method):
        output = _by_cached_gradients(method, parts, progress, passes)
    else:
        output = _by_accumulation(method, parts, progress, passes)
    with torch.no_grad():
        of_batch = method.batch_logs(output.carry)
    return StepOutput(output.loss, {**output.logs, **of_batch}, output.carry)


def _by_accumulation(method: Method, parts: Sequence[Batch], progress: Progress, passes: Passes) -> StepOutput:
    images = sum(len(part.index) for part in parts)
    outputs, shares = [], []
    for number, part in enumerate(parts):
        passes.draw_for(number)
        with passes.autocast():
            output: StepOutput = method(part.to(passes.device), progress)
        shares.append(len(part.index) / images)
        passes.scale(output.loss * shares[-1] if len(parts) > 1 else output.loss).backward()  # type: ignore[no-untyped-call]
        outputs.append(StepOutput(output.loss.detach(), output.logs, output.carry))
    if len(outputs) == 1:
        return outputs[0]
    loss = _mean([output.loss for output in outputs], shares)
    logs = {name: _mean([output.logs[name] for output in outputs], shares) for name in outputs[0].logs}
    return StepOutput(loss, logs, concatenated([output.carry for output in outputs]))


def _by_cached_gradients(method: Method, parts: Sequence[Batch], progress: Progress, passes: Passes) -> StepOutput:
    in_two = cast(WholeBatchLoss, method)

    def embed(number: int) -> Mapping[str, Tensor]:
        passes.draw_for(number)
        with passes.autocast():
            return in_two.embed(parts[number].to(passes.device))

    with torch.no_grad(), running_statistics_kept(method):
        embeddings = concatenated([embed(number) for number in range(len(parts))])
    for embedding in embeddings.values():
        embedding.requires_grad_(embedding.is_floating_point())
    with passes.autocast():
        output = in_two.loss(embeddings, progress)
    passes.scale(output.loss).backward()  # type: ignore[no-untyped-call]
    sizes = [len(part.index) for part in parts]
    cached = {name: torch.split(one.grad, sizes) for name, one in embeddings.items() if one.grad is not None}
    for number in range(len(parts)):
        again = {name: one for name, one in embed(number).items() if one.requires_grad and name in cached}
        torch.autograd.backward(list(again.values()), [cached[name][number] for name in again])
    return StepOutput(output.loss.detach(), output.logs, output.carry)


def concatenated(parts: Sequence[Mapping[str, Tensor]]) -> dict[str, Tensor]:
    """Tensors of several micro-batches as one, by name, along their leading dimension."""
    return {name: torch.cat([part[name] for part in parts]) for name in parts[0]}


def _mean(values: Sequence[Tensor], shares: Sequence[float]) -> Tensor:
    """() each -> (): their mean, weighted by `shares`, which sum to 1."""
    return torch.stack([value * share for value, share in zip(values, shares, strict=True)]).sum()
