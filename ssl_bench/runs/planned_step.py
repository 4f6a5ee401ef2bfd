"""What makes a recipe's training step fit into a device, fastest way first, and what evaluations take there."""

from __future__ import annotations

from dataclasses import dataclass
from functools import cache

from ssl_bench.evaluation.speed import THROUGHPUT_BATCH
from ssl_bench.planning.choices import Asked, Way
from ssl_bench.planning.devices import Device
from ssl_bench.planning.evaluation_memory import EvaluationMemory, most_images
from ssl_bench.planning.step_memory import StepMemory
from ssl_bench.recipes.resolve import Resolved
from ssl_bench.runs.predicting import StepPredictor
from ssl_bench.training.batches import steps_per_epoch
from ssl_bench.training.micro_batches import refuse_single_images


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
    images_per_pass: int
    """Of the evaluation."""
    note: str
    """How the figures came about where they are not predictions."""
    steps_per_epoch: int

    @property
    def ways(self) -> list[Way]:
        """All that are worth showing, each once."""
        return list(dict.fromkeys((*self.tried, *filter(None, (self.chosen, self.smallest)))))

    @property
    def step(self) -> StepMemory:
        """Of the chosen way, else of the smallest."""
        return (self.chosen or self.ways[-1]).memory

    @property
    def evaluation_peak(self) -> int:
        """Bytes while the trained network is evaluated: weights and moments stay. On a CPU with all features."""
        features = self.evaluation.features if self.device.is_cpu else 0
        return self.step.held + self.evaluation.extraction + features

    def epoch_seconds(self, way: Way) -> float | None:
        """An estimate of computing an epoch; None for a device of unknown speed."""
        return self.device.seconds(way.work * self.steps_per_epoch, way.choice.precision)


def asked_precision(resolved: Resolved) -> str:
    """The recipe's; its "auto" is what an earlier run recorded where `machine.auto_precision` says so."""
    asked, recorded = resolved.recipe.training.precision, resolved.machine.auto_precision
    return recorded if asked == "auto" and recorded != "measure" else asked


def asked_of(resolved: Resolved, device: Device, least: int) -> Asked:
    """What the user's settings leave the plan to decide."""
    precision, machine = asked_precision(resolved), resolved.machine
    precisions = device.precisions if precision == "auto" else (precision,)
    return Asked(
        batch_size=resolved.recipe.training.batch_size,
        precisions=precisions,
        checkpointing=machine.activation_checkpointing,
        micro_batch=machine.micro_batch,
        least=least,
    )


def plan_step(resolved: Resolved, device: Device) -> StepPlan:
    """Plan a training step of the recipe for a device. Raises `UserError` for micro-batches that no run takes."""
    predictor = StepPredictor(resolved, batch_on_device=device.is_cpu)
    asked = asked_of(resolved, device, predictor.least)
    refuse_single_images(predictor.method, asked.batch_size, asked.micro_batch)
    chosen, tried = predictor.fastest(asked, device.usable)
    smallest = None if chosen else predictor.smallest(asked, tried)
    evaluation, images = cache(predictor.evaluation), THROUGHPUT_BATCH
    if not device.is_cpu:  # as a run does it
        room = device.usable - (chosen or smallest or tried[-1]).memory.held
        images = max(1, most_images(lambda images: evaluation(images).extraction, room, images))
    return StepPlan(
        device=device,
        tried=tuple(tried),
        chosen=chosen,
        smallest=smallest,
        approximate=predictor.exactness(chosen.choice.micro_batch).reason if chosen else "",
        evaluation=evaluation(images),
        images_per_pass=images,
        note=predictor.note,
        steps_per_epoch=steps_per_epoch(len(resolved.training_split), asked.batch_size),
    )
