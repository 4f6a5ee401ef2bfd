"""How a process begins its part of a run: it tries one batch for the precision, or restores the last checkpoint."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable
from pathlib import Path

import torch

from ssl_bench.errors import UserError
from ssl_bench.method import Batch, MakeViews, Method, evaluated_network
from ssl_bench.recipes.resolve import Resolved
from ssl_bench.registry.preflight import require_step_output
from ssl_bench.runs.precision import Precision, choose_precision, first_step
from ssl_bench.runs.trial import step_failure
from ssl_bench.training.checkpoint import load_latest
from ssl_bench.training.loop import Plan, TrainingState, restore


def precision_on_first_batch(method: Method, make_views: MakeViews, plan: Plan, resolved: Resolved) -> Precision:
    """Choose the precision on the first real batch, which also tries the views and the step before long work."""
    if plan.total_steps == 0:
        return Precision("fp32", "nothing is trained", None)
    batch: Batch | None = None
    try:
        batch = next(dataclasses.replace(plan, workers=0).batches(method, make_views))
        require_step_output(first_step(method, batch, plan), resolved.recipe.method.name)
        return choose_precision(resolved.recipe.training.precision, method, batch, plan)
    except torch.OutOfMemoryError as error:
        raise UserError(
            f"one batch of {plan.batch_size} images does not fit into the memory of {plan.device}: give a smaller "
            "--batch-size"
        ) from error
    except UserError:
        raise
    except Exception as error:
        raise step_failure(error, batch, evaluated_network(method), resolved) from error


def resumed_state(
    method: Method, optimizer: torch.optim.Optimizer, run_dir: Path, line: Callable[[str, str], None]
) -> TrainingState:
    """Method and optimizer put into the state of the run's last checkpoint; `line` shows where that is."""
    checkpoint = load_latest(run_dir / "checkpoints")
    if checkpoint is None:
        line("resume", "at step 0: no checkpoint was completed before the stop")
        return TrainingState()
    for warning in checkpoint.warnings:
        line("warning", f"{warning}; resuming from the checkpoint before it")
    state = restore(method, optimizer, checkpoint)
    line("resume", f"at step {state.step:,}; the result will be bitwise the uninterrupted one")
    return state
