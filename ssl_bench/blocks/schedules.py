"""Schedules: pure functions from how far a run has come to a value. No state, so that resuming needs none."""

from __future__ import annotations

import math
from typing import Literal

LrScaling = Literal["linear", "sqrt", "none"]


def cosine(
    step: int, total_steps: int, start: float, end: float, *, warmup_steps: int = 0, warmup_start: float = 0.0
) -> float:
    """Value at `step` of `total_steps`: a linear warm-up from `warmup_start`, then half a cosine, `start` to `end`.

    As `cosine_scheduler` in DINO's utils.py: the last of the warm-up's steps already has the value `start`, so has
    the first step after it, and `end` is what the step after the last would have. A warm-up longer than the run is
    cut off by its end.
    """
    if step < warmup_steps:
        return linear_ramp(step, warmup_steps, warmup_start, start)
    done = (step - warmup_steps) / max(1, total_steps - warmup_steps)
    return end + 0.5 * (start - end) * (1.0 + math.cos(math.pi * done))


def linear_ramp(position: float, length: float, start: float, end: float) -> float:
    """From `start` at position 0 to `end` at position `length - 1`, and `end` from there on (numpy's linspace)."""
    if length <= 0 or position >= length:
        return end
    return start + (end - start) * min(1.0, position / max(1.0, length - 1))


def scaled_lr(base_lr: float, batch_size: int, scaling: LrScaling) -> float:
    """Peak learning rate for a batch of `batch_size` over all processes; `base_lr` is for a batch of 256.

    "linear": base * batch / 256 (Goyal et al. 2017, arXiv 1706.02677); "sqrt": base * sqrt(batch / 256);
    "none": base.
    """
    factor = {"linear": batch_size / 256, "sqrt": math.sqrt(batch_size / 256), "none": 1.0}[scaling]
    return base_lr * factor
