"""Optimizers with their schedules: settings, construction from a method's parameter groups, values before each step."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from typing import Any, Literal

import torch
from torch import Tensor, nn

from ssl_bench.blocks.schedules import LrScaling, cosine, scaled_lr
from ssl_bench.method import ParameterGroup, Progress
from ssl_bench.settings import DecayRates, Settings, setting


class OptimizerSettings(Settings):
    """How the weights move. The defaults are DINO's for a ViT; every method's presets bring their own."""

    name: Literal["adamw", "sgd", "lars"] = setting("adamw", "Rule of the update.", source="DINO, section 3.2")
    base_lr: float = setting(
        5e-4, "Peak learning rate at a batch of 256.", unit="per step", source="DINO, section 3.2", gt=0
    )
    lr_scaling: LrScaling = setting(
        "linear", "How the peak grows with the batch size over all processes / 256.", source="Goyal et al. 2017"
    )
    warmup_epochs: float = setting(
        10, "Length of the linear warm-up of the learning rate from 0.", unit="epochs", source="DINO, section 3.2", ge=0
    )
    final_lr: float = setting(
        1e-6, "Learning rate at the end of its cosine.", unit="per step", source="DINO, main_dino.py", ge=0
    )
    weight_decay: float = setting(0.04, "Weight decay at the start.", source="DINO, section 3.2", ge=0)
    final_weight_decay: float | None = setting(
        0.4, "Weight decay at the end of its cosine; null keeps it constant.", source="DINO, section 3.2", ge=0
    )
    momentum: float = setting(0.9, "Momentum of SGD and LARS.", source="Goyal et al. 2017", ge=0, lt=1)
    betas: DecayRates = setting(
        (0.9, 0.999), "Decay rates of AdamW's averages of the gradient and of its square.", source="torch.optim.AdamW"
    )
    trust_coefficient: float = setting(
        0.001, "LARS: trusted length of a step relative to the weights' norm.", source="LARS, eq. 6, eta", gt=0
    )

    def warmup_steps(self, steps_per_epoch: int) -> int:
        """Steps of the linear warm-up."""
        return round(self.warmup_epochs * steps_per_epoch)


def build_optimizer(settings: OptimizerSettings, groups: Sequence[ParameterGroup]) -> torch.optim.Optimizer:
    """The optimizer over `groups`, with rates of 0 until `set_schedule` writes them; empty groups are left out."""
    given = [
        {"params": list(g.parameters), "name": g.name, "decayed": g.weight_decay, "lr_factor": g.lr_factor}
        for g in groups
        if g.parameters
    ]
    given = given or [{"params": []}]  # a network without parameters, which is not trained
    if settings.name == "adamw":
        return torch.optim.AdamW(given, lr=0.0, betas=settings.betas, weight_decay=0.0, fused=True)
    if settings.name == "sgd":
        return torch.optim.SGD(given, lr=0.0, momentum=settings.momentum, weight_decay=0.0, fused=True)
    return LARS(given, momentum=settings.momentum, trust_coefficient=settings.trust_coefficient)


def learning_rate(settings: OptimizerSettings, progress: Progress, batch_size: int) -> float:
    """Learning rate of this step, for a group with factor 1; `batch_size` in images over all processes."""
    peak = scaled_lr(settings.base_lr, batch_size, settings.lr_scaling)
    warmup_steps = settings.warmup_steps(progress.steps_per_epoch)
    return cosine(progress.step, progress.total_steps, peak, settings.final_lr, warmup_steps=warmup_steps)


def weight_decay(settings: OptimizerSettings, progress: Progress) -> float:
    """Weight decay of this step on the groups that have it."""
    if settings.final_weight_decay is None:
        return settings.weight_decay
    return cosine(progress.step, progress.total_steps, settings.weight_decay, settings.final_weight_decay)


def set_schedule(
    optimizer: torch.optim.Optimizer, settings: OptimizerSettings, progress: Progress, batch_size: int
) -> dict[str, float]:
    """Write this step's learning rate and weight decay into `optimizer`; returns both, for the log."""
    lr, decay = learning_rate(settings, progress, batch_size), weight_decay(settings, progress)
    for group in optimizer.param_groups:
        group["lr"] = lr * group["lr_factor"]
        group["weight_decay"] = decay if group["decayed"] else 0.0
    return {"lr": lr, "weight_decay": decay}


@torch.no_grad()
def clip_each(parameters: Iterable[nn.Parameter], max_norm: float) -> None:
    """Scale each gradient tensor whose own norm exceeds `max_norm` down to it (DINO, utils.clip_gradients)."""
    gradients = [p.grad for p in parameters if p.grad is not None]
    if not gradients:
        return
    factors = (max_norm / (torch.stack(torch._foreach_norm(gradients)) + 1e-6)).clamp(max=1.0)
    torch._foreach_mul_(gradients, list(factors.unbind()))


class LARS(torch.optim.Optimizer):
    """Layer-wise adaptive rate scaling (You et al. 2017, arXiv 1708.03888), with momentum.

    For each parameter tensor w with gradient g:  d = g + weight_decay * w;  trust = trust_coefficient * |w| / |d|,
    1 where either norm is 0;  v <- momentum * v + trust * d;  w <- w - lr * v.
    As in the code of SimCLR, BYOL and DINO, the denominator is the norm of the decayed gradient |g + decay * w|,
    where the paper's eq. 6 has |g| + decay * |w|, and the rate multiplies the velocity when it is applied.
    Groups with `decayed` False (biases, norms) are neither decayed nor adapted.
    """

    def __init__(
        self, params: Iterable[Any], lr: float = 0.0, *, momentum: float = 0.9, trust_coefficient: float = 0.001
    ) -> None:
        defaults = {"momentum": momentum, "trust_coefficient": trust_coefficient, "decayed": True}
        super().__init__(params, {"lr": lr, "weight_decay": 0.0, "lr_factor": 1.0, **defaults})

    @torch.no_grad()
    def step(self, closure: Callable[[], float] | None = None) -> None:  # type: ignore[override]
        """Move every parameter that has a gradient."""
        assert closure is None, "LARS evaluates no closure"
        for group in self.param_groups:
            held: list[Tensor] = [p for p in group["params"] if p.grad is not None]
            if not held:
                continue
            deltas: list[Tensor] = [p.grad for p in held if p.grad is not None]
            if group["decayed"]:
                deltas = list(torch._foreach_add(deltas, held, alpha=group["weight_decay"]))
                weight_norms = torch.stack(torch._foreach_norm(held))
                delta_norms = torch.stack(torch._foreach_norm(deltas))
                trust = group["trust_coefficient"] * weight_norms / delta_norms
                trust = torch.where((weight_norms > 0) & (delta_norms > 0), trust, torch.ones_like(trust))
                torch._foreach_mul_(deltas, list(trust.unbind()))
            velocities = [self._velocity(p) for p in held]
            torch._foreach_mul_(velocities, group["momentum"])
            torch._foreach_add_(velocities, deltas)
            torch._foreach_add_(held, velocities, alpha=-group["lr"])

    def _velocity(self, parameter: Tensor) -> Tensor:
        state: dict[str, Tensor] = self.state[parameter]
        if "velocity" not in state:
            state["velocity"] = torch.zeros_like(parameter)
        return state["velocity"]
