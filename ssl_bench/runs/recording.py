"""The record of a run: what was asked for, what was measured before and after training, on which machine."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Literal

import torch

from ssl_bench import registry
from ssl_bench.recipes.preset_changes import changed_settings
from ssl_bench.recipes.resolve import Resolved
from ssl_bench.records.cost import TrainingRecord
from ssl_bench.records.curves import summarize_curves
from ssl_bench.records.record import BackboneRecord, EvaluationRecord, RunRecord
from ssl_bench.records.steps import summarize_step_curves
from ssl_bench.runs import machine
from ssl_bench.runs.fitting import as_planned
from ssl_bench.runs.folder import Start
from ssl_bench.runs.precision import Precision
from ssl_bench.runs.state import RunState

Status = Literal["finished", "collapsed", "failed"]


@dataclass(frozen=True)
class Outcome:
    """How a run ended."""

    status: Status
    reason: str
    """Why it did not finish; else empty."""
    training: TrainingRecord
    trained: tuple[EvaluationRecord, ...]
    """Evaluations of the trained network."""


def run_record(
    resolved: Resolved, start: Start, state: RunState, outcome: Outcome, backbone: BackboneRecord, device: torch.device
) -> RunRecord:
    """The record of a run that ended; `state` holds what was measured before training."""
    before, recipe = state.before_training, resolved.recipe
    assert before is not None, "a run that ended was measured before training"
    return RunRecord(
        run_id=start.run_dir.name,
        status=outcome.status,
        status_reason=outcome.reason,
        notes=state.notes,
        preset=state.preset,
        preset_reason=state.preset_reason,
        changed_settings=changed_settings(resolved, state.preset),
        recipe=recipe.model_dump(mode="json"),
        digest=recipe.digest,
        seed=recipe.training.seed,
        method=recipe.method.name,
        method_plugin=registry.find("method", recipe.method.name).origin,
        backbone=backbone.model_copy(update=before.speed.model_dump()),
        data=state.data,
        eval_data=state.eval_data,
        machine=machine.record(
            device,
            Precision(before.precision, before.precision_reason, None),
            as_planned(resolved.machine, outcome.training.memory),
        ),
        training=outcome.training,
        evaluations=(*before.untrained, *outcome.trained),
        curves=summarize_curves(start.run_dir),
        step_curves=summarize_step_curves(start.run_dir),
        versions=machine.versions(),
        git_commit=machine.git_commit(),
        command=start.command,
        started_utc=state.started_utc,
        finished_utc=datetime.now(UTC).isoformat(timespec="seconds"),
    )
