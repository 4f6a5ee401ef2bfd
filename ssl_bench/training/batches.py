"""Which samples make a batch, and their views: functions of (seed, epoch, index), whatever the number of workers."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from random import Random
from typing import Any

import torch
from torch import Tensor
from torch.utils.data import DataLoader, Sampler, default_collate
from torch.utils.data import Dataset as TorchDataset

from ssl_bench.dataset import Split
from ssl_bench.datasets.workers import from_workers, quiet_worker
from ssl_bench.errors import UserError
from ssl_bench.method import Batch, MakeViews

Key = tuple[int, int]
"""(epoch, index of the sample)."""


class EpochOrder(Sampler[list[Key]]):
    """Batches of (epoch, index): each epoch a permutation from (seed, epoch), the incomplete last batch dropped."""

    def __init__(self, images: int, batch_size: int, epochs: int, seed: int, first_step: int = 0) -> None:
        self.images, self.batch_size, self.epochs, self.seed, self.first_step = (
            images, batch_size, epochs, seed, first_step,
        )  # fmt: skip
        self.steps_per_epoch = images // batch_size

    def __len__(self) -> int:
        return self.steps_per_epoch * self.epochs - self.first_step

    def __iter__(self) -> Iterator[list[Key]]:
        for epoch in range(self.first_step // max(1, self.steps_per_epoch), self.epochs):
            generator = torch.Generator().manual_seed(Random(f"order-{self.seed}-{epoch}").getrandbits(63))
            order = torch.randperm(self.images, generator=generator).tolist()
            skipped = self.first_step % self.steps_per_epoch if epoch == self.first_step // self.steps_per_epoch else 0
            for step in range(skipped, self.steps_per_epoch):
                yield [(epoch, index) for index in order[step * self.batch_size : (step + 1) * self.batch_size]]


class TrainingViews(TorchDataset[tuple[tuple[Tensor, ...], int, int]]):
    """(epoch, index) -> (views, index, label); the label is -1 unless the method declares `needs_labels`."""

    def __init__(self, split: Split, make_views: MakeViews, seed: int, needs_labels: bool) -> None:
        self.split, self.make_views, self.seed, self.needs_labels = split, make_views, seed, needs_labels

    def __getitem__(self, key: Key) -> tuple[tuple[Tensor, ...], int, int]:
        epoch, index = key
        views = self.make_views(self.split.image(index), Random(f"views-{self.seed}-{epoch}-{index}"))
        return tuple(views), index, int(self.split.labels[index]) if self.needs_labels else -1


def batches(
    split: Split,
    make_views: MakeViews,
    order: EpochOrder,
    *,
    needs_labels: bool,
    workers: int,
    device: torch.device,
    note: Callable[[str], None] = lambda line: None,
) -> Iterator[Batch]:
    """The batches of `order`, on the device; labels only for a method that needs them. `note` as in
    `from_workers`."""
    views = TrainingViews(split, make_views, order.seed, needs_labels)

    def make_loader(skipped: int, processes: int) -> DataLoader[Any]:
        rest = EpochOrder(order.images, order.batch_size, order.epochs, order.seed, order.first_step + skipped)
        return DataLoader(
            views,
            batch_sampler=rest,
            num_workers=processes,
            collate_fn=_collate,
            worker_init_fn=quiet_worker,
            pin_memory=device.type == "cuda",
        )

    for images, index, labels in from_workers(make_loader, workers, note):
        moved = tuple(view.to(device, non_blocking=True) for view in images)
        here = index.to(device, non_blocking=True)
        yield Batch(moved, here, labels.to(device, non_blocking=True) if needs_labels else None)


def _collate(samples: Sequence[Any]) -> Any:
    shapes = {tuple(tuple(view.shape) for view in views) for views, _, _ in samples}
    if len(shapes) > 1:
        one, other = sorted(shapes, key=str)[:2]
        raise UserError(
            f"views differ in shape from image to image, {one} and {other}: the method's make_views must crop or "
            "resize to sizes from its settings (ssl_bench.blocks.views.Crop does)"
        )
    return default_collate(list(samples))
