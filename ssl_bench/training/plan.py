"""The plan of a run's training: everything the loop needs to know, decided before it starts."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

import torch

from ssl_bench.blocks.optimizers import OptimizerSettings
from ssl_bench.dataset import Split
from ssl_bench.method import Batch, MakeViews, Method
from ssl_bench.training.batches import EpochOrder, Order, SinglePass, batches, steps_per_epoch
from ssl_bench.training.micro_batches import Passes


@dataclass(frozen=True, kw_only=True)
class Plan:
    """Everything the loop needs to know; decided before it starts."""

    split: Split
    batch_size: int
    epochs: int
    seed: int
    optimizer: OptimizerSettings
    device: torch.device
    autocast_dtype: torch.dtype | None
    workers: int
    run_dir: Path
    checkpoint_seconds: float
    micro_batch: int | None = None
    """Most images in a forward pass; None: the whole batch."""

    @property
    def images_at_once(self) -> int:
        """Most images in a forward pass."""
        return min(self.batch_size, self.micro_batch or self.batch_size)

    def passes(self, step: int) -> Passes:
        """How the passes of a step are computed."""
        return Passes(self.device, f"step-{self.seed}-{step}", self.micro_batch, self.autocast_dtype)

    @property
    def steps_per_epoch(self) -> int:
        """Optimizer steps of an epoch."""
        return steps_per_epoch(len(self.split), self.batch_size)

    @property
    def total_steps(self) -> int:
        """Optimizer steps of the whole run."""
        return self.steps_per_epoch * self.epochs

    def batches(
        self,
        method: Method,
        make_views: MakeViews,
        first_step: int = 0,
        note: Callable[[str], None] = lambda line: None,
    ) -> Iterator[Batch]:
        """Batches from `first_step` to the end, on the host; `note` as in `workers.from_workers`."""
        order = EpochOrder(len(self.split), self.batch_size, self.epochs, self.seed, first_step)
        return self._batches(order, method, make_views, note)

    def single_pass(self, method: Method, make_views: MakeViews) -> Iterator[Batch]:
        """Every training image once, in order, as `Method.prepare` sees them; on the host."""
        return self._batches(SinglePass(len(self.split), self.images_at_once, self.seed), method, make_views)

    def _batches(
        self, order: Order, method: Method, make_views: MakeViews, note: Callable[[str], None] = lambda line: None
    ) -> Iterator[Batch]:
        return batches(
            self.split,
            make_views,
            order,
            batch_views=method.draw_over_batch(),
            needs_labels=method.needs_labels,
            workers=self.workers,
            pinned=self.device.type == "cuda",
            note=note,
        )
