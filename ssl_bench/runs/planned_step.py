"""What makes a recipe's training step fit into a device, fastest way first, and what evaluations take there."""

from __future__ import annotations

from dataclasses import dataclass

from ssl_bench.planning.choices import Asked, Way
from ssl_bench.planning.devices import Device
from ssl_bench.planning.evaluation_memory import EvaluationMemory
from ssl_bench.recipes.resolve import Resolved
from ssl_bench.runs.predicting import StepPredictor
from ssl_bench.training.batches import steps_per_epoch


@dataclass(frozen=True)
class StepPlan:
    """The plan for one device."""

    device: Device
    tried: tuple[Way, ...]
    """Ways that see the whole batch at once."""
    chosen: Way | None
    """The fastest that fits; None where nothing does."""
    smallest: Way | None
    """The way that takes least memory, where nothing fits."""
    approximate: str
    """Why the chosen way is an approximation of the whole batch; empty where it is exact."""
    evaluation: EvaluationMemory
    note: str
    """How the figures came about where they are not predictions."""
    steps_per_epoch: int

    @property
    def ways(self) -> list[Way]:
        """All that are worth showing, each once."""
        return list(dict.fromkeys((*self.tried, *filter(None, (self.chosen, self.smallest)))))

    def epoch_seconds(self, way: Way) -> float | None:
        """An estimate of computing an epoch; None for a device of unknown speed."""
        return self.device.seconds(way.work * self.steps_per_epoch, way.choice.precision)


def asked_of(resolved: Resolved, device: Device, least: int) -> Asked:
    """What the user's settings leave the plan to decide."""
    precision, machine = resolved.recipe.training.precision, resolved.machine
    precisions = device.precisions if precision == "auto" else (precision,)
    return Asked(
        batch_size=resolved.recipe.training.batch_size,
        precisions=precisions,
        checkpointing=machine.activation_checkpointing,
        micro_batch=machine.micro_batch,
        least=least,
    )


def plan_step(resolved: Resolved, device: Device) -> StepPlan:
    """Plan a training step of the recipe for a device."""
    predictor = StepPredictor(resolved, batch_on_device=device.is_cpu)
    asked = asked_of(resolved, device, predictor.least)
    chosen, tried = predictor.fastest(asked, device.usable)
    return StepPlan(
        device=device,
        tried=tuple(tried),
        chosen=chosen,
        smallest=None if chosen else predictor.smallest(asked, tried),
        approximate=predictor.exactness(chosen.choice.micro_batch).reason if chosen else "",
        evaluation=predictor.evaluation(),
        note=predictor.note,
        steps_per_epoch=steps_per_epoch(len(resolved.training_split), asked.batch_size),
    )
