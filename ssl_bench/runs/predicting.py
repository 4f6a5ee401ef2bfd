"""The memory of a recipe's training step for any choice of precision, activation checkpointing and micro-batches."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable
from typing import Any

import torch
from torch.utils._python_dispatch import TorchDispatchMode

from ssl_bench.blocks.optimizers import OptimizerSettings
from ssl_bench.errors import UserError
from ssl_bench.method import Method, evaluated_network
from ssl_bench.planning.choices import Asked, Choice, Way, fastest, smallest
from ssl_bench.planning.evaluation_memory import EvaluationMemory, predict_evaluation
from ssl_bench.planning.step_memory import HowToStep, StepMemory, measure_step, predict_step, view_shapes
from ssl_bench.recipes.resolve import Resolved
from ssl_bench.runs.building import build_method, recompute_activations
from ssl_bench.training.micro_batches import Exactness, exactness, has_batch_norm
from ssl_bench.training.precision import AUTOCAST_DTYPES

MEASURED_BATCHES = 2, 4
"""Batches that are really computed where a step cannot be predicted."""


class Undrawn(TorchDispatchMode):  # type: ignore[no-untyped-call]
    """Initial weights are zeros: drawing those of a large head takes a second, and nothing here reads them."""

    def __torch_dispatch__(
        self, func: Callable[..., Any], types: Any, args: tuple[Any, ...] = (), kwargs: dict[str, Any] | None = None
    ) -> Any:
        if getattr(func, "overloadpacket", None) in (torch.ops.aten.uniform_, torch.ops.aten.normal_):
            return args[0].zero_()
        return func(*args, **(kwargs or {}))


class StepPredictor:
    """Builds the method once, or uses the one that is given, and predicts as often as it is asked."""

    def __init__(self, resolved: Resolved, *, batch_on_device: bool, method: Method | None = None) -> None:
        self._resolved, self._batch_on_device = resolved, batch_on_device
        if method is None:
            machine = resolved.machine.model_copy(update={"activation_checkpointing": False})
            with torch.random.fork_rng(devices=[]), Undrawn():  # type: ignore[no-untyped-call]
                method = build_method(dataclasses.replace(resolved, machine=machine))
        self.method = method
        self._measured: dict[tuple[str, bool], list[StepMemory]] = {}
        self._known: dict[Choice, StepMemory] = {}
        self.note = ""
        """How the figures came about where they are not predictions."""

    @property
    def batch_size(self) -> int:
        """Images of an optimizer step."""
        return self._resolved.recipe.training.batch_size

    @property
    def least(self) -> int:
        """Images that a micro-batch must have."""
        return 2 if has_batch_norm(self.method) else 1

    def exactness(self, micro_batch: int | None) -> Exactness:
        """Whether micro-batches give the gradients of the whole batch."""
        return exactness(self.method, micro_batch, self.batch_size)

    def memory(self, choice: Choice) -> StepMemory:
        """Of a training step. Where the method's step needs numbers, along a line through two small measured ones."""
        if choice not in self._known:
            self._known[choice] = self._predicted(choice)
        return self._known[choice]

    def evaluation(self, batch_size: int) -> EvaluationMemory:
        """Of evaluating the run's network on its data, with so many images per forward pass."""
        network, sets = evaluated_network(self.method), self._resolved.evaluation_sets
        largest = max(sets, key=lambda one: len(one.train) + (0 if one.test is None else len(one.test)))
        return predict_evaluation(network, largest, batch_size)

    def fastest(self, asked: Asked, usable: int) -> tuple[Way | None, list[Way]]:
        """`choices.fastest` of this method."""
        return fastest(asked, self.memory, self._is_exact, usable, self._recomputes())

    def smallest(self, asked: Asked, tried: list[Way]) -> Way:
        """`choices.smallest` of this method."""
        return smallest(asked, self.memory, self._is_exact, tried)

    def _is_exact(self, micro_batch: int | None) -> bool:
        return self.exactness(micro_batch).exact

    def _recomputes(self) -> bool:
        """Whether all networks can compute activations again."""
        try:
            recompute_activations(self.method, True)
        except UserError:
            return False
        finally:
            recompute_activations(self.method, False)
        return True

    def _predicted(self, choice: Choice) -> StepMemory:
        key = (choice.precision, choice.checkpointing)
        if key not in self._measured:
            try:
                return self._step(predict_step, choice, self.batch_size)
            except UserError as problem:
                counts = " and ".join(map(str, MEASURED_BATCHES))
                self.note = f"{problem}. Steps of {counts} images were measured instead"
                whole = dataclasses.replace(choice, micro_batch=None)
                self._measured[key] = [self._step(measure_step, whole, batch) for batch in MEASURED_BATCHES]
        one, other = zip(MEASURED_BATCHES, self._measured[key], strict=True)
        if choice.micro_batch is None:
            return StepMemory.on_line(one, other, self.batch_size)
        memory = StepMemory.on_line(one, other, choice.micro_batch)
        parts = dict(memory.parts)  # the gradients of earlier micro-batches are there in all passes
        parts["gradients"] = max(parts["gradients"], parts["weights"])
        return StepMemory(parts, memory.operations * self.batch_size // choice.micro_batch)

    def _step(self, how: Callable[..., StepMemory], choice: Choice, batch_size: int) -> StepMemory:
        method, resolved = self.method, self._resolved
        views = view_shapes(method, method.make_views(resolved.method_config), batch_size, resolved.dataset.image_px)
        way = HowToStep(
            choice.micro_batch,
            AUTOCAST_DTYPES[choice.precision],
            self._batch_on_device,
            finishes_views=resolved.machine.augment_on == "device",
        )
        recompute_activations(method, choice.checkpointing)
        try:
            return how(method, OptimizerSettings(**resolved.recipe.optimizer), views, way)
        finally:
            recompute_activations(method, False)
