"""Which samples form a batch, and their views: functions of (seed, epoch, index), whatever the number of workers."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from random import Random
from typing import Any

import torch
from torch import Tensor
from torch.utils.data import DataLoader, Sampler, default_collate
from torch.utils.data import Dataset as TorchDataset

from ssl_bench.blocks.device_views import DeviceViews
from ssl_bench.dataset import Split
from ssl_bench.datasets.workers import from_workers, quiet_worker
from ssl_bench.errors import UserError
from ssl_bench.method import Batch, MakeViews, Views

Key = tuple[int, int]
"""(epoch, index of the sample)."""
BatchViews = Callable[[Views, Random], Views]
"""`Method.batch_views` with its config."""


def steps_per_epoch(images: int, batch_size: int) -> int:
    """Optimizer steps of an epoch over `images`; an incomplete last batch is dropped."""
    return images // batch_size


class EpochOrder(Sampler[list[Key]]):
    """Batches of (epoch, index): each epoch a permutation from (seed, epoch), without the incomplete last batch."""

    def __init__(self, images: int, batch_size: int, epochs: int, seed: int, first_step: int = 0) -> None:
        self.images, self.batch_size, self.epochs, self.seed, self.first_step = (
            images, batch_size, epochs, seed, first_step,
        )  # fmt: skip
        self.steps_per_epoch = steps_per_epoch(images, batch_size)

    def __len__(self) -> int:
        return self.steps_per_epoch * self.epochs - self.first_step

    def after(self, batches: int) -> EpochOrder:
        """The order without its first `batches` batches."""
        return EpochOrder(self.images, self.batch_size, self.epochs, self.seed, self.first_step + batches)

    def __iter__(self) -> Iterator[list[Key]]:
        for epoch in range(self.first_step // max(1, self.steps_per_epoch), self.epochs):
            generator = torch.Generator().manual_seed(Random(f"order-{self.seed}-{epoch}").getrandbits(63))
            order = torch.randperm(self.images, generator=generator).tolist()
            skipped = self.first_step % self.steps_per_epoch if epoch == self.first_step // self.steps_per_epoch else 0
            for step in range(skipped, self.steps_per_epoch):
                yield [(epoch, index) for index in order[step * self.batch_size : (step + 1) * self.batch_size]]


class SinglePass(Sampler[list[Key]]):
    """Every image once, by index, for `Method.prepare`: epoch -1; the last batch may be smaller."""

    def __init__(self, images: int, batch_size: int, seed: int, first_step: int = 0) -> None:
        self.images, self.batch_size, self.seed, self.first_step = images, batch_size, seed, first_step

    def __len__(self) -> int:
        return -(-self.images // self.batch_size) - self.first_step

    def after(self, batches: int) -> SinglePass:
        """The pass without its first `batches` batches."""
        return SinglePass(self.images, self.batch_size, self.seed, self.first_step + batches)

    def __iter__(self) -> Iterator[list[Key]]:
        for low in range(self.first_step * self.batch_size, self.images, self.batch_size):
            yield [(-1, index) for index in range(low, min(low + self.batch_size, self.images))]


Order = EpochOrder | SinglePass
BatchKey = tuple[int, list[Key]]
"""(step, keys of its samples)."""


class Numbered(Sampler[BatchKey]):
    """An order with the step of each batch."""

    def __init__(self, order: Order) -> None:
        self.order = order

    def __len__(self) -> int:
        return len(self.order)

    def __iter__(self) -> Iterator[BatchKey]:
        return enumerate(self.order, self.order.first_step)


class TrainingViews(TorchDataset[tuple[tuple[Tensor, ...], int, int]]):
    """(epoch, index) -> (views, index, label); the label is -1 unless the method declares `needs_labels`."""

    def __init__(self, split: Split, make_views: MakeViews, seed: int, needs_labels: bool) -> None:
        self.split, self.make_views, self.seed, self.needs_labels = split, make_views, seed, needs_labels

    def __getitem__(self, key: Key) -> tuple[tuple[Tensor, ...], int, int]:
        epoch, index = key
        views = self.make_views(self.split.image(index), Random(f"views-{self.seed}-{epoch}-{index}"))
        if not self.needs_labels:
            return tuple(views), index, -1
        assert self.split.labels is not None, "a method with needs_labels was refused images without labels"
        return tuple(views), index, int(self.split.labels[index])

    def __getitems__(self, batch: BatchKey) -> tuple[int, int, list[Any]]:
        """(step, epoch, samples), which torch's DataLoader passes to `Collate`."""
        step, keys = batch
        return step, keys[0][0], [self[key] for key in keys]


class Collate:
    """Stacks samples and applies `batch_views`. At module level, so that spawned workers can unpickle it."""

    def __init__(self, batch_views: BatchViews, seed: int) -> None:
        self.batch_views, self.seed = batch_views, seed

    def __call__(self, batch: tuple[int, int, Sequence[Any]]) -> Any:
        """The stacked views after `batch_views`, the indices and the labels of (step, epoch, samples)."""
        step, epoch, samples = batch
        views, index, labels = _stacked(samples)
        views = self.batch_views(tuple(views), Random(f"batch-{self.seed}-{epoch}-{step}"))
        if not isinstance(views, tuple) or not all(isinstance(view, Tensor) for view in views):
            raise UserError(f"batch_views() of the method gives {views!r:.60}: return a tuple of tensors")
        return views, index, labels


def nothing_drawn(views: Views, rng: Random) -> Views:
    """The views unchanged: nothing is drawn over the batch."""
    return views


def batches(
    split: Split,
    make_views: MakeViews,
    order: Order,
    *,
    batch_views: BatchViews = nothing_drawn,
    needs_labels: bool,
    workers: int,
    pinned: bool = False,
    note: Callable[[str], None] = lambda line: None,
) -> Iterator[Batch]:
    """The batches of `order`, on the host; labels only for a method that needs them. `pinned` memory is moved to a
    device without waiting; `note` as in `from_workers`."""
    views = TrainingViews(split, make_views, order.seed, needs_labels)
    finish = make_views.finish if isinstance(make_views, DeviceViews) else None

    def make_loader(skipped: int, processes: int) -> DataLoader[Any]:
        return DataLoader(
            views,
            batch_sampler=Numbered(order.after(skipped)),  # type: ignore[arg-type]  # for `__getitems__`
            num_workers=processes,
            collate_fn=Collate(batch_views, order.seed),  # type: ignore[arg-type]
            worker_init_fn=quiet_worker,
            pin_memory=pinned,
        )

    for images, index, labels in from_workers(make_loader, workers, note):
        yield Batch(tuple(images), index, labels if needs_labels else None, finish=finish)


def _stacked(samples: Sequence[Any]) -> Any:
    shapes = {tuple(tuple(view.shape) for view in views) for views, _, _ in samples}
    if len(shapes) > 1:
        one, other = sorted(shapes, key=str)[:2]
        raise UserError(
            f"views differ in shape from image to image, {one} and {other}: the method's make_views must crop or "
            "resize to sizes from its settings (ssl_bench.blocks.views.Crop does)"
        )
    return default_collate(list(samples))
