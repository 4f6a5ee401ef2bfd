"""DeepCluster v2 in small: predict the cluster of an image, clusters found between epochs (SwAV, arXiv 2006.09882).

    start of an epoch    c_h = spherical k-means of the memory, a_h(image) = argmax_k  m(image) . c_h,k     (per head h)
    loss                 mean over heads and crops of CE(z . c_h / 0.1, a_h(image)); no gradient reaches c_h

As in the authors' main_deepclusterv2.py (facebookresearch/swav 06b1b7c): the memory holds the embeddings of the last
epoch and is filled by one pass before the first one; centers start at random rows of it and an empty cluster keeps its
center; head h reads the memory of crop h modulo the crops; images without an assignment are left out of the loss. What
differs: an image that the last epoch dropped keeps its older embedding, and two crops of one size.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any

import torch
from torch import Tensor
from torch.nn import functional

from ssl_bench.backbone import Backbone
from ssl_bench.blocks.heads import mlp
from ssl_bench.blocks.views import Crop, MultiCrop
from ssl_bench.method import Batch, MakeBackbone, MakeViews, Method, Preset, Progress, Situation, StepOutput
from ssl_bench.settings import Settings, setting

CROPS = 2
UNKNOWN = -100
"""Assignment of an image that the memory does not hold; `cross_entropy` leaves it out."""


class DeepClusterSettings(Settings):
    """Settings of DeepCluster v2."""

    images: int | None = setting(None, "Rows of the memory; null: the training images.", ge=1)
    crop_px: int | None = setting(None, "Side of the crops; null: the image's.", unit="px", ge=1)
    prototypes: tuple[int, ...] = setting((3000, 3000, 3000), "Clusters of each head.", source="SwAV, appendix E")
    hidden_dim: int = setting(2048, "Width of the projector's hidden layer.", source="scripts/deepclusterv2_*.sh", ge=1)
    dim: int = setting(128, "Length of an embedding.", source="scripts/deepclusterv2_*.sh", ge=2)
    temperature: float = setting(0.1, "Divides the scores.", source="main_deepclusterv2.py --temperature", gt=0)
    kmeans_iterations: int = setting(10, "Iterations of k-means.", source="main_deepclusterv2.py", ge=1)


def spherical_kmeans(rows: Tensor, centers: Tensor, iterations: int) -> tuple[Tensor, Tensor]:
    """Centers (k, dim) of unit length and assignments (n,) of unit rows (n, dim) by cosine; empty clusters stay."""
    assigned = (rows @ centers.T).argmax(dim=1)
    for _ in range(iterations):
        sums = torch.zeros_like(centers).index_add_(0, assigned, rows)
        filled = torch.bincount(assigned, minlength=len(centers)) > 0
        centers = torch.where(filled[:, None], functional.normalize(sums, dim=1), centers)
        assigned = (rows @ centers.T).argmax(dim=1)
    return centers, assigned


class DeepCluster(Method):
    """deepcluster: predict to which cluster of the last epoch's embeddings an image belongs."""

    Config = DeepClusterSettings
    presets = {  # noqa: RUF012
        "paper": Preset("800 epochs of ImageNet", {"training.epochs": 800, "training.batch_size": 4096}),
        "small-data": Preset(
            "small images", {"method.prototypes": (4, 4), "method.hidden_dim": 64, "method.dim": 16}, steps=500
        ),
    }

    memory: Tensor
    prototypes: Tensor
    assignments: Tensor

    def __init__(self, config: DeepClusterSettings, make_backbone: MakeBackbone) -> None:
        super().__init__(config, make_backbone)
        self.settings = config
        self.backbone = make_backbone()
        self.projector = mlp([self.backbone.feature_dim, config.hidden_dim, config.dim], batch_norm=True)
        heads, images = len(config.prototypes), config.images or 1
        self.register_buffer("memory", torch.zeros(CROPS, images, config.dim))  # a row of zeros: not seen yet
        self.register_buffer("prototypes", torch.zeros(heads, max(config.prototypes), config.dim))
        self.register_buffer("assignments", torch.full((heads, images), UNKNOWN))

    @classmethod
    def fill(cls, config: DeepClusterSettings, situation: Situation) -> DeepClusterSettings:
        """The memory has a row for each training image."""
        left_open = {"images": situation.train_images, "crop_px": situation.image_px}
        return config.model_copy(update={name: getattr(config, name) or value for name, value in left_open.items()})

    @classmethod
    def make_views(cls, config: DeepClusterSettings) -> MakeViews:
        """SimCLR's views without blur, crops (0.14, 1)."""
        jitter: dict[str, Any] = {"brightness": 0.8, "contrast": 0.8, "saturation": 0.8, "hue": 0.2}
        crop = Crop(config.crop_px or 224, (0.14, 1.0), **jitter, jitter_probability=0.8, gray_probability=0.2)
        return MultiCrop([(crop, CROPS)])

    def embed(self, batch: Batch) -> Tensor:
        """(batch, crops, dim), of unit length."""
        embeddings = self.projector(self.backbone(torch.cat(batch.views))).float()
        return functional.normalize(embeddings, dim=-1).view(CROPS, len(batch.index), -1).transpose(0, 1)

    def prepare(self, batches: Iterable[Batch]) -> None:
        """Fill the memory with one pass, and find the first clusters in it."""
        for batch in batches:
            self.memory[:, batch.index] = self.embed(batch).transpose(0, 1)
        self.cluster()

    def step(self, batch: Batch, progress: Progress) -> StepOutput:
        """Cross-entropy of every crop with every head's assignment."""
        embeddings = self.embed(batch)
        losses = []
        for head, clusters in enumerate(self.settings.prototypes):
            scores = embeddings @ self.prototypes[head, :clusters].T / self.settings.temperature
            targets = self.assignments[head, batch.index].repeat_interleave(CROPS)
            losses.append(functional.cross_entropy(scores.flatten(0, 1), targets, ignore_index=UNKNOWN))
        carry = {"index": batch.index, "embeddings": embeddings.detach()}
        return StepOutput(torch.stack(losses).mean(), {"spread": carry["embeddings"].std(dim=0).mean()}, carry)

    def update(self, carry: Mapping[str, Tensor], progress: Progress) -> None:
        """Remember the batch; after the last step of an epoch, find the clusters of the next one."""
        self.memory[:, carry["index"]] = carry["embeddings"].transpose(0, 1)
        if (progress.step + 1) % progress.steps_per_epoch == 0:
            self.cluster()

    def cluster(self) -> None:
        """k-means of each head on the memory of its crop."""
        known = self.memory[0].any(dim=1).nonzero().squeeze(1)
        for head, clusters in enumerate(self.settings.prototypes):
            rows = self.memory[head % CROPS, known]
            start = rows[torch.randperm(len(rows), device=rows.device)[torch.arange(clusters) % len(rows)]]
            centers, assigned = spherical_kmeans(rows, start, self.settings.kmeans_iterations)
            self.prototypes[head, :clusters] = centers
            self.assignments[head, known] = assigned

    def networks(self) -> dict[str, Backbone]:
        """The backbone, without the projector."""
        return {"backbone": self.backbone}
