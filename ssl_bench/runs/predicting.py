"""The memory of a recipe's training step, for any batch, precision and with activation checkpointing or without."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable

import torch

from ssl_bench.blocks.optimizers import OptimizerSettings
from ssl_bench.errors import UserError
from ssl_bench.evaluation.speed import THROUGHPUT_BATCH
from ssl_bench.method import Method, evaluated_network
from ssl_bench.planning.choices import Choice
from ssl_bench.planning.evaluation_memory import EvaluationMemory, predict_evaluation
from ssl_bench.planning.step_memory import StepMemory, measure_step, predict_step, view_shapes
from ssl_bench.recipes.resolve import Resolved
from ssl_bench.runs.building import build_method

MEASURED_BATCHES = 2, 4
"""Batches that are really computed where a step cannot be predicted."""


class StepPredictor:
    """Builds the method once for each kind of checkpointing, and predicts as often as it is asked."""

    def __init__(self, resolved: Resolved) -> None:
        self._resolved = resolved
        self._built: dict[bool, Method] = {}
        self._measured: dict[Choice, list[StepMemory]] = {}
        self.note = ""
        """How the figures came about where they are not predictions."""

    def memory(self, choice: Choice, batch_size: int) -> StepMemory:
        """Of a training step. Where the method's step needs numbers, along a line through two small measured ones."""
        if choice not in self._measured:
            try:
                return self._step(predict_step, choice, batch_size)
            except UserError as problem:
                self.note = (
                    f"{problem}. Steps of {' and '.join(map(str, MEASURED_BATCHES))} images were measured instead"
                )
                self._measured[choice] = [self._step(measure_step, choice, batch) for batch in MEASURED_BATCHES]
        one, other = zip(MEASURED_BATCHES, self._measured[choice], strict=True)
        return StepMemory.on_line(one, other, batch_size)

    def peak(self, choice: Choice, batch_size: int) -> int:
        """Bytes of `memory` in all."""
        return self.memory(choice, batch_size).peak

    def evaluation(self, batch_size: int = THROUGHPUT_BATCH) -> EvaluationMemory:
        """Of evaluating the run's network on its data, with as many images per forward pass as evaluations have."""
        network, sets = evaluated_network(self._method(False)), self._resolved.evaluation_sets
        largest = max(sets, key=lambda one: len(one.train) + (0 if one.test is None else len(one.test)))
        return predict_evaluation(network, largest, batch_size)

    def _step(self, how: Callable[..., StepMemory], choice: Choice, batch_size: int) -> StepMemory:
        method, resolved = self._method(choice.checkpointing), self._resolved
        make_views = method.make_views(resolved.method_config)
        views = view_shapes(method, make_views, batch_size, resolved.dataset.image_px)
        dtype = torch.bfloat16 if choice.precision == "bf16" else None
        return how(method, OptimizerSettings(**resolved.recipe.optimizer), views, dtype)

    def _method(self, checkpointing: bool) -> Method:
        if checkpointing not in self._built:
            machine = self._resolved.machine.model_copy(update={"activation_checkpointing": checkpointing})
            with torch.random.fork_rng(devices=[]):
                self._built[checkpointing] = build_method(dataclasses.replace(self._resolved, machine=machine))
        return self._built[checkpointing]
