"""Ways to do a training step, and which of them fits and is fastest."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace

from ssl_bench.planning.step_memory import StepMemory

START_OF_A_PASS = 1.0
"""What starting a forward and backward pass costs, in images: 8 micro-batches of 32 take as long as 264 images. An
assumption, so that of two ways with the same work the one with fewer passes is faster."""


@dataclass(frozen=True)
class Choice:
    """A way to do a training step; `Predict` tells its memory."""

    precision: str
    checkpointing: bool
    micro_batch: int | None = None
    """Most images in a forward pass; None: the whole batch."""

    @property
    def words(self) -> str:
        """E.g. "fp32, activation checkpointing, 32 images at once"."""
        parts = [self.precision]
        parts += ["activation checkpointing"] if self.checkpointing else []
        parts += [] if self.micro_batch is None else [f"{self.micro_batch} at once"]
        return ", ".join(parts)

    @property
    def settings(self) -> dict[str, str]:
        """What `sslbench run --set` takes, by key."""
        given = {"training.precision": self.precision}
        if self.checkpointing:
            given["machine.activation_checkpointing"] = "true"
        if self.micro_batch is not None:
            given["machine.micro_batch"] = str(self.micro_batch)
        return given


@dataclass(frozen=True)
class Asked:
    """What the user has set and the plan leaves as it is; None: the plan decides."""

    batch_size: int
    precisions: Sequence[str]
    """In the order in which they are wanted."""
    checkpointing: bool | None = None
    micro_batch: int | None = None
    least: int = 1
    """Images that a micro-batch must have: 2 with batch norm."""


Predict = Callable[[Choice], StepMemory]
Exact = Callable[[int | None], bool]
"""Micro-batch -> whether its gradients are those of the whole batch."""


@dataclass(frozen=True, eq=False)
class Way:
    """A choice with what is predicted for it."""

    choice: Choice
    memory: StepMemory
    exact: bool
    passes: int
    """Forward and backward passes of a step."""
    batch_size: int

    @property
    def work(self) -> float:
        """Operations of a step and of starting its passes: what its time is compared by, and estimated from."""
        return self.memory.operations * (1 + START_OF_A_PASS * self.passes / self.batch_size)


def fastest(
    asked: Asked, predict: Predict, exact: Exact, usable: int, can_recompute: bool
) -> tuple[Way | None, list[Way]]:
    """The fastest way of which the peak is at most `usable` bytes, exact ones before approximate ones, and all ways
    that see the whole batch at once (or the micro-batch that is asked for) and were predicted on the way there.

    A prediction takes a second, so none is made that cannot change the answer: nothing is faster than the whole batch
    without activation checkpointing, and a precision is looked at only where nothing fits at those before it.
    """
    tried: list[Way] = []
    for precision in asked.precisions:
        wholes = []
        for checkpointing in _recomputing(asked, can_recompute):
            wholes.append(_way(Choice(precision, checkpointing, asked.micro_batch), asked, predict, exact))
            if wholes[-1].memory.peak <= usable:
                break
        tried += wholes
        way = _fastest_from(wholes, asked, predict, exact, usable)
        if way is not None:
            return way, tried
    return None, tried


def _fastest_from(wholes: Sequence[Way], asked: Asked, predict: Predict, exact: Exact, usable: int) -> Way | None:
    """The fastest of the ways that fit, and of those with smaller micro-batches than the ones that do not fit.

    Where none of them fits, or where micro-batches are exact and may be faster than computing activations again, the
    largest micro-batch that fits is looked for. Approximate micro-batches are as large as possible instead of as fast
    as possible: batch norm then sees most images.
    """
    found = [way for way in wholes if way.memory.peak <= usable]
    too_large = [way for way in wholes if way.memory.peak > usable]
    if asked.micro_batch is None and exact(asked.least):
        for way in too_large:
            if not found or way.memory.operations < min(one.work for one in found):
                found += _largest_micro_batch(way, asked, predict, exact, usable)
    elif asked.micro_batch is None and not found:
        for way in reversed(too_large):
            found = found or _largest_micro_batch(way, asked, predict, exact, usable)
    return min(found, key=lambda way: way.work, default=None)


def smallest(asked: Asked, predict: Predict, exact: Exact, tried: Sequence[Way]) -> Way:
    """The way that takes least memory: the smallest micro-batches, unless another size is asked for."""
    ways, sizes = list(tried), list(micro_batches(asked.batch_size, asked.least))
    if asked.micro_batch is None and sizes:
        ways += [_way(replace(way.choice, micro_batch=sizes[-1]), asked, predict, exact) for way in tried[-1:]]
    return min(ways, key=lambda way: way.memory.peak)


def micro_batches(batch_size: int, least: int = 1) -> Iterator[int]:
    """Largest micro-batch of 2, 4, 8 ... parts of a batch, as long as the smallest has `least` images."""
    parts = 2
    while parts <= batch_size and batch_size // parts >= least:
        yield -(-batch_size // parts)
        parts *= 2


def _recomputing(asked: Asked, can_recompute: bool) -> list[bool]:
    """Whether activations are computed again, the faster first."""
    if asked.checkpointing is not None:
        return [asked.checkpointing]
    return [False, True] if can_recompute else [False]


def _way(choice: Choice, asked: Asked, predict: Predict, exact: Exact) -> Way:
    size = choice.micro_batch or asked.batch_size
    passes = -(-asked.batch_size // size)
    return Way(choice, predict(choice), exact(choice.micro_batch), passes, asked.batch_size)


def _largest_micro_batch(way: Way, asked: Asked, predict: Predict, exact: Exact, usable: int) -> list[Way]:
    """The largest of `micro_batches` that fits, as a list of one; empty where none does.

    `way` sees the whole batch. A smaller micro-batch takes less memory, nearly in proportion to its images, so sizes
    are looked at from the guess that this gives, upwards as long as they fit or downwards until one does.
    """
    sizes = list(micro_batches(asked.batch_size, asked.least))
    guess = sum(_guessed(way, size) > usable for size in sizes)

    def at(size: int) -> Way:
        return _way(replace(way.choice, micro_batch=size), asked, predict, exact)

    found: list[Way] = []
    for size in reversed(sizes[: guess + 1]):
        one = at(size)
        if one.memory.peak > usable:
            break
        found = [one]
    if found:
        return found
    for size in sizes[guess + 1 :]:
        one = at(size)
        if one.memory.peak <= usable:
            return [one]
    return []


def _guessed(way: Way, micro_batch: int) -> float:
    """Bytes with a micro-batch, from those of the whole batch: what is there for every image shrinks."""
    parts = way.memory.parts
    grows = parts["activations"] + parts.get("views", 0)
    gradients = parts["weights"] - parts.get("gradients", 0)  # those of earlier micro-batches are there all the time
    return way.memory.peak - grows + gradients + grows * micro_batch / way.batch_size
