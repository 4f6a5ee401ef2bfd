"""lightly's building blocks put together as methods of our contract: what `lightly_training.py` trains.

Each is lightly's own benchmarks/imagenet/resnet50 example without Lightning and the online classifier, with a loss,
heads, transform and moving average of lightly, and the settings of our method of that name. The backbone is built
first, as our methods do, so that one seed gives both the same initial weights.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import torch
from lightly.loss import DINOLoss, NegativeCosineSimilarity, NTXentLoss
from lightly.models.modules import BYOLPredictionHead, BYOLProjectionHead, DINOProjectionHead, SimCLRProjectionHead
from lightly.models.utils import update_momentum
from lightly.transforms import BYOLTransform, BYOLView1Transform, BYOLView2Transform, DINOTransform, SimCLRTransform
from lightly.utils.scheduler import cosine_schedule
from torch import nn

from ssl_bench.backbone import Backbone
from ssl_bench.blocks.views import from_global_rng
from ssl_bench.method import Batch, MakeBackbone, MakeViews, Method, Progress, StepOutput
from ssl_bench_plugins.methods.byol import BYOL
from ssl_bench_plugins.methods.dino import DINO
from ssl_bench_plugins.methods.simclr import SimCLR


class LightlySimCLR(Method):
    """SimCLR of lightly's parts (its benchmarks/imagenet/resnet50/simclr.py)."""

    Config = SimCLR.Config
    blocks = "SimCLRTransform, SimCLRProjectionHead, NTXentLoss"
    different = (
        "bilinear crops (ours bicubic); initial weights of the head, whose last norm has a shift (ours has none)"
    )

    def __init__(self, config: Any, make_backbone: MakeBackbone) -> None:
        super().__init__(config, make_backbone)
        self.backbone = make_backbone()
        dim = self.backbone.feature_dim
        self.head = SimCLRProjectionHead(
            dim, config.hidden_dim or dim, config.out_dim, batch_norm=config.head_batch_norm
        )
        self.criterion = NTXentLoss(config.temperature)

    @classmethod
    def make_views(cls, config: Any) -> MakeViews:
        transform = SimCLRTransform(
            input_size=config.crop_px, min_scale=config.scale[0], cj_prob=config.jitter_probability,
            cj_strength=config.color_strength, random_gray_scale=config.gray_probability,
            gaussian_blur=config.blur_probability, sigmas=config.blur_sigma_px,
        )  # fmt: skip
        return from_global_rng(transform)

    def step(self, batch: Batch, progress: Progress) -> StepOutput:
        first, second = self.head(self.backbone(torch.cat(list(batch.views)))).float().chunk(2)
        return StepOutput(self.criterion(first, second))

    def networks(self) -> dict[str, Backbone]:
        return {"backbone": self.backbone}


class LightlyBYOL(Method):
    """BYOL of lightly's parts (its benchmarks/imagenet/resnet50/byol.py, whose loss is 2 x each direction's)."""

    Config = BYOL.Config
    blocks = "BYOLTransform, BYOLProjectionHead, BYOLPredictionHead, NegativeCosineSimilarity, update_momentum"
    different = "bilinear crops (ours bicubic); initial weights and biases of the heads' layers"

    def __init__(self, config: Any, make_backbone: MakeBackbone) -> None:
        super().__init__(config, make_backbone)
        self.config = config
        self.backbone = make_backbone()
        widths = config.hidden_dim, config.out_dim
        self.projection_head = BYOLProjectionHead(self.backbone.feature_dim, *widths)
        self.prediction_head = BYOLPredictionHead(config.out_dim, *widths)
        self.target = nn.Sequential(make_backbone(), BYOLProjectionHead(self.backbone.feature_dim, *widths))
        self.online = nn.Sequential(self.backbone, self.projection_head)
        self.target.load_state_dict(self.online.state_dict())
        self.target.requires_grad_(False)
        self.criterion = NegativeCosineSimilarity()

    @classmethod
    def make_views(cls, config: Any) -> MakeViews:
        shared: Any = {"input_size": config.crop_px, "min_scale": config.scale[0], "sigmas": config.blur_sigma_px}
        shared |= {"cj_prob": config.jitter_probability, "random_gray_scale": config.gray_probability}
        shared |= {"cj_bright": config.brightness, "cj_contrast": config.contrast}
        shared |= {"cj_sat": config.saturation, "cj_hue": config.hue}
        kinds = zip(
            (BYOLView1Transform, BYOLView2Transform),
            config.blur_probability,
            config.solarize_probability,
            strict=True,
        )
        views = [kind(**shared, gaussian_blur=blur, solarization_prob=solarize) for kind, blur, solarize in kinds]
        return from_global_rng(BYOLTransform(*views))

    def step(self, batch: Batch, progress: Progress) -> StepOutput:
        with torch.no_grad():
            targets = [self.target(view).float() for view in batch.views]
        first, second = (self.prediction_head(self.online(view)).float() for view in batch.views)
        return StepOutput(2 * self.criterion(first, targets[1]) + 2 * self.criterion(second, targets[0]))

    def update(self, carry: Mapping[str, Any], progress: Progress) -> None:
        momentum = cosine_schedule(progress.step, progress.total_steps, self.config.target_momentum, 1.0)
        update_momentum(self.online, self.target, m=momentum)

    def networks(self) -> dict[str, Backbone]:
        return {"backbone": self.backbone}


class LightlyDINO(Method):
    """DINO of lightly's parts (its benchmarks/imagenet/resnet50/dino.py): centering, momentum teacher."""

    Config = DINO.Config
    blocks = "DINOTransform, DINOProjectionHead, DINOLoss, update_momentum"
    different = (
        "bilinear crops (ours bicubic); gradients clipped together (ours each tensor by itself, to the same norm); "
        "initial weights of the head"
    )

    def __init__(self, config: Any, make_backbone: MakeBackbone) -> None:
        super().__init__(config, make_backbone)
        self.config = config
        self.backbone, teacher = make_backbone(drop_path=config.drop_path), make_backbone()
        heads = (
            DINOProjectionHead(
                self.backbone.feature_dim, config.hidden_dim, config.bottleneck_dim, config.out_dim,
                batch_norm=config.head_batch_norm, norm_last_layer=config.norm_last_layer,
                freeze_last_layer=config.freeze_last_layer_epochs,
            )
            for _ in range(2)
        )  # fmt: skip
        self.student = nn.Sequential(self.backbone, next(heads))
        self.teacher = nn.Sequential(teacher, next(heads))
        self.teacher.load_state_dict(self.student.state_dict())
        self.teacher.requires_grad_(False)
        ramp = config.teacher_temperature_epochs
        self.criterion = DINOLoss(
            config.out_dim, config.teacher_temperature_start, config.teacher_temperature, ramp,
            config.student_temperature, config.center_momentum,
        )  # fmt: skip

    @classmethod
    def make_views(cls, config: Any) -> MakeViews:
        blur = (1.0, 0.1, 0.5) if config.blur else (0.0, 0.0, 0.0)
        transform = DINOTransform(
            global_crop_size=config.global_crop_px, global_crop_scale=config.global_scale,
            local_crop_size=config.local_crop_px, local_crop_scale=config.local_scale,
            n_local_views=config.local_views, cj_strength=1.0, cj_bright=0.4, cj_contrast=0.4, cj_sat=0.2,
            cj_hue=config.hue, random_gray_scale=config.gray_probability, gaussian_blur=blur,
            sigmas=config.blur_sigma_px,
        )  # fmt: skip
        return from_global_rng(transform)

    def step(self, batch: Batch, progress: Progress) -> StepOutput:
        with torch.no_grad():
            teacher = self.teacher(torch.cat(list(batch.views[:2]))).float().chunk(2)
        student = [*self.student(torch.cat(list(batch.views[:2]))).float().chunk(2)]
        local = batch.views[2:]
        if local:
            student += self.student(torch.cat(list(local))).float().chunk(len(local))
        return StepOutput(self.criterion(list(teacher), student, epoch=progress.epoch))

    def before_optimizer(self, progress: Progress) -> None:
        if self.config.clip_norm:
            nn.utils.clip_grad_norm_(self.student.parameters(), self.config.clip_norm)
        self.student[1].cancel_last_layer_gradients(progress.epoch)

    def update(self, carry: Mapping[str, Any], progress: Progress) -> None:
        momentum = cosine_schedule(progress.step, progress.total_steps, self.config.teacher_momentum, 1.0)
        update_momentum(self.student, self.teacher, m=momentum)

    def networks(self) -> dict[str, Backbone]:
        return {"teacher": self.teacher[0], "student": self.backbone}


TWINS: dict[str, Any] = {"simclr": LightlySimCLR, "byol": LightlyBYOL, "dino": LightlyDINO}
"""By the name of our method."""
