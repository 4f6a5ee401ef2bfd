"""Measures of frozen features that need no labels.

    RankMe            exp(-sum_k p_k ln p_k), p_k = s_k / |s|_1 + 1e-7
                      Garrido et al. 2023, arXiv 2210.02885, equations 1 and 2
    effective rank    the same of the centered features, without 1e-7
                      Roy and Vetterli 2007, The effective rank: a measure of effective dimensionality
    uniformity        ln mean over pairs of exp(-t |x - y|^2), t = 2
                      Wang and Isola 2020, arXiv 2005.10242, section 4.1.2
    alignment         mean over images of |x - x'|^alpha, alpha = 2
                      the same, section 4.1.1
    feature spread    mean over dimensions of std(x), times sqrt(dim)
                      Chen and He 2020, arXiv 2011.10566, section 4.1

s_k are the singular values of the features (n, dim), as they are, of up to 25,600 images (the paper's number); x are
l2-normalized features, x and x' those of two views of an image. RankMe lies between 1 and the smaller of n and dim; it
compares only between features of one width and number of images. Uniformity lies between -4t (far apart) and 0 (all
alike), alignment between 0 (views alike) and 4. Lower is better for both, and either alone is easily fooled: alignment
by a constant, uniformity by noise. Spread is about 1 where directions are isotropic and 0 where all are alike.

All are of the training images: they measure what the network makes of images, and nothing is fitted. Which images and
which views are drawn from a seed of their own, so that networks and runs are compared on the same.
"""

from __future__ import annotations

import math
from random import Random

import torch
from torch import Tensor
from torch.nn.functional import normalize

from ssl_bench.blocks.collapse_signs import spread
from ssl_bench.blocks.views import Crop
from ssl_bench.errors import UserError
from ssl_bench.evaluator import Evaluation, Evaluator, Measurement, Protocol
from ssl_bench.settings import Settings, setting

EPSILON = 1e-7
"""RankMe, equation 2, for float32."""
SEED = 0
"""Of the choice of images and of their views; the same for every run."""
BATCH = 64
PAIRS_AT_ONCE = 1 << 24
"""Cells of the table of distances that are in memory at once: 128 MiB."""
AUGMENTATION = "crop of 20 to 100 % of the area, flip, color jitter 0.4 0.4 0.4 0.1 with probability 0.8, gray 0.2"
"""MoCo v2's (Chen et al. 2020, arXiv 2003.04297) without its blur; `views` makes them."""


class LabelFreeConfig(Settings):
    """Settings of the measures without labels."""

    images: int = setting(
        25_600, "most images behind ranks and spread; of a larger set so many, drawn at random", unit="images",
        source="RankMe, section 4: 25,600", ge=2,
    )  # fmt: skip
    uniformity_images: int = setting(5_000, "most images among which all pairs are formed", unit="images", ge=2)
    alignment_images: int = setting(500, "most images of which two views are made", unit="images", ge=1)


class LabelFree(Evaluator):
    """Rank, uniformity, alignment and spread of features; needs no labels (RankMe; Wang and Isola)."""

    Config = LabelFreeConfig
    needs_labels = False
    reads_images = False
    feature_kinds = frozenset({"features"})
    config: LabelFreeConfig

    def evaluate(self, evaluation: Evaluation) -> list[Measurement]:
        """`rankme` (primary), `effective_rank`, `uniformity`, `alignment` and `feature_spread`.

        `alignment` needs two views of each image, and is left out where features are given without images. Raises
        `UserError` for fewer than two images.
        """
        train = evaluation.features("train")
        total, dim = train.vectors.shape
        if total < 2:
            raise UserError(f"label-free compares images with one another, and the data have {total}")
        ranked = train.vectors[chosen(total, self.config.images)].double()
        paired = normalize(train.vectors[chosen(total, self.config.uniformity_images)].double(), dim=1)

        def measured(metric: str, value: float, unit: str, n: int, measure: Protocol) -> Measurement:
            protocol = Protocol.of(
                "{measure}, {images:,} images of train, {transform}", measure=measure, images=n,
                transform=train.transform,
            )  # fmt: skip
            return Measurement(
                metric=metric, value=value, unit=unit, n=n, higher_is_better=metric not in ("uniformity", "alignment"),
                protocol=protocol, primary=metric == "rankme", details=f"{dim:,} dimensions, {total:,} images in all",
            )  # fmt: skip

        measurements = [
            measured("rankme", rankme(ranked), "dims", len(ranked), Protocol.of("RankMe, epsilon {e}", e=EPSILON)),
            measured("effective_rank", effective_rank(ranked), "dims", len(ranked), CENTERED),
            measured("uniformity", uniformity(paired), "nats", len(paired), Protocol.of("uniformity, t = {t}", t=2)),
            measured("feature_spread", float(spread(ranked)), "1", len(ranked), SPREAD),
        ]
        if evaluation.dataset.has_images:
            viewed = chosen(total, self.config.alignment_images)
            evaluation.say(f"label-free: two views of {len(viewed):,} images")
            value = alignment(*view_features(evaluation, viewed))
            measurements.insert(3, measured("alignment", value, "1", len(viewed), ALIGNMENT))
        return measurements


ALIGNMENT = Protocol.of("alignment, alpha = {alpha}, two views ({augmentation})", alpha=2, augmentation=AUGMENTATION)
CENTERED = Protocol(text="effective rank of centered features")
SPREAD = Protocol(text="spread of l2-normalized features")


def chosen(total: int, most: int) -> Tensor:
    """Indices, ascending, of `most` of `total` images drawn without replacement; of all where they are fewer."""
    if total <= most:
        return torch.arange(total)
    drawn = torch.randperm(total, generator=torch.Generator().manual_seed(SEED))[:most]
    return torch.sort(drawn).values


def rankme(vectors: Tensor) -> float:
    """RankMe of features (n, dim), uncentered; between 1 and min(n, dim)."""
    values = singular_values(vectors)
    return _exp_entropy(values / values.sum() + EPSILON)


def effective_rank(vectors: Tensor) -> float:
    """exp of the entropy of the normalized singular values of the centered features (n, dim)."""
    values = singular_values(vectors - vectors.mean(dim=0))
    return _exp_entropy(values / values.sum())


def singular_values(vectors: Tensor) -> Tensor:
    """Of a float64 matrix (n, dim), from the smaller of its two Gram matrices: fast where n is large.

    Values below 1e-8 of the largest are lost, which is below RankMe's epsilon.
    """
    gram = vectors.T @ vectors if vectors.shape[0] >= vectors.shape[1] else vectors @ vectors.T
    values: Tensor = torch.linalg.eigvalsh(gram)
    return values.clamp_min(0).sqrt()


def _exp_entropy(shares: Tensor) -> float:
    return math.exp(float(torch.special.entr(shares).sum()))


def uniformity(vectors: Tensor, t: float = 2) -> float:
    """ln of the mean of exp(-t |x - y|^2) over all pairs of different rows of l2-normalized vectors (n, dim)."""
    rows, total, n = max(1, PAIRS_AT_ONCE // len(vectors)), 0.0, len(vectors)
    for low in range(0, n, rows):
        squares = (2 - 2 * vectors[low : low + rows] @ vectors.T).clamp_min(0)
        total += float(torch.exp(-t * squares).sum())
    itself = float(torch.exp(-t * (2 - 2 * vectors.square().sum(dim=1)).clamp_min(0)).sum())
    return math.log((total - itself) / (n * (n - 1)))


def alignment(first: Tensor, second: Tensor) -> float:
    """Mean of |x - x'|^2 over the rows of two l2-normalized matrices (n, dim)."""
    return float((first - second).square().sum(dim=1).mean())


def view_features(evaluation: Evaluation, indices: Tensor) -> tuple[Tensor, Tensor]:
    """l2-normalized features (n, dim), float64, of two views of each of these training images."""
    parts: tuple[list[Tensor], list[Tensor]] = ([], [])
    parameter = next(evaluation.backbone.parameters(), None)
    device = torch.device("cpu") if parameter is None else parameter.device
    crop = Crop(
        crop_px=evaluation.dataset.image_px, scale=(0.2, 1.0), jitter_probability=0.8, brightness=0.4, contrast=0.4,
        saturation=0.4, hue=0.1, gray_probability=0.2, mean=evaluation.backbone.mean, std=evaluation.backbone.std,
    )  # fmt: skip
    for low in range(0, len(indices), BATCH):
        batch = indices[low : low + BATCH].tolist()
        randoms = [Random(f"{SEED}-{index}") for index in batch]
        images = [evaluation.dataset.train.image(index) for index in batch]
        for part in parts:
            views = torch.stack([crop(image, random) for image, random in zip(images, randoms, strict=True)])
            with torch.inference_mode():
                part.append(evaluation.backbone(views.to(device)).cpu().double())
    return normalize(torch.cat(parts[0]), dim=1), normalize(torch.cat(parts[1]), dim=1)
