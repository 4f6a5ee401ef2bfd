"""A step in micro-batches of which only the last one is computed: the others take the same work and less memory.

For predictions: a batch of 4096 images in micro-batches of 8 is otherwise 512 times the same pass. What the others
leave behind (gradients, carries, embeddings and their gradients) is there at its size.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import replace
from typing import TypeVar, cast

import torch
from torch import Tensor

from ssl_bench.blocks.recompute import running_statistics_kept
from ssl_bench.method import Batch, Method, Progress, WholeBatchLoss
from ssl_bench.planning.live_memory import LiveMemory
from ssl_bench.training.micro_batches import Passes, add_gradients, caches_gradients, concatenated

Result = TypeVar("Result")


def gradients_of_few(
    method: Method, batch: Batch, progress: Progress, passes: Passes, memory: LiveMemory
) -> Mapping[str, Tensor]:
    """As `training.micro_batches.add_gradients` takes memory; returns the carry, of the whole batch's size.

    Views that `memory` does not count yet are on the host: it counts those of a micro-batch.
    """
    count = 1 if passes.micro_batch is None else -(-len(batch.index) // passes.micro_batch)
    part = _first_of(count, batch)
    if not memory.now["views"]:
        part = replace(part, views=tuple(torch.zeros(view.shape, dtype=view.dtype) for view in part.views))
        memory.move(part.views, "views")
    if count == 1:
        return add_gradients(method, part, progress, passes).carry
    if caches_gradients(method):
        return _by_cached_gradients(method, part, count, progress, passes, memory)
    return _by_accumulation(method, part, count, progress, passes, memory)


def _first_of(count: int, batch: Batch) -> Batch:
    """A largest one of `count` micro-batches as `Batch.split` makes them; slicing all of them takes seconds."""
    if count == 1:
        return batch
    images = len(batch.index)
    size = -(-images // count)
    labels = None if batch.labels is None else batch.labels[:size]
    return Batch(tuple(view[:size] for view in batch.views), batch.index[:size], labels, images)


def _by_accumulation(
    method: Method, part: Batch, count: int, progress: Progress, passes: Passes, memory: LiveMemory
) -> Mapping[str, Tensor]:
    def one() -> Mapping[str, Tensor]:
        with passes.autocast():
            output = method(part, progress)
        (output.loss * 0.5).backward()
        return cast(Mapping[str, Tensor], output.carry)

    _gradients_of_earlier_ones(method, memory)
    earlier_peak, earlier_parts, memory.peak = memory.peak, memory.at_peak, 0
    carry, work = _counted(one, memory)
    others = _others(carry, count)
    memory.peak += (there := sum(other.nbytes for other in others.values()))
    memory.at_peak["activations"] += there  # at the peak of the last micro-batch the others' carries are there
    if earlier_peak > memory.peak:
        memory.peak, memory.at_peak = earlier_peak, earlier_parts
    memory.operations += (count - 1) * work
    return concatenated([carry, others])


def _by_cached_gradients(
    method: Method, part: Batch, count: int, progress: Progress, passes: Passes, memory: LiveMemory
) -> Mapping[str, Tensor]:
    in_two, images = cast(WholeBatchLoss, method), len(part.index)

    def embed() -> Mapping[str, Tensor]:
        with passes.autocast():
            return in_two.embed(part)

    with torch.no_grad(), running_statistics_kept(method):
        one, work = _counted(embed, memory)
        embeddings = concatenated([one, _others(one, count)])
        del one
    memory.operations += (count - 1) * work
    for embedding in embeddings.values():
        embedding.requires_grad_(embedding.is_floating_point())
    with passes.autocast():
        output = in_two.loss(embeddings, progress)
    output.loss.backward()  # type: ignore[no-untyped-call]
    cached = {name: one.grad[:images] for name, one in embeddings.items() if one.grad is not None}

    def propagate() -> None:
        again = {name: one for name, one in embed().items() if one.requires_grad and name in cached}
        torch.autograd.backward(list(again.values()), [cached[name] for name in again])

    _gradients_of_earlier_ones(method, memory)
    _, work = _counted(propagate, memory)
    memory.operations += (count - 1) * work
    return output.carry


def _gradients_of_earlier_ones(method: Method, memory: LiveMemory) -> None:
    """Every micro-batch but the first finds them; a loss over the whole batch may have given some already."""
    for parameter in method.parameters():
        if parameter.requires_grad and parameter.grad is None:
            parameter.grad = torch.zeros_like(parameter)
            memory.move([parameter.grad], "gradients")


def _others(of_one: Mapping[str, Tensor], count: int) -> dict[str, Tensor]:
    """What `count - 1` further micro-batches leave behind, along the leading dimension."""
    return {name: value.new_empty((count - 1) * len(value), *value.shape[1:]) for name, value in of_one.items()}


def _counted(compute: Callable[[], Result], memory: LiveMemory) -> tuple[Result, int]:
    """The result and how many operations it took."""
    before = memory.operations
    result = compute()
    return result, memory.operations - before
