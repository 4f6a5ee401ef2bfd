"""A method with small settings on a narrow network, for the checks of a method."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from functools import cached_property
from pathlib import Path
from random import Random
from typing import Any

import torch
from torch import Tensor, nn

from ssl_bench.method import Batch, MakeViews, Method, Progress, StepOutput
from ssl_bench.settings import Settings, parse_settings
from ssl_bench.testing import subjects
from ssl_bench.testing.outcomes import CheckSkipped

STEPS_PER_EPOCH, EPOCHS = 4, 100
FIXED_RATE = 1e-3
BATCH_STATISTICS = ("running_mean", "running_var", "num_batches_tracked")
"""Batch norm writes these in every forward pass in training mode, a method's `step` included. They are the only
state that the contract lets `step` move, so the checks ignore them."""


def progress_at(step: int) -> Progress:
    """Step `step` of a run of 100 epochs of 4 steps."""
    return Progress(step, STEPS_PER_EPOCH * EPOCHS, step // STEPS_PER_EPOCH, EPOCHS)


MIDDLE = STEPS_PER_EPOCH * EPOCHS // 2
"""A step past any warm-up, frozen first epoch or empty queue; the first of its epoch."""


@dataclass(frozen=True)
class Bench:
    """One method class on one narrow network."""

    kind: type[Method]
    config: Any
    network: subjects.Network

    def build(self, seed: int = 0, *, prepared: bool = True) -> Method:
        """A new method in training mode, its weights drawn from `seed`, prepared on one batch."""
        torch.manual_seed(seed)
        method = self.kind(self.config, self.network).train()
        if prepared:
            self.prepare(method)
        return method

    def prepare(self, method: Method) -> None:
        """`method.prepare` as the loop calls it, on one batch."""
        if self.kind.prepare is not Method.prepare:
            torch.manual_seed(999)
            with torch.no_grad():
                method.prepare(iter([self.batch()]))
            method.train()

    @cached_property
    def make_views(self) -> MakeViews:
        """The method's augmentation."""
        return self.kind.make_views(self.config)

    def batch(self, seed: int = 0, *, drawn: bool = True) -> Batch:
        """Eight pictures' views, new tensors at every call, after `batch_views` if `drawn`."""
        batch = subjects.batch_of(self.make_views, labeled=self.kind.needs_labels, seed=seed)
        if not drawn:
            return batch
        return replace(batch, views=self.kind.batch_views(self.config, batch.views, Random(f"batch-{seed}")))

    def step(self, method: Method, batch: Batch, step: int = MIDDLE) -> StepOutput:
        """`method.step` with the random state that the training loop would set for the step."""
        torch.manual_seed(1000 + step)
        return method.step(batch, progress_at(step))

    def train_step(
        self,
        method: Method,
        optimizer: torch.optim.Optimizer,
        batch: Batch,
        step: int = MIDDLE,
        *,
        update: bool = True,
        before_update: Callable[[], None] = lambda: None,
    ) -> Tensor:
        """One step as the training loop does it; returns the loss. `update=False` holds the method's state still."""
        output = self.step(method, batch, step)
        optimizer.zero_grad(set_to_none=True)
        output.loss.backward()  # type: ignore[no-untyped-call]
        method.before_optimizer(progress_at(step))
        optimizer.step()
        before_update()
        if update:
            with torch.no_grad():
                method.update(output.carry, progress_at(step))
        return output.loss.detach()


class Subject:
    """A method class with what its checks look at."""

    def __init__(self, plugin: type[Method], settings: Mapping[str, Any], path: Path | None = None) -> None:
        self.plugin, self.settings = plugin, dict(settings)

    def configs(self) -> list[Settings]:
        """The defaults, where every setting has one, and the filled settings of each bench."""
        return [*self._defaults(), *(bench.config for bench in self.benches)]

    @cached_property
    def benches(self) -> list[Bench]:
        """The method on every narrow network that it can use, with the preset "small-data" where it has one."""
        preset = self.plugin.presets.get("small-data")
        made = []
        for network in subjects.networks(self.plugin.requires):
            values: dict[str, Any] = {}
            if preset is not None:
                values |= preset.values
                values |= preset.convnet_values if network.is_convnet else {}
            of_method = {key.removeprefix("method."): v for key, v in values.items() if key.startswith("method.")}
            config = parse_settings(self.plugin.Config, {**of_method, **self.settings}, "method", self.plugin.__name__)
            made.append(Bench(self.plugin, self.plugin.fill(config, subjects.situation(network)), network))
        return made

    @cached_property
    def working(self) -> list[Bench]:
        """The benches, for checks that make sense only once the method can be built and gives a loss.

        Raises `CheckSkipped` otherwise: the checks that look for just that have said it already.
        """
        try:
            for bench in self.benches:
                output = bench.step(bench.build(), bench.batch())
                output.loss.backward()  # type: ignore[no-untyped-call]
        except CheckSkipped:
            raise
        except Exception as error:
            raise CheckSkipped(f"a first step does not work yet ({type(error).__name__})") from error
        return self.benches

    def _defaults(self) -> list[Settings]:
        if any(field.is_required() for field in self.plugin.Config.model_fields.values()):
            return []
        return [self.plugin.Config()]


def optimizer_of(method: Method) -> torch.optim.Optimizer:
    """AdamW at a fixed rate over the method's own parameter groups, without weight decay."""
    groups = [
        {"params": list(group.parameters), "lr": FIXED_RATE * group.lr_factor}
        for group in method.parameter_groups()
        if group.parameters
    ]
    if not groups:
        raise CheckSkipped("nothing is trained")
    return torch.optim.AdamW(groups, weight_decay=0.0)


def state_of(method: nn.Module, *, statistics: bool = False) -> dict[str, Tensor]:
    """Copies of the state; batch norm's running statistics only if asked for."""
    return {
        name: tensor.detach().clone()
        for name, tensor in method.state_dict().items()
        if statistics or name.rpartition(".")[2] not in BATCH_STATISTICS
    }


def moved(before: Mapping[str, Tensor], after: Mapping[str, Tensor]) -> list[str]:
    """Names of the tensors that are not bitwise the same."""
    names = dict.fromkeys([*before, *after])
    return [name for name in names if name not in before or name not in after or not same(before[name], after[name])]


def same(one: Tensor, other: Tensor) -> bool:
    """Whether two tensors have one shape, type and every value, NaN equal to NaN."""
    return one.shape == other.shape and one.dtype == other.dtype and torch.equal(_bits(one), _bits(other))


def _bits(tensor: Tensor) -> Tensor:
    return tensor.nan_to_num(nan=0.123, posinf=None, neginf=None) if tensor.is_floating_point() else tensor


def some(names: list[str]) -> str:
    """The first two names of a list and how many more there are."""
    return ", ".join(names[:2]) + (f" and {len(names) - 2} more" if len(names) > 2 else "")
