"""Frozen features, extracted once for each split and shared by all evaluators, and kept in the cache folder."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, nullcontext
from typing import Any, Literal
from weakref import WeakKeyDictionary

import numpy as np
import torch
from numpy.typing import NDArray
from PIL import Image
from torch import Tensor, nn
from torch.utils.data import DataLoader, Subset
from torch.utils.data import Dataset as TorchDataset

from ssl_bench.backbone import Backbone, eval_mode
from ssl_bench.blocks.preprocessing import Preprocessing
from ssl_bench.dataset import Dataset, Split
from ssl_bench.datasets.workers import from_workers, quiet_worker
from ssl_bench.errors import UserError
from ssl_bench.evaluation.decoded_images import Damaged, DecodedWriter, drop_decoded, open_decoded
from ssl_bench.evaluation.feature_cache import (
    FeaturesKey,
    ImagesKey,
    features_key,
    images_key,
    keep_features,
    read_features,
)
from ssl_bench.evaluator import Features, SplitName
from ssl_bench.system import cache

Kind = Literal["features", "probe_features"]


class UnusableFeatures(UserError):
    """The network gives NaN ("failed") or the same vector for every image ("collapsed"): no number can be measured."""

    def __init__(self, status: Literal["failed", "collapsed"], message: str) -> None:
        super().__init__(message)
        self.status = status


BATCHES_WORTH_WORKERS = 8
"""With fewer batches than this, starting worker processes costs more than they save."""


class FeatureStore:
    """`FeatureStore(...)("train")`: features of a split in its order, extracted at the first call (`FeatureSource`).

    One transform for all images of both splits. Sets whose images are all `image_px` squares, such as CIFAR: as they
    are. All others: resized and center-cropped as `preprocessing` says, by default bicubic, the shorter side to 256/224
    of `image_px`. Mean and standard deviation are `preprocessing`'s in both cases, by default ImageNet's. The backbone
    runs in eval mode and gets its modes back; `autocast_dtype` None is float32.

    Images are decoded once for all networks that see them alike, and with `keep` the features of a network are found
    again in later runs, bitwise the same (`decoded_images`, `feature_cache`; both within the limit of the cache).
    """

    def __init__(
        self,
        backbone: Backbone,
        dataset: Dataset,
        *,
        image_px: int,
        device: torch.device,
        autocast_dtype: torch.dtype | None,
        batch_size: int,
        workers: int,
        preprocessing: Preprocessing | None = None,
        keep: bool = True,
        say: Callable[[str], None] = lambda line: None,
    ) -> None:
        self.backbone, self.dataset, self.device, self.say = backbone, dataset, device, say
        self.autocast_dtype, self.batch_size, self.workers = autocast_dtype, batch_size, workers
        self.keep, self.native = keep, is_native(dataset, image_px)
        self.preprocessing = (preprocessing or Preprocessing()).at(image_px)
        self.crop = self.preprocessing.crop(self.native)
        self.protocol = self.preprocessing.protocol(self.native, backbone.positions_protocol(image_px, image_px))
        self._kept: dict[tuple[SplitName, Kind], Features] = {}

    def __call__(self, split: SplitName, kind: Kind = "features") -> Features:
        """Vectors (n, dim) float32 and labels (n,) of the split, on the CPU; the same tensors at every call.

        Raises `UnusableFeatures` when the network's output is not finite or the same for all images.
        """
        if kind == "probe_features" and type(self.backbone).probe_features is Backbone.probe_features:
            kind = "features"  # not overridden: the same vectors
        if (split, kind) not in self._kept:
            self._kept[split, kind] = self._extract(split, kind)
        return self._kept[split, kind]

    def _extract(self, split: SplitName, kind: Kind) -> Features:
        images = self.dataset.train if split == "train" else self.dataset.test
        if images is None:
            raise UserError(f"{self.dataset.name} has no {split} images: there is nothing to evaluate on")
        begun = time.perf_counter()
        caching = cache.limit_bytes() > 0
        of_images = self._images_key(split, images) if caching else None
        key = None if of_images is None or not self.keep else self._features_key(of_images, kind)
        vectors = None if key is None else read_features(key)
        found = vectors is not None
        if vectors is None:
            vectors = self._from_network(self._levels(images, of_images), len(images), kind)
            _check(vectors, split)
            if key is not None:
                keep_features(key, vectors)
        seconds = "from the cache" if found else f"{time.perf_counter() - begun:.1f} s"
        self.say(f"{kind} of {split}: {len(images)} images, {vectors.shape[1]} values each, {seconds}")
        labels = [-1] * len(images) if images.labels is None else images.labels
        return Features(vectors, torch.as_tensor(labels, dtype=torch.int64), self.protocol)

    def _from_network(self, batches: Iterator[Tensor], count: int, kind: Kind) -> Tensor:
        vectors, filled = torch.empty(0), 0
        network: Callable[[Tensor], Tensor] = self.backbone if kind == "features" else self.backbone.probe_features
        with eval_mode(self.backbone), torch.inference_mode(), self._autocast():
            for levels in batches:
                output = network(self.preprocessing.normalized(levels.to(self.device, non_blocking=True)))
                if not filled:
                    with torch.inference_mode(False):  # an ordinary tensor: an evaluator may need gradients later
                        vectors = torch.empty(count, output.shape[1])
                vectors[filled : filled + len(output)] = output.float().cpu()
                filled += len(output)
        return vectors

    def _images_key(self, split: SplitName, images: Split) -> ImagesKey | None:
        return images_key(self.dataset, split, images, self.preprocessing, native=self.native)

    def _features_key(self, images: ImagesKey, kind: Kind) -> FeaturesKey | None:
        return features_key(
            images, self.backbone, kind, self.preprocessing,
            batch=self.batch_size, device=self.device, autocast_dtype=self.autocast_dtype,
        )  # fmt: skip

    def _levels(self, images: Split, key: ImagesKey | None) -> Iterator[Tensor]:
        """Batches (at most batch_size, image_px, image_px, 3) uint8 in the order of the split, decoded once."""
        if key is None:
            yield from self._decoded(images, 0)
            return
        done, px = 0, self.preprocessing.crop_px
        kept = open_decoded(key.digest, len(images), px)
        if kept is not None:
            try:
                for start in range(0, len(images), self.batch_size):
                    yield torch.from_numpy(kept.read(start, start + self.batch_size))
                    done = start + self.batch_size
                return
            except Damaged:
                drop_decoded(key.digest)
                yield from self._decoded(images, done)
                return
        with DecodedWriter(key.digest, len(images), px) as writer:
            for levels in self._decoded(images, 0):
                writer.add(levels.numpy())
                yield levels

    def _decoded(self, images: Split, first: int) -> Iterator[Tensor]:
        """The batches from image `first` on, read from the dataset."""
        enough = len(images) - first >= BATCHES_WORTH_WORKERS * self.batch_size
        cropped = _Cropped(images, self.crop)

        def make_loader(skipped: int, processes: int) -> DataLoader[Tensor]:
            return DataLoader(
                Subset(cropped, range(first + skipped * self.batch_size, len(images))),
                batch_size=self.batch_size,
                num_workers=processes,
                worker_init_fn=quiet_worker,
                pin_memory=self.device.type == "cuda",
            )

        return from_workers(make_loader, self.workers if enough else 0, self.say)

    def _autocast(self) -> AbstractContextManager[Any]:
        return torch.autocast(self.device.type, self.autocast_dtype) if self.autocast_dtype else nullcontext()


class _Cropped(TorchDataset[Tensor]):
    """Images of a split as levels. At module level, so that spawned workers can unpickle it."""

    def __init__(self, images: Split, crop: Callable[[Image.Image], NDArray[np.uint8]]) -> None:
        self.images, self.crop = images, crop

    def __len__(self) -> int:
        return len(self.images)

    def __getitem__(self, index: int) -> Tensor:
        if index >= len(self.images):
            raise IndexError(index)
        return torch.from_numpy(self.crop(self.images.image(index)).copy())


def device_with_room(backbone: nn.Module, needed_bytes: int) -> torch.device:
    """The backbone's device, or the CPU where its free memory does not hold `needed_bytes`."""
    parameter = next(backbone.parameters(), None)
    if parameter is None or parameter.device.type != "cuda":
        return torch.device("cpu")
    free_bytes, _ = torch.cuda.mem_get_info(parameter.device)
    return parameter.device if needed_bytes < free_bytes else torch.device("cpu")


def is_native(dataset: Dataset, image_px: int) -> bool:
    """Whether all images that evaluators see are squares of `image_px` already: then, and only then, none is resized.

    Sizes come from the splits' `size` (headers of files) where they have it. Known after the first call.
    """
    known = _NATIVE.setdefault(dataset, {})
    if image_px not in known:
        splits = [split for split in (dataset.train, dataset.test) if split is not None]
        sizes = (_size(split, index) for split in splits for index in range(len(split)))
        known[image_px] = all(size == (image_px, image_px) for size in sizes)
    return known[image_px]


_NATIVE: WeakKeyDictionary[Dataset, dict[int, bool]] = WeakKeyDictionary()


def _size(split: Split, index: int) -> tuple[int, int]:
    size: Callable[[int], tuple[int, int]] | None = getattr(split, "size", None)
    return split.image(index).size if size is None else size(index)


def _check(vectors: Tensor, split: str) -> None:
    if not len(vectors):
        raise UserError(f"the {split} split has no images: there is nothing to evaluate")
    # In blocks: all at once would be a second copy of what may be gigabytes
    finite = torch.cat([torch.isfinite(rows).all(dim=1) for rows in torch.split(vectors, 4096)])
    if not bool(finite.all()):
        raise UnusableFeatures(
            "failed",
            f"features of the network are not finite: {int((~finite).sum())} of {len(vectors)} {split} images "
            "give NaN or infinity. If it was trained, training diverged: a lower learning rate or fp32 may help",
        )
    if len(vectors) > 1 and all(bool((rows == vectors[0]).all()) for rows in torch.split(vectors, 4096)):
        raise UnusableFeatures(
            "collapsed",
            f"features of the network are constant: all {len(vectors)} {split} images give the same vector. "
            "If it was trained, training collapsed",
        )
