"""What makes a training step fit: precision, activation checkpointing, and the largest batch of each."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass

from ssl_bench.planning.step_memory import StepMemory

LARGEST = 2**20
"""No larger batch is tried."""
TRIES = 12
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
    """About the largest batch whose peak is at most `usable` bytes, and never a larger one; 0 where none fits.

    `predict` tells the peak of a batch, which grows with it, and `peak` is that of `batch`. Most peaks are nearly a
    straight line in the batch, those of losses over all pairs of images a parabola: the next batch to try lies where
    the line through the last two meets the limit, or halfway (in factors) between what fits and what does not.
    """
    fits, too_large = (batch, LARGEST + 1) if peak <= usable else (0, batch)
    last, last_peak = batch, peak
    guess = batch // 2 if batch > 1 else 2
    for _ in range(TRIES):
        guess_peak = predict(guess)
        if guess_peak <= usable:
            fits = max(fits, guess)
        else:
            too_large = min(too_large, guess)
        if too_large - fits <= 1:
            break
        slope = (guess_peak - last_peak) / (guess - last) if guess != last else 0.0
        last, last_peak = guess, guess_peak
        on_line = math.floor(last + (usable - last_peak) / slope) if slope > 0 else 0
        if fits and abs(on_line - fits) <= fits * CLOSE:
            break
        halfway = max(fits + 1, math.isqrt(max(1, fits) * too_large))
        guess = on_line if fits < on_line < too_large else halfway
        guess = min(guess, halfway if last_peak > usable else guess, too_large - 1)
    return fits
