"""DINO and SwAV put together from lightly's blocks; lightly_two_views.py says what the five comparisons have in common.

lightly's DINOLoss moves its center while the loss is computed, and its SwaVPrototypes are normalized before it; here
`update` does both, so that `step` moves nothing.
"""

# mypy: disable-error-code="misc, no-any-return"

from __future__ import annotations

import warnings
from collections.abc import Mapping
from itertools import groupby
from typing import Any

import torch
from lightly.loss import DINOLoss, SwaVLoss
from lightly.models.modules import DINOProjectionHead, SwaVProjectionHead, SwaVPrototypes
from lightly.models.utils import update_momentum
from lightly.transforms import DINOTransform, SwaVTransform
from lightly.utils.scheduler import cosine_schedule
from torch import Tensor, nn

from ssl_bench.backbone import Backbone
from ssl_bench.method import Batch, MakeBackbone, MakeViews, Method, Progress, Situation, StepOutput
from ssl_bench_plugins.methods.dino import DINO
from ssl_bench_plugins.methods.lightly_two_views import in_full, require, views_of
from ssl_bench_plugins.methods.swav import SwAV


class StillDINOLoss(DINOLoss):
    """lightly's loss, whose center only `move_center` moves."""

    def update_center(self, teacher_out: Tensor) -> None:
        """Nothing: lightly's `forward` calls it."""

    def move_center(self, teacher_out: Tensor) -> None:
        """What lightly's `update_center` does, with scores (views, batch, K)."""
        super().update_center(teacher_out)


def _head(in_dim: int, config: Any) -> nn.Module:
    with warnings.catch_warnings(category=FutureWarning, action="ignore"):  # torch's, of lightly's weight_norm
        return DINOProjectionHead(
            in_dim,
            config.hidden_dim,
            config.bottleneck_dim,
            config.out_dim,
            batch_norm=config.head_batch_norm,
            norm_last_layer=config.norm_last_layer,
            freeze_last_layer=config.freeze_last_layer_epochs,
        )


class LightlyDINO(Method):
    """DINO of lightly's blocks: DINOTransform, DINOProjectionHead, DINOLoss.

    arXiv 2104.14294. Differs by bilinear crops (ours bicubic) and gradients that are clipped together (ours each tensor
    by itself, to the same norm).
    """

    Config = DINO.Config
    presets = DINO.presets
    mean_over_images = True

    def __init__(self, config: Any, make_backbone: MakeBackbone) -> None:
        super().__init__(config, make_backbone)
        self.config = config
        self.backbone, teacher = make_backbone(drop_path=config.drop_path), make_backbone()
        self.student = nn.Sequential(self.backbone, _head(self.backbone.feature_dim, config))
        self.teacher = nn.Sequential(teacher, _head(self.backbone.feature_dim, config))
        self.teacher.load_state_dict(self.student.state_dict())
        self.teacher.requires_grad_(False)
        self.criterion = StillDINOLoss(
            config.out_dim,
            config.teacher_temperature_start,
            config.teacher_temperature,
            config.teacher_temperature_epochs,
            config.student_temperature,
            config.center_momentum,
        )

    @classmethod
    def fill(cls, config: Any, situation: Situation) -> Any:
        """As DINO's. Raises `UserError` for the ablations that lightly lacks."""
        require(config, "dino", head_layers=3, predictor=False, teacher="momentum", assignment="centering", loss="ce")
        return DINO.fill(config, situation)

    @classmethod
    def make_views(cls, config: Any) -> MakeViews:
        """Two global views, then the local ones, with the recipe's strengths."""
        transform = DINOTransform(
            global_crop_size=config.global_crop_px or 224,
            global_crop_scale=config.global_scale or (0.4, 1.0),
            local_crop_size=config.local_crop_px or 96,
            local_crop_scale=config.local_scale,
            n_local_views=config.local_views,
            cj_strength=1.0,
            cj_bright=0.4,
            cj_contrast=0.4,
            cj_sat=0.2,
            cj_hue=config.hue,
            random_gray_scale=config.gray_probability,
            gaussian_blur=(1.0, 0.1, 0.5) if config.blur else (0.0, 0.0, 0.0),
            sigmas=config.blur_sigma_px or (0.1, 2.0),
        )
        return views_of(transform)

    def step(self, batch: Batch, progress: Progress) -> StepOutput:
        """The teacher's global views against all views of the student."""
        with torch.no_grad():
            teacher = in_full(self.teacher(torch.cat(list(batch.views[:2])))).chunk(2)
        student = [*in_full(self.student(torch.cat(list(batch.views[:2])))).chunk(2)]
        if local := batch.views[2:]:
            student += in_full(self.student(torch.cat(list(local)))).chunk(len(local))
        with torch.autocast(student[0].device.type, enabled=False):
            loss = self.criterion(list(teacher), student, epoch=progress.epoch)
        return StepOutput(loss, {"loss": loss.detach()}, {"teacher": torch.stack(teacher, dim=1)})

    def before_optimizer(self, progress: Progress) -> None:
        """Clip the student's gradients; the last layer rests at first."""
        if self.config.clip_norm:
            nn.utils.clip_grad_norm_(self.student.parameters(), self.config.clip_norm)
        self.student[1].cancel_last_layer_gradients(progress.epoch)  # type: ignore[operator]

    def update(self, carry: Mapping[str, Tensor], progress: Progress) -> None:
        """Move the center, and the teacher ever slower."""
        self.criterion.move_center(carry["teacher"].transpose(0, 1))
        momentum = cosine_schedule(progress.step, progress.total_steps, self.config.teacher_momentum, 1.0)
        update_momentum(self.student, self.teacher, m=momentum)

    def networks(self) -> dict[str, Backbone]:
        """The teacher's backbone, and the student's."""
        return {"teacher": self.teacher[0], "student": self.backbone}  # type: ignore[dict-item]


class LightlySwAV(Method):
    """SwAV of lightly's blocks: SwaVTransform, SwaVProjectionHead, SwaVPrototypes, SwaVLoss.

    arXiv 2006.09882. Without a queue. Differs by the heads' initial weights.
    """

    Config = SwAV.Config
    presets = {name: preset for name, preset in SwAV.presets.items() if "method.queue_size" not in preset.values}  # noqa: RUF012

    def __init__(self, config: Any, make_backbone: MakeBackbone) -> None:
        super().__init__(config, make_backbone)
        self.config = config
        self.backbone = make_backbone()
        self.projector = SwaVProjectionHead(self.backbone.feature_dim, config.hidden_dim, config.out_dim)
        self.prototypes = SwaVPrototypes(config.out_dim, config.prototypes or 3000)
        self.normalize_prototypes()
        self.criterion = SwaVLoss(config.temperature, config.sinkhorn_iterations, config.epsilon)

    @classmethod
    def fill(cls, config: Any, situation: Situation) -> Any:
        """As SwAV's. Raises `UserError` for a queue."""
        require(config, "swav", queue_size=0)
        return SwAV.fill(config, situation)

    @classmethod
    def make_views(cls, config: Any) -> MakeViews:
        """Two global views, then the local ones, with the recipe's strengths."""
        crops = [(config.global_crop_px or 224, 2, config.global_scale)]
        if config.local_views:
            crops.append((config.local_crop_px or 96, config.local_views, config.local_scale))
        transform = SwaVTransform(
            crop_sizes=tuple(px for px, _, _ in crops),
            crop_counts=tuple(count for _, count, _ in crops),
            crop_min_scales=tuple(scale[0] for _, _, scale in crops),
            crop_max_scales=tuple(scale[1] for _, _, scale in crops),
            cj_strength=config.color_strength,
            random_gray_scale=config.gray_probability,
            gaussian_blur=config.blur_probability,
            sigmas=config.blur_sigma_px or (0.1, 2.0),
        )
        return views_of(transform)

    @torch.no_grad()
    def normalize_prototypes(self) -> None:
        """Put the prototypes to length 1."""
        self.prototypes.normalize()

    def embed(self, batch: Batch) -> dict[str, Tensor]:
        """Unit vectors (batch, views, out_dim)."""
        sizes = [torch.cat(list(group)) for _, group in groupby(batch.views, key=lambda view: view.shape[-2:])]
        projected = in_full(self.projector(torch.cat([self.backbone(images) for images in sizes])))
        unit = nn.functional.normalize(projected, dim=1)
        return {"embeddings": unit.view(len(batch.views), -1, unit.shape[-1]).transpose(0, 1)}

    def loss(self, embeddings: Mapping[str, Tensor], progress: Progress) -> StepOutput:
        """Each global view's code against the predictions of all other views."""
        vectors = embeddings["embeddings"].transpose(0, 1)  # (views, batch, out_dim)
        with torch.autocast(vectors.device.type, enabled=False):
            scores = self.prototypes(vectors.flatten(0, 1)).chunk(len(vectors))
            loss = self.criterion(list(scores[:2]), list(scores[2:])).squeeze(0)
        return StepOutput(loss, {"loss": loss.detach()})

    def parameter_groups(self) -> Any:
        """As SwAV's: all alike in a convolutional network."""
        return SwAV.parameter_groups(self) if self.backbone.kind == "convnet" else super().parameter_groups()

    def before_optimizer(self, progress: Progress) -> None:
        """Let the prototypes rest at first."""
        if progress.step < round(self.config.freeze_prototypes_epochs * progress.steps_per_epoch):
            for weight in self.prototypes.parameters():
                weight.grad = None

    def update(self, carry: Mapping[str, Tensor], progress: Progress) -> None:
        """Put the prototypes back to length 1 for the next forward pass."""
        self.normalize_prototypes()

    def networks(self) -> dict[str, Backbone]:
        """The backbone without projector and prototypes."""
        return {"backbone": self.backbone}
