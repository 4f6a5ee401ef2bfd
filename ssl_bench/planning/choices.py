"""What makes a training step fit: precision, activation checkpointing, and the largest batch of each."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass

from ssl_bench.planning.step_memory import StepMemory

TRIES = 6
CLOSE = 0.05
"""Of the largest batch: nearer is not looked for."""


@dataclass(frozen=True)
class Choice:
    """A way to do a training step; `Predict` tells its memory."""

    precision: str
    """fp32 or bf16."""
    checkpointing: bool

    @property
    def words(self) -> str:
        """E.g. "fp32, activation checkpointing"."""
        return self.precision + (", activation checkpointing" if self.checkpointing else "")

    @property
    def settings(self) -> str:
        """As `sslbench run` takes them."""
        checkpointing = " --set machine.activation_checkpointing=true" if self.checkpointing else ""
        return f"--set training.precision={self.precision}{checkpointing}"


Predict = Callable[[Choice, int], StepMemory]
"""(choice, batch size) -> memory of a step."""


def choices(*, bf16: bool) -> list[Choice]:
    """Every way, in the order in which they usually are fast: recomputing activations costs about a third more time."""
    precisions = ["bf16", "fp32"] if bf16 else ["fp32"]
    return [Choice(precision, checkpointing) for checkpointing in (False, True) for precision in precisions]


def largest_batch(predict: Callable[[int], int], usable: int, batch: int, peak: int) -> int:
    """About the largest batch whose peak is at most `usable` bytes, and never a larger one; 0 where none was found.

    `predict` tells the peak of a batch, and `peak` is that of `batch`. A peak is nearly a straight line in the batch,
    so each guess lies on the line through the last two.
    """
    fits, fails = (batch, 1 << 30) if peak <= usable else (0, batch)
    other = batch // 2 if batch > 1 else 2
    for _ in range(TRIES):
        other_peak = predict(other)
        if other_peak <= usable:
            fits = max(fits, other)
        else:
            fails = min(fails, other)
        slope = (other_peak - peak) / (other - batch)
        if slope <= 0 or fails - fits <= max(1, fits * CLOSE):
            break
        guess = other + math.floor((usable - other_peak) / slope)
        if abs(guess - fits) <= fits * CLOSE:
            break
        batch, peak = other, other_peak
        other = min(fails - 1, max(fits + 1, guess))
    return fits
