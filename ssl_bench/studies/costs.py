"""Time and memory of runs before they are done, learned from records of the same kind of run on the same machine.

A kind (`plan.kind`) leaves out seed, rates and number of epochs. Of each run that ended here, training time per epoch
and everything else (starting, evaluating) are known apart, so that a run of more epochs is predicted, too. Where no
run of the kind has ended here the nearest one is taken, scaled by images and epochs, and the prediction is marked as
a guess. During a study, predictions for other kinds are corrected by how far the first ones were off: a machine that is
busy is slower at everything.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, replace
from datetime import datetime
from statistics import median
from typing import Literal

from ssl_bench.records.recipe import Recipe
from ssl_bench.records.record import RunRecord
from ssl_bench.studies.plan import kind

START_SECONDS = 3.0
"""From starting a process to the first thing that its record counts."""
LATEST = 3
"""Runs of a kind whose median counts: the latest, since a machine may have become busier or quieter."""


@dataclass(frozen=True)
class Machine:
    """What the time of a run depends on beside the run."""

    device: str
    platform: str
    cores: int
    threads: int
    is_cpu: bool = True
    """Whether the processor computes, and not a graphics card."""
    memory_mb: float | None = None
    """All that the machine has, or the card where one computes; None: unknown."""

    def same_as(self, record: RunRecord) -> bool:
        """Whether a record was made on such a machine; its number of threads may differ."""
        there = record.machine
        return (there.device, there.platform, there.cores) == (self.device, self.platform, self.cores)


@dataclass(frozen=True)
class Cost:
    """What a run will take."""

    seconds: float
    other_seconds: float
    """Part of these: everything but training."""
    memory_mb: float | None
    """Peak of the process; None: nothing tells."""
    basis: Literal["measured", "tried", "guessed"]
    """From runs of its kind, from a trial of a few steps, or from runs of other kinds."""
    uncorrected: float
    """`seconds` without the correction by the runs of this study."""


@dataclass(frozen=True)
class Sample:
    """What one run of a kind took, or a trial says that it takes."""

    seconds_per_epoch: float
    other_seconds: float
    """Starting, evaluating, writing."""
    memory_mb: float | None
    """None: not measured."""
    ended: str = ""
    """UTC, to find the latest."""
    tried: bool = False

    def seconds(self, epochs: float) -> float:
        """Of a run of so many epochs."""
        return self.seconds_per_epoch * epochs + self.other_seconds


def sample_of(record: RunRecord, machine: Machine) -> Sample | None:
    """What a record says of its kind, for the machine's number of threads; None where no run made it."""
    training = record.training
    if training is None:
        return None
    if training.resumed:
        whole = training.seconds + sum(one.seconds for one in record.evaluations)
    else:
        begun, ended = map(datetime.fromisoformat, (record.started_utc, record.finished_utc))
        whole = (ended - begun).total_seconds()
    slower = record.machine.threads / machine.threads if machine.is_cpu else 1.0
    return Sample(
        seconds_per_epoch=slower * training.seconds / training.epochs if training.epochs else 0.0,
        other_seconds=slower * max(0.0, whole - training.seconds) + START_SECONDS,
        memory_mb=training.peak_memory_mb,
        ended=record.finished_utc,
    )


class Costs:
    """What is known of kinds of runs on this machine."""

    def __init__(self, machine: Machine, records: Iterable[RunRecord] = ()) -> None:
        self._machine = machine
        self._samples: dict[str, list[Sample]] = {}
        self._recipes: dict[str, Recipe] = {}
        """One of each kind, to find the nearest."""
        self._predicted = self._taken = 0.0
        """Seconds of the runs of this study, as far as predicted before they were done."""
        for record in records:
            if machine.same_as(record):
                self.learn(record)

    def learn(self, record: RunRecord) -> None:
        """Take in a run that ended on this machine."""
        sample = sample_of(record, self._machine)
        if sample is None or record.status == "failed":  # it may have ended anywhere
            return
        recipe = Recipe.model_validate(record.recipe)
        self._add(recipe, sample)

    def learn_trial(self, recipe: Recipe, sample: Sample) -> None:
        """Take in what a trial of a few steps says; it counts until a run of the kind has ended."""
        self._add(recipe, sample)

    def knows(self, recipe: Recipe) -> bool:
        """Whether a run of this kind, or a trial of it, is known."""
        return kind(recipe) in self._samples

    def compare(self, predicted: Cost, seconds: float) -> None:
        """Take in how long a run of this study took that was predicted before."""
        self._predicted += predicted.uncorrected  # what is corrected already would hide how far off it was
        self._taken += seconds

    def of(self, recipe: Recipe) -> Cost | None:
        """What a run of this recipe will take; None where no run at all has ended here."""
        samples = self._samples.get(kind(recipe), [])
        runs = sorted((one for one in samples if not one.tried), key=lambda one: one.ended)[-LATEST:]
        epochs = recipe.training.epochs
        if runs:
            memory = [one.memory_mb for one in runs if one.memory_mb is not None]
            other, seconds = median(one.other_seconds for one in runs), median(one.seconds(epochs) for one in runs)
            return Cost(seconds, other, max(memory, default=None), "measured", seconds)
        if samples:
            tried = samples[-1]
            return self._corrected(tried, epochs, "tried")
        guess = self._nearest(recipe)
        return None if guess is None else self._corrected(guess, epochs, "guessed")

    def _corrected(self, sample: Sample, epochs: int, basis: Literal["tried", "guessed"]) -> Cost:
        slower, seconds = self._slower, sample.seconds(epochs)
        return Cost(seconds * slower, sample.other_seconds * slower, sample.memory_mb, basis, seconds)

    @property
    def _slower(self) -> float:
        """How much longer the runs of this study took than was predicted of them."""
        return self._taken / self._predicted if self._predicted else 1.0

    def _add(self, recipe: Recipe, sample: Sample) -> None:
        self._samples.setdefault(kind(recipe), []).append(sample)
        self._recipes.setdefault(kind(recipe), recipe)

    def _nearest(self, recipe: Recipe) -> Sample | None:
        """The latest sample of the kind that is most alike, scaled to the images of this one.

        A run that trains nothing says nothing of one that does.
        """
        trains = bool(recipe.training.epochs)
        known = [name for name, other in self._recipes.items() if other.training.epochs or not trains]
        if not known:
            return None
        nearest = min(known, key=lambda name: _unlike(self._recipes[name], recipe))
        other, sample = self._recipes[nearest], self._samples[nearest][-1]
        pixels = (recipe.data.image_px / other.data.image_px) ** 2
        trained = _ratio(recipe.data.train_images, other.data.train_images)
        evaluated = _ratio(_evaluated(recipe), _evaluated(other))
        return replace(
            sample,
            seconds_per_epoch=sample.seconds_per_epoch * trained * pixels,
            other_seconds=sample.other_seconds * evaluated * pixels,
        )


def _unlike(one: Recipe, other: Recipe) -> tuple[bool, bool, int]:
    """How little two recipes have in common: another network weighs most, then another method, then settings."""
    settings = [{**recipe.backbone.settings, **recipe.method.settings} for recipe in (one, other)]
    differing = sum(settings[0].get(name) != settings[1].get(name) for name in {**settings[0], **settings[1]})
    return one.arch != other.arch, one.method.name != other.method.name, differing


def _evaluated(recipe: Recipe) -> int:
    parts = recipe.eval_data or (recipe.data,)
    return sum((part.train_images or 0) + (part.test_images or 0) for part in parts)


def _ratio(one: int | None, other: int | None) -> float:
    return one / other if one and other else 1.0
