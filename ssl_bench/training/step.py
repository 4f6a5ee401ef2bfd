"""One optimizer step of any method, and what comes before the first: in which order a method is called.

The global random state is set from (seed, step), so that a step does not depend on those before it.
"""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Iterable

import torch

from ssl_bench.blocks.optimizers import set_schedule
from ssl_bench.method import Batch, Method, Progress
from ssl_bench.registry.failures import in_one_message
from ssl_bench.training.collapse_doctor import DIVERGED, RunFailed
from ssl_bench.training.metrics_log import sent_to_host
from ssl_bench.training.micro_batches import Passes, add_gradients
from ssl_bench.training.out_of_memory import (
    NormStatistics,
    half_done_where_it_does_not_fit,
    undone_where_it_does_not_fit,
)
from ssl_bench.training.plan import Plan
from ssl_bench.training.precision import LossScaling, ScalingState

LOSS = "loss of the step"
"""Key of the loss that is checked; a method may log another value as "loss"."""


def prepare(method: Method, batches: Iterable[Batch], plan: Plan) -> None:
    """Call the method's `prepare` at the plan's precision and without gradient.

    Raises `UserError` for any error in it, in one message; `DoesNotFit` where memory runs out.
    """
    passes = Passes(plan.device, f"prepare-{plan.seed}", autocast_dtype=plan.autocast_dtype)
    passes.draw_for(0)
    told = in_one_message(f"prepare() of {type(method).__name__} fails")
    with told, undone_where_it_does_not_fit(method, plan.images_at_once), torch.no_grad(), passes.autocast():
        method.train().prepare(batch.to(plan.device) for batch in batches)
    method.train()


def training_step(
    method: Method,
    optimizer: torch.optim.Optimizer,
    batch: Batch,
    progress: Progress,
    plan: Plan,
    scaling: LossScaling | None = None,
    statistics: NormStatistics | None = None,
) -> dict[str, float]:
    """One optimizer step of the contract: schedule, step, backward, before_optimizer, optimizer, update.

    `batch` is on the host: what is computed next is moved to the device, the whole or a micro-batch at a time. Where
    gradients overflow in fp16, optimizer and update are left out, running statistics are put back, and only what is
    finite is logged. `statistics` are kept by the caller, so that they need no new memory at each step.
    """
    scaling = scaling or LossScaling(plan.device, plan.autocast_dtype, ScalingState())
    statistics = statistics or NormStatistics(method)
    scheduled = set_schedule(optimizer, plan.optimizer, progress, plan.batch_size)
    passes = dataclasses.replace(plan.passes(progress.step), scale=scaling.scale)
    with undone_where_it_does_not_fit(method, plan.images_at_once, statistics):
        output = add_gradients(method, batch, progress, passes)
    with half_done_where_it_does_not_fit(progress.step):
        scaling.unscale(optimizer)
        gradients = [p.grad for group in optimizer.param_groups for p in group["params"] if p.grad is not None]
        gradient_norm = torch.nn.utils.get_total_norm(gradients)  # before the method clips them
        values = {"loss": output.loss, **output.logs, "gradient_norm": gradient_norm, LOSS: output.loss}
        read = sent_to_host(values)
        method.before_optimizer(progress)
        done = scaling.step(optimizer)
        optimizer.zero_grad(set_to_none=True)  # now: the next forward pass needs their memory
    numbers = read()  # waits for the backward pass, while a card computes the optimizer's step
    loss = numbers.pop(LOSS)  # whatever the method logs under its name
    if not scaling.enabled and not math.isfinite(loss):
        raise RunFailed(f"the loss is {loss} at step {progress.step} (epoch {progress.epoch + 1}). {DIVERGED}")
    if done:
        with half_done_where_it_does_not_fit(progress.step), torch.no_grad():
            method.update(output.carry, progress)
    else:
        statistics.put_back()
    logs = {**numbers, **scheduled}
    if scaling.enabled:
        logs = {name: value for name, value in logs.items() if math.isfinite(value)}
        logs["loss_scale"] = scaling.state.scale
    return logs
