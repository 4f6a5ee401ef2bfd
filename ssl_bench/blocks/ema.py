"""Exponential moving average of weights, as momentum teachers and key encoders need it."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from ssl_bench.blocks.schedules import cosine


def momentum_at(step: int, total_steps: int, base: float, final: float = 1.0) -> float:
    """Momentum of the average at `step`: half a cosine from `base` to `final` (DINO, section 3.1; BYOL, 3.3)."""
    return cosine(step, total_steps, base, final)


@torch.no_grad()
def move_towards(teacher: nn.Module, student: nn.Module, momentum: float) -> None:
    """teacher <- momentum * teacher + (1 - momentum) * student, parameter by parameter, in place.

    Parameters go together by name; the student may have more, such as a predictor. Buffers, such as the running
    statistics of batch norm, are left alone: a teacher keeps its own. The result depends on nothing but the values,
    so two runs agree bit for bit.
    """
    torch._foreach_lerp_(*_pairs(teacher, student), 1.0 - momentum)


@torch.no_grad()
def copy_weights(teacher: nn.Module, student: nn.Module) -> None:
    """teacher <- student, parameters only, in place."""
    torch._foreach_copy_(*_pairs(teacher, student))


def _pairs(teacher: nn.Module, student: nn.Module) -> tuple[list[Tensor], list[Tensor]]:
    of_student = dict(student.named_parameters())
    named = list(teacher.named_parameters())
    return [parameter for _, parameter in named], [of_student[name] for name, _ in named]
