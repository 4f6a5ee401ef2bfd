"""Frozen features, extracted in one pass over each split, shared by all evaluators, and kept in the cache folder."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
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
    features_keys,
    images_key,
    keep_features,
    read_features,
)
from ssl_bench.evaluator import FeatureKind, Features, SplitName
from ssl_bench.system import cache


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
    runs in eval mode and gets its modes back; `autocast_dtype` None is float32. `kinds` will be asked for: the first
    request for one of them extracts them all in one pass over the images.

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
        kinds: Iterable[FeatureKind] = (),
        keep: bool = True,
        say: Callable[[str], None] = lambda line: None,
    ) -> None:
        self.backbone, self.dataset, self.device, self.say = backbone, dataset, device, say
        self.autocast_dtype, self.batch_size, self.workers = autocast_dtype, batch_size, workers
        self.kinds, self.keep, self.native = frozenset(kinds), keep, is_native(dataset, image_px)
        self.preprocessing = (preprocessing or Preprocessing()).at(image_px)
        self.crop = self.preprocessing.crop(self.native)
        self.protocol = self.preprocessing.protocol(self.native, backbone.positions_protocol(image_px, image_px))
        self._kept: dict[tuple[SplitName, FeatureKind], Features] = {}

    def __call__(self, split: SplitName, kind: FeatureKind = "features") -> Features:
        """Vectors (n, dim) float32 and labels (n,) of the split, on the CPU; the same tensors at every call.

        Raises `UnusableFeatures` when the network's output is not finite or the same for all images.
        """
        kind = self._distinct(kind)
        if (split, kind) not in self._kept:
            wanted = sorted({kind, *map(self._distinct, self.kinds)})
            self._extract(split, [one for one in wanted if (split, one) not in self._kept])
        return self._kept[split, kind]

    def _distinct(self, kind: FeatureKind) -> FeatureKind:
        """The kind that has these vectors: `probe_features` that are not overridden are `features`."""
        return "features" if type(self.backbone).probe_features is Backbone.probe_features else kind

    def _extract(self, split: SplitName, kinds: Sequence[FeatureKind]) -> None:
        """Keep all `kinds` of a split: those of the cache, and in one pass all others."""
        images = self.dataset.train if split == "train" else self.dataset.test
        if images is None:
            raise UserError(f"{self.dataset.name} has no {split} images: there is nothing to evaluate on")
        begun = time.perf_counter()
        of_images = self._images_key(split, images) if cache.limit_bytes() > 0 else None
        keys = {} if of_images is None or not self.keep else self._features_keys(of_images, kinds)
        found = {kind: vectors for kind, key in keys.items() if (vectors := read_features(key)) is not None}
        self._say(split, found, "from the cache")
        missing = [kind for kind in kinds if kind not in found]
        if missing:
            extracted = self._from_network(self._levels(images, of_images), len(images), missing)
            for kind, vectors in extracted.items():
                _check(vectors, split)
                if kind in keys:
                    keep_features(keys[kind], vectors)
            self._say(split, extracted, f"{time.perf_counter() - begun:.1f} s")
            found |= extracted
        labels = torch.as_tensor([-1] * len(images) if images.labels is None else images.labels, dtype=torch.int64)
        for kind, vectors in found.items():
            self._kept[split, kind] = Features(vectors, labels, self.protocol)

    def _say(self, split: SplitName, found: Mapping[FeatureKind, Tensor], took: str) -> None:
        if found:
            images = len(next(iter(found.values())))
            values = " and ".join(f"{vectors.shape[1]:,}" for vectors in found.values())
            self.say(f"{' and '.join(found)} of {split}: {images:,} images, {values} values each, {took}")

    def _from_network(
        self, batches: Iterator[Tensor], count: int, kinds: Sequence[FeatureKind]
    ) -> dict[FeatureKind, Tensor]:
        """All `kinds` in one pass, each (count, dim) float32 on the CPU."""
        found: dict[FeatureKind, Tensor] = {}
        filled = 0
        with eval_mode(self.backbone), torch.inference_mode(), self._autocast():
            for levels in batches:
                normalized = self.preprocessing.normalized(levels.to(self.device, non_blocking=True))
                for kind, output in self._outputs(normalized, kinds).items():
                    if not filled:
                        with torch.inference_mode(False):  # an ordinary tensor: an evaluator may need gradients later
                            found[kind] = torch.empty(count, output.shape[1])
                    found[kind][filled : filled + len(output)] = output.float().cpu()
                filled += len(levels)
        return found

    def _outputs(self, images: Tensor, kinds: Sequence[FeatureKind]) -> dict[FeatureKind, Tensor]:
        if len(kinds) > 1:
            both = self.backbone.both_features(images)
            return {"features": both.features, "probe_features": both.probe_features}
        read = self.backbone if kinds[0] == "features" else self.backbone.probe_features
        return {kinds[0]: read(images)}

    def _images_key(self, split: SplitName, images: Split) -> ImagesKey | None:
        return images_key(self.dataset, split, images, self.preprocessing, native=self.native)

    def _features_keys(self, images: ImagesKey, kinds: Iterable[FeatureKind]) -> dict[FeatureKind, FeaturesKey]:
        return features_keys(
            images, self.backbone, kinds, self.preprocessing,
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
    """The backbone's device, or the CPU where its free memory, or this process's cap, does not hold `needed_bytes`."""
    parameter = next(backbone.parameters(), None)
    if parameter is None or parameter.device.type != "cuda":
        return torch.device("cpu")
    free_bytes, all_bytes = torch.cuda.mem_get_info(parameter.device)
    cap = torch.cuda.get_per_process_memory_fraction(parameter.device) * all_bytes  # `--memory` sets it
    room = min(free_bytes, cap - torch.cuda.memory_reserved(parameter.device))
    return parameter.device if needed_bytes < room else torch.device("cpu")


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
            "If it was trained, training collapsed; if not, look whether the images are all alike: sslbench data",
        )
