"""Jaccard of attention masks with VOC 2012's masks (Caron et al. 2021, arXiv 2104.14294, section 4.2.2 and Fig. 4).

    mask of a head      the smallest set of patches with 60 % of the mass of its CLS attention in the last block
    score of an object  the best Jaccard similarity that a head's mask has with the object's (SegmentationObject)
    score of an image   the mean over its objects; reported is the mean over the images that have an object

The authors published no script. What is known: the text; visualize_attention.py, which has the 480 px square and the
threshold; and the rule above, which the first author states in an answer (github.com/facebookresearch/dino, issue 54).
Other rules in use are settings, and the protocol names them: a mask for each class (`masks=class`) or for the
foreground (`masks=foreground`), and one best head for the whole image (`best_head=image`). What differs from the
author's snippet: void pixels (255: borders of objects) count for nothing, and masks are compared at the image's own
size, so that no true mask is resized and no small object is lost. Baselines stand beside: a head drawn at random, the
whole image, a centered box.

Version 2 of the protocol scores objects by default; in version 1 it was classes.
"""

from __future__ import annotations

import time
from collections.abc import Iterator
from pathlib import Path
from typing import Literal, NamedTuple

import numpy as np

from ssl_bench.backbone import Backbone
from ssl_bench.dataset import Dataset
from ssl_bench.datasets.indexed_png import Mask
from ssl_bench.datasets.shapes.layouts import MASKED_IMAGES, embedded_voc
from ssl_bench.datasets.voc import MaskedImage, MaskKind, VocSet, open_voc
from ssl_bench.errors import UserError
from ssl_bench.evaluation.attention_maps import Resize, attention_maps, seen_size
from ssl_bench.evaluation.features import UnusableFeatures
from ssl_bench.evaluator import DataRead, Evaluation, Evaluator, Measurement, Outcomes, Protocol
from ssl_bench.evaluators.voc_jaccard.attention_masks import (
    BOX_AREA,
    Floats,
    ImageScores,
    joined,
    score_image,
    score_set,
    true_values,
)
from ssl_bench.evaluators.voc_jaccard.pictures import Scored, attention_sheet
from ssl_bench.measurement import NO_PROTOCOL
from ssl_bench.settings import GivenList, GivenPath, Settings, setting

VOC_PX = 480
AT_ONCE = 8
"""Images of one size per forward pass."""
TILE_PX = 240
"""Longer side of each picture on a sheet."""
SAY_SECONDS = 15.0
"""Between two lines of progress."""


class VocJaccardConfig(Settings):
    """Settings of the Jaccard evaluation."""

    path: GivenPath | None = setting(None, "folder of VOC 2012 (VOCdevkit); null: the embedded masks of shapes")
    list: GivenList = setting(
        "val", "a list in ImageSets/Segmentation, or a list file", source="DINO, Fig. 4: validation"
    )
    images: int | None = setting(None, "only the first so many of the list; null: all", unit="images", ge=1)
    size_px: int | None = setting(
        None, "side at which the network sees an image; null: 480, or for the masks of shapes the side it is meant for",
        unit="px", source="visualize_attention.py --image_size", ge=8,
    )  # fmt: skip
    resize: Resize = setting(
        "square",
        "square: both sides size_px; short-side: the shorter one, the aspect kept; native: the image's own size",
        source="visualize_attention.py",
    )
    keep_mass: float = setting(
        0.6, "share of a head's attention that its mask holds", source="DINO, section 4.2.2: 60 %", gt=0, lt=1
    )
    masks: Literal["foreground", "class", "object"] = setting(
        "object", "true masks: one for the foreground, one a class, or one an object", source="dino issue 54: objects"
    )
    best_head: Literal["mask", "image"] = setting(
        "mask", "the best head is chosen for each true mask, or for the image", source="dino issue 54: each mask"
    )
    pictures: int = setting(8, "of how many images a sheet of maps and masks is drawn", unit="images", ge=0)


class VocJaccard(Evaluator):
    """Jaccard of thresholded CLS attention with VOC 2012's masks (DINO, Fig. 4)."""

    Config = VocJaccardConfig
    config: VocJaccardConfig
    requires = frozenset({"attention"})
    needs_labels = False
    version = 2

    def data(self, dataset: Dataset) -> DataRead:
        """VOC, or the embedded masks. Raises `UserError` for a folder or list that is not as expected."""
        opened = self._open()
        native = self.config.resize == "native"
        side = min(opened.images.size(0)) if native else self._side(dataset.image_px)
        return DataRead(opened.name, opened.fingerprint, opened.synthetic, side)

    def evaluate(self, evaluation: Evaluation) -> list[Measurement]:
        """Jaccard in percent over the images that have a mask; raises `UserError` where none has, or a file is wrong.

        A sheet for each of the first images is drawn into `evaluation.output_dir`.
        """
        config, voc = self.config, self._open().images
        total = min(len(voc), config.images or len(voc))
        scores: list[ImageScores] = []
        begun = reported = time.monotonic()
        for done, (item, maps) in enumerate(self._maps(evaluation.backbone, voc, total), start=1):
            mask = joined(item.mask) if config.masks == "foreground" else item.mask
            values = true_values(mask)
            if values:
                scores.append(score_image(maps, mask, values, config.keep_mass))
                if len(scores) <= config.pictures:
                    self._draw(evaluation.output_dir, item, mask, maps, scores[-1])
            if time.monotonic() - reported > SAY_SECONDS:
                reported = time.monotonic()
                evaluation.say(f"attention: {done} of {total} images, {60 * done / (reported - begun):.0f} per minute")
        if not scores:
            raise UserError(
                f"none of the {total:,} images of {voc.list_name} in {voc.root} has anything in its mask but "
                "background (0) and void (255): there is nothing to compare with"
            )
        return self._measurements(scores, total, evaluation.backbone)

    def _draw(self, folder: Path, item: MaskedImage, mask: Mask, maps: Floats, scores: ImageScores) -> None:
        scored = Scored(mask, scores.heads.mean(axis=0), float(scores.mean_map.mean()))
        count = f", mean over {len(scores.heads)} masks" if len(scores.heads) > 1 else ""
        share = f"{100 * self.config.keep_mass:g} % of the attention"
        title = f"{item.name}: Jaccard (J) of {share} with {self.config.masks} masks{count}"
        folder.mkdir(parents=True, exist_ok=True)
        attention_sheet(item.image, maps, self.config.keep_mass, title=title, tile_px=TILE_PX, scored=scored).save(
            folder / f"{item.name}.png"
        )

    def _open(self) -> _Opened:
        config = self.config
        masks: MaskKind = "object" if config.masks == "object" else "class"
        if config.path is None:
            made = embedded_voc(min(config.images or MASKED_IMAGES, MASKED_IMAGES))  # as many as are looked at
            images = open_voc(made.path, config.list, masks=masks)
            return _Opened(images, made.name, made.fingerprint, synthetic=True)
        images = open_voc(Path(config.path), config.list, masks=masks)
        return _Opened(images, images.name, images.fingerprint, synthetic=False)

    def _maps(self, backbone: Backbone, voc: VocSet, total: int) -> Iterator[tuple[MaskedImage, Floats]]:
        """Each image with its maps (heads, rows, columns); neighbors seen at one size share a forward pass."""
        waiting: list[MaskedImage] = []
        sizes: list[tuple[int, int]] = []
        for index in range(total + 1):
            item = voc.item(index) if index < total else None
            size = (0, 0) if item is None else self._seen(item.image.size[::-1], backbone)
            if waiting and (len(waiting) == AT_ONCE or size != sizes[-1]):
                maps = attention_maps(backbone, [one.image for one in waiting], sizes[-1])
                if not np.isfinite(maps).all():
                    raise UnusableFeatures("failed", "attention of the network is not finite. Did training diverge?")
                yield from zip(waiting, maps, strict=True)
                waiting = []
            if item is not None:
                waiting.append(item)
                sizes.append(size)

    def _seen(self, size: tuple[int, int], backbone: Backbone) -> tuple[int, int]:
        return seen_size(size, self._side(backbone.image_px), self.config.resize, backbone.patch_px)

    def _side(self, own_px: int) -> int:
        return self.config.size_px or (own_px if self.config.path is None else VOC_PX)

    def _measurements(self, scores: list[ImageScores], total: int, backbone: Backbone) -> list[Measurement]:
        protocol, found = self._protocol(backbone), score_set(scores, self.config.best_head)
        masks, heads = sum(len(one.heads) for one in scores), scores[0].heads.shape[1]
        counted = f"{masks:,} {self.config.masks} masks"
        if without := total - len(scores):
            counted += f"; {without:,} image{'s' if without > 1 else ''} without any left out"
        return [
            Measurement(
                metric=metric,
                value=100 * float(values.mean()),
                unit="%",
                higher_is_better=True,
                n=len(scores),
                protocol=protocol,
                primary=metric == "best_head",
                details=counted + more,
                outcomes=Outcomes.of(100 * values),
            )
            for metric, values, more in (
                ("best_head", found.best_head, ""),
                ("best_single_head", found.best_single_head, f"; head {found.single_head + 1} of {heads}"),
                ("average_head", found.average_head, "; what a head drawn at random is expected to score"),
                ("mean_map", found.mean_map, "; the mean of the heads' maps"),
                ("whole_image", found.whole_image, "; no network"),
                ("center_box", found.center_box, "; no network"),
            )
        ]

    def _protocol(self, backbone: Backbone) -> Protocol:
        config = self.config
        return Protocol.of(
            "attention Jaccard v{version}: {first}list {list}, images {seen}, {attention}, {keep_percent} % of the "
            "mass, {masks} masks at their own size without void, best head for each {best_head}, {mean}, "
            "center box {box_percent} %",
            version=self.version,
            first=Protocol.of("first {images:,} of ", images=config.images) if config.images else NO_PROTOCOL,
            list=Path(config.list).stem,
            seen=self._seen_protocol(backbone),
            attention="CLS attention of the last block",
            keep_percent=float(f"{100 * config.keep_mass:.9g}"),
            masks=config.masks,
            best_head=config.best_head,
            mean="mean over masks then images",
            box_percent=100 * BOX_AREA,
        )

    def _seen_protocol(self, backbone: Backbone) -> Protocol:
        """At which size the network sees the images, and its positions there."""
        resize = self.config.resize
        if resize == "native":
            return Protocol.of(
                "of {resize} size{positions}", resize=resize, positions=backbone.positions_protocol(0, 0)
            )
        side = min(self._seen((1, 1), backbone))
        positions = backbone.positions_protocol(side, 0 if resize == "short-side" else side)
        return Protocol.of("{resize} {side_px} px{positions}", resize=resize, side_px=side, positions=positions)


class _Opened(NamedTuple):
    images: VocSet
    name: str
    fingerprint: str
    synthetic: bool
