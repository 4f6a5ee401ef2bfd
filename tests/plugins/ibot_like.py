"""iBOT: self-distillation of the image and of its masked patches (Zhou et al. 2021, arXiv 2111.07832).

The student sees two global views with masked patches and local views without; the teacher sees the global views whole.
Both give K scores for the class token and for each patch, through one head (P = softmax of scores / temperature, the
teacher's centered before):

    L_cls   = mean over pairs (global view u, other view v) of H(P_t_cls(u), P_s_cls(v))              (equation 2)
    L_patch = mean over global views and images of  sum_i m_i H(P_t_i(u), P_s_i(u masked)) / sum_i m_i    (equation 3)
    loss    = L_cls + L_patch

H(a, b) = -sum a log b; m_i is 1 for a masked patch. Each of the two centers moves by its mean score, the teacher by the
student. Blocks of patches are masked as in BEiT (arXiv 2106.08254, algorithm 1). Authors' code: main_ibot.py and
loader.py of bytedance/ibot. What differs: they draw for each image whether it is masked, here just half of the batch is
(as DINOv2 does), so that every batch has masked patches.
"""

from __future__ import annotations

import copy
import math
from collections.abc import Mapping
from dataclasses import replace
from random import Random
from typing import Any, ClassVar

import torch
from torch import Tensor, nn
from torch.nn import functional

from ssl_bench.backbone import Backbone
from ssl_bench.blocks import ema
from ssl_bench.blocks.collapse_signs import distillation_signs, entropy
from ssl_bench.blocks.heads import NormalizedLinear, mlp
from ssl_bench.blocks.multi_crop import features_of_views, mean_over_pairs
from ssl_bench.blocks.optimizers import clip_each
from ssl_bench.blocks.patch_sizes import multi_crop_px
from ssl_bench.blocks.schedules import linear_ramp
from ssl_bench.blocks.views import Crop, MultiCrop
from ssl_bench.method import (
    Batch,
    MakeBackbone,
    MakeViews,
    Method,
    Preset,
    Progress,
    Sign,
    Situation,
    StepOutput,
    Views,
)
from ssl_bench.settings import Settings, setting

GLOBAL_VIEWS = 2
ATTEMPTS = 10
"""Blocks that are tried before a mask is left as it is (loader.py)."""
CODE = "main_ibot.py"


class IBOTSettings(Settings):
    """Every setting with its meaning and where its default comes from."""

    global_crop_px: int | None = setting(None, "Side of the 2 global views; null: the image's.", unit="px", ge=1)
    local_crop_px: int | None = setting(None, "Side of the local views; null: 96/224 of it.", unit="px", ge=1)
    patch_px: int | None = setting(None, "Side of a patch; null: the backbone's.", unit="px", ge=1)
    local_views: int = setting(10, "Local views an image.", unit="views", source="section 4.1", ge=0, le=1000)
    global_scale: tuple[float, float] = setting((0.25, 1.0), "Area of a global view.", source="README, ViT-S/16")
    local_scale: tuple[float, float] = setting((0.05, 0.25), "Area of a local view.", source="README, ViT-S/16")
    masked_images: float = setting(0.5, "Share of a batch with masked patches.", source="section 3.3", gt=0, le=1)
    mask_ratio: tuple[float, float] = setting((0.1, 0.5), "Range of an image's masked share.", source="section 3.3")
    out_dim: int = setting(8192, "Number of scores, K.", source="section 4.1", ge=2)
    hidden_dim: int = setting(2048, "Width of the head's hidden layers.", source="models/head.py", ge=1)
    bottleneck_dim: int = setting(256, "Width before the last layer.", source="models/head.py", ge=1)
    student_temperature: float = setting(0.1, "Student's temperature.", source=CODE, gt=0)
    teacher_temperature: float = setting(0.07, "Teacher's temperature in the end.", source="README, ViT-S/16", gt=0)
    teacher_temperature_start: float = setting(0.04, "Teacher's temperature in epoch 0.", source=CODE, gt=0)
    teacher_temperature_epochs: int = setting(30, "Length of its ramp.", unit="epochs", source=CODE, ge=0)
    teacher_momentum: float = setting(0.996, "Teacher's momentum at the start; ends at 1.", source=CODE, ge=0, le=1)
    center_momentum: float = setting(0.9, "Momentum of both centers.", source=CODE, ge=0, lt=1)
    freeze_last_layer_epochs: int = setting(1, "How long the last layer is frozen.", unit="epochs", source=CODE, ge=0)
    clip_norm: float = setting(3.0, "Largest norm of each tensor's gradient.", source=CODE, gt=0)
    drop_path: float = setting(0.1, "Stochastic depth of the student.", source=CODE, ge=0, lt=1)


def block_mask(side: int, ratio: float, rng: Random) -> Tensor:
    """(side * side,) bool: blocks of patches, at most `ratio` of all; fewer where no further block is found."""
    mask, most = torch.zeros(side, side, dtype=torch.bool), ratio * side**2
    for _ in range(side**2):
        left = most - int(mask.sum())
        for _ in range(ATTEMPTS):
            area = rng.uniform((side // 3) ** 2, left)
            aspect = math.exp(rng.uniform(math.log(0.3), -math.log(0.3)))
            height, width = round(math.sqrt(area * aspect)), round(math.sqrt(area / aspect))
            if height >= side or width >= side:
                continue
            top, start = rng.randint(0, side - height), rng.randint(0, side - width)
            block = mask[top : top + height, start : start + width]
            if 0 < int((~block).sum()) <= left:
                block.fill_(True)
                break
        else:
            break
    return mask.flatten()


def class_loss(teacher: Tensor, student: Tensor) -> Tensor:
    """L_cls from P_t (2, batch, K) and log P_s (views, batch, K), the global views first."""
    return -mean_over_pairs(teacher, student)


def patch_loss(teacher: Tensor, student: Tensor, mask: Tensor) -> Tensor:
    """L_patch from P_t and log P_s (2 * batch, patches, K) and the mask (2 * batch, patches); images without one: 0."""
    of_patches = -(teacher * student).sum(dim=-1) * mask
    return (of_patches.sum(dim=1) / mask.sum(dim=1).clamp(min=1)).mean()


class Head(nn.Module):
    """One MLP with a normalized bottleneck for class tokens and patches (shared_head in models/head.py)."""

    def __init__(self, in_dim: int, config: IBOTSettings) -> None:
        super().__init__()
        self.mlp = mlp([in_dim, config.hidden_dim, config.hidden_dim, config.bottleneck_dim], activation=nn.GELU)
        self.last_layer = NormalizedLinear(config.bottleneck_dim, config.out_dim)

    def forward(self, tokens: Tensor) -> Tensor:
        """(..., in_dim) -> scores (..., K)."""
        bottleneck = self.mlp(tokens).to(self.last_layer.rows.dtype)  # not bf16 from here on
        return self.last_layer(functional.normalize(bottleneck, dim=-1))  # type: ignore[no-any-return]


class Network(nn.Module):
    """Backbone and head: the student, and the teacher."""

    def __init__(self, backbone: Backbone, head: Head) -> None:
        super().__init__()
        self.backbone, self.head = backbone, head

    def forward(self, images: Tensor, **masking: Tensor) -> tuple[Tensor, Tensor]:
        """(batch, 3, height, width) -> scores of the class token (batch, K) and of the patches (batch, patches, K)."""
        tokens = self.backbone.tokens(images, **masking)
        assert tokens.cls is not None, "its features are a class token"
        return self.head(tokens.cls), self.head(tokens.patches)


class IBOT(Method):
    """iBOT: masked patches and class tokens learn what a moving average of the network sees unmasked."""

    Config = IBOTSettings
    requires = frozenset({"masking"})
    mean_over_images = True
    backbone_defaults: ClassVar[Mapping[str, Any]] = {"positions": "dino"}
    presets = {  # noqa: RUF012
        "paper": Preset("ViT-S/16, 800 epochs", {"training.epochs": 800, "training.batch_size": 1024}),
        "small-data": Preset(
            "small images",
            {
                "method.local_views": 2,
                "method.out_dim": 128,
                "method.hidden_dim": 128,
                "method.bottleneck_dim": 32,
                "method.teacher_temperature_epochs": 0,
                "method.freeze_last_layer_epochs": 0,
                "method.drop_path": 0.0,
            },
            steps=750,
        ),
    }
    class_center: Tensor
    patch_center: Tensor

    def __init__(self, config: IBOTSettings, make_backbone: MakeBackbone) -> None:
        super().__init__(config, make_backbone)
        self.config = config
        backbone, teacher = make_backbone(drop_path=config.drop_path), make_backbone()
        head = Head(backbone.feature_dim, config)
        self.student = Network(backbone, head)
        self.teacher = Network(teacher, copy.deepcopy(head)).requires_grad_(False)
        self.teacher.load_state_dict(self.student.state_dict())
        self.mask_token = nn.Parameter(torch.zeros(backbone.feature_dim))
        self.register_buffer("class_center", torch.zeros(config.out_dim))
        self.register_buffer("patch_center", torch.zeros(config.out_dim))

    @classmethod
    def fill(cls, config: IBOTSettings, situation: Situation) -> IBOTSettings:
        """The sizes of views and patches, which decide how many patches there are to mask."""
        global_px, local_px = multi_crop_px(config.global_crop_px, config.local_crop_px, situation)
        sizes = {"global_crop_px": global_px, "local_crop_px": local_px, "patch_px": situation.patch_px}
        return config.model_copy(update={**sizes, "patch_px": config.patch_px or situation.patch_px})

    @classmethod
    def make_views(cls, config: IBOTSettings) -> MakeViews:
        """DINO's views (DataAugmentationiBOT)."""
        jitter: dict[str, Any] = {"brightness": 0.4, "contrast": 0.4, "saturation": 0.2, "hue": 0.1}
        first = Crop(
            config.global_crop_px or 224, config.global_scale, **jitter, jitter_probability=0.8, gray_probability=0.2,
            blur_probability=1.0,
        )  # fmt: skip
        second = replace(first, blur_probability=0.1, solarize_probability=0.2)
        local = replace(first, crop_px=config.local_crop_px or 96, scale=config.local_scale, blur_probability=0.5)
        return MultiCrop([(first, 1), (second, 1), (local, config.local_views)])

    @classmethod
    def batch_views(cls, config: IBOTSettings, views: Views, rng: Random) -> Views:
        """One mask (batch, patches) for each global view more: of a share of the batch, by a ratio drawn for each."""
        batch, side = len(views[0]), (config.global_crop_px or 224) // (config.patch_px or 16)
        masks = []
        for _ in range(GLOBAL_VIEWS):
            chosen = set(rng.sample(range(batch), max(1, round(config.masked_images * batch))))
            ratios = [rng.uniform(*config.mask_ratio) if image in chosen else 0.0 for image in range(batch)]
            masks.append(torch.stack([block_mask(side, ratio, rng) for ratio in ratios]))
        return (*views, *masks)

    def step(self, batch: Batch, progress: Progress) -> StepOutput:
        """Both losses; see the module's equations."""
        config, images, mask = self.config, batch.views[:-GLOBAL_VIEWS], torch.cat(batch.views[-GLOBAL_VIEWS:])
        start, ramp = config.teacher_temperature_start, config.teacher_temperature_epochs
        temperature = linear_ramp(progress.epoch, ramp, start, config.teacher_temperature)
        whole = torch.cat(images[:GLOBAL_VIEWS])
        with torch.no_grad():
            class_scores, patch_scores = self.teacher(whole)
            class_targets = functional.softmax((class_scores - self.class_center) / temperature, dim=-1)
            patch_targets = functional.softmax((patch_scores - self.patch_center) / temperature, dim=-1)
        student_class, student_patches = self.student(whole, mask=mask, mask_token=self.mask_token)
        if images[GLOBAL_VIEWS:]:
            local = self.student.head(features_of_views(self.student.backbone, images[GLOBAL_VIEWS:]))
            student_class = torch.cat([student_class, local])
        by_view = (-1, len(batch.index), config.out_dim)
        log_class = functional.log_softmax(student_class / config.student_temperature, dim=-1).view(by_view)
        log_patches = functional.log_softmax(student_patches / config.student_temperature, dim=-1)
        of_class = class_loss(class_targets.view(by_view), log_class)
        of_patches = patch_loss(patch_targets, log_patches, mask)
        teacher_entropy = entropy(class_targets)
        logs = {
            "class_loss": of_class.detach(),
            "patch_loss": of_patches.detach(),
            "masked": mask.float().mean(),
            "teacher_entropy": teacher_entropy,
            "kl": of_class.detach() - teacher_entropy,
        }
        carry = {
            "class_sum": class_scores.sum(dim=0)[None],
            "patch_sum": patch_scores.sum(dim=(0, 1))[None],
            "target_sum": class_targets.sum(dim=0)[None],
            "tokens": torch.tensor([len(class_scores)]),
            "patches": torch.tensor([patch_scores[..., 0].numel()]),
        }
        return StepOutput(of_class + of_patches, logs, carry)

    def batch_logs(self, carry: Mapping[str, Tensor]) -> dict[str, Tensor]:
        """How many scores the batch uses, from 1 to K."""
        return {"scores_used": entropy(carry["target_sum"].sum(dim=0) / carry["tokens"].sum()).exp()}

    def before_optimizer(self, progress: Progress) -> None:
        """Clip each tensor's gradient, then drop the last layer's at first (train_one_epoch)."""
        clip_each(self.student.parameters(), self.config.clip_norm)
        if progress.epoch < self.config.freeze_last_layer_epochs:
            self.student.head.last_layer.zero_grad(set_to_none=True)

    def update(self, carry: Mapping[str, Tensor], progress: Progress) -> None:
        """Move both centers by the means of this batch, and the teacher."""
        moved = 1 - self.config.center_momentum
        self.class_center.lerp_(carry["class_sum"].sum(dim=0) / carry["tokens"].sum(), moved)
        self.patch_center.lerp_(carry["patch_sum"].sum(dim=0) / carry["patches"].sum(), moved)
        momentum = ema.momentum_at(progress.step, progress.total_steps, self.config.teacher_momentum)
        ema.move_towards(self.teacher, self.student, momentum)

    def signs(self, batch_size: int) -> list[Sign]:
        """As of any centered and sharpened teacher."""
        center = "a lower method.center_momentum"
        sharpen = "a method.teacher_temperature below student_temperature"
        return distillation_signs(self.config.out_dim, center, sharpen)

    def networks(self) -> dict[str, Backbone]:
        """The teacher is evaluated, as in the paper."""
        return {"teacher": self.teacher.backbone, "student": self.student.backbone}
