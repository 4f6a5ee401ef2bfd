"""DINO: self-distillation with no labels (Caron et al. 2021, arXiv 2104.14294).

A student network sees every view x of an image, a teacher network only the two global ones. Both give K scores, and the
student learns to predict the teacher's scores of one view from another view (equations 1 to 3, algorithm 1):

    P_t(x) = softmax((g_t(x) - c) / tau_t)       P_s(x) = softmax(g_s(x) / tau_s)
    loss   = mean over pairs (global view x, other view x' != x) of H(P_t(x), P_s(x')),   H(a, b) = -sum a log b
    c     <- m c + (1 - m) mean of g_t over the batch          after it was used
    theta_t <- l theta_t + (1 - l) theta_s                     l from 0.996 to 1 along a cosine

Subtracting c (centering) prevents one score from dominating for every image; tau_t < tau_s (sharpening) prevents all
scores from becoming equal. H = h(P_t) + KL(P_t || P_s) is logged in its two parts; a collapse shows as a fall of one of
them to 0 (figure 7).

Authors' code: github.com/facebookresearch/dino (main_dino.py, utils.py, vision_transformer.py). What differs: below
96 px the largest blur shrinks with the crop (theirs: 2 px). Not in their code, and written from the paper's text:
"mse" is BYOL's 2 - 2 cos between scores, centered for the teacher (table 7, row 5); the predictor is an MLP before the
bottleneck's normalization (row 6); Sinkhorn assigns each global view's batch at tau_t (row 3); teachers of section 5.2.

lightly's DINOLoss equals ours to 1e-9, its center to 1e-12, its DINOProjectionHead ours to 1e-10 in float64, and its
sinkhorn ours to 1e-6 (tests/plugins/methods/test_dino.py); it moves the center inside the loss.
"""

from __future__ import annotations

import copy
from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Any, ClassVar, Literal

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
from ssl_bench.blocks.recompute import mean_of_parts
from ssl_bench.blocks.schedules import linear_ramp
from ssl_bench.blocks.sinkhorn import sinkhorn
from ssl_bench.blocks.views import Crop, MultiCrop, blur_range_px
from ssl_bench.method import Batch, MakeBackbone, MakeViews, Method, Preset, Progress, Sign, Situation, StepOutput
from ssl_bench.settings import AreaRange, BlurRange, Settings, setting

Teacher = Literal["momentum", "student_copy", "previous_iteration", "previous_epoch"]
Assignment = Literal["centering", "sinkhorn", "softmax"]
CODE, HOW = "main_dino.py", "section 3.2"
MOST_SCORES = 2**25  # of the student at once where Sinkhorn needs the whole batch: 128 MiB


class DINOSettings(Settings):
    """DINO's settings; null is decided from the data before the run and then recorded in the recipe."""

    global_crop_px: int | None = setting(None, "Side of the 2 global views; null: the image's.", unit="px", ge=1)
    local_crop_px: int | None = setting(None, "Side of the local views; null: 96/224 of it.", unit="px", ge=1)
    local_views: int = setting(8, "Local views an image; 0: no multi-crop.", unit="views", source=CODE, ge=0, le=1000)
    global_scale: AreaRange | None = setting(None, "Area of a global view; null: 0.4 to 1, 0.14 if alone.", source=CODE)
    local_scale: AreaRange = setting((0.05, 0.4), "Area of a local view, of the image's.", source=CODE)
    hue: float = setting(0.1, "Largest change of the hue in jitter.", unit="turns", source=CODE, ge=0, le=0.5)
    gray_probability: float = setting(0.2, "Probability of a gray view.", source=CODE, ge=0, le=1)
    blur: bool = setting(True, "Whether views are blurred, with probabilities 1, 0.1 and 0.5.", source=CODE)
    blur_sigma_px: BlurRange | None = setting(None, "Blur's range; null: 0.1 to 2 at 96 px.", unit="px", source=CODE)
    out_dim: int = setting(65536, "Number of scores, K.", source=HOW, ge=2)
    hidden_dim: int = setting(2048, "Width of the head's hidden layers.", source="section 3.1", ge=1)
    bottleneck_dim: int = setting(256, "Width that is normalized before the last layer.", source="appendix C", ge=1)
    head_layers: int = setting(
        3, "Linear layers up to the bottleneck.", unit="layers", source="section 3.1", ge=1, le=100
    )
    head_batch_norm: bool = setting(False, "Batch norm in the head.", source="section 3.1")
    predictor: bool = setting(False, "Predictor MLP on the student, as in BYOL.", source="table 7, row 6")
    norm_last_layer: bool = setting(True, "Last layer's gain fixed at 1; false: stable for ViT-S only.", source=CODE)
    freeze_last_layer_epochs: int = setting(1, "How long the last layer is frozen.", unit="epochs", source=CODE, ge=0)
    teacher: Teacher = setting("momentum", "Where the teacher's weights come from.", source="section 5.2")
    teacher_momentum: float = setting(0.996, "Teacher's momentum l at the start; ends at 1.", source=HOW, ge=0, le=1)
    assignment: Assignment = setting("centering", "How scores become targets; softmax: as they are.", source=HOW)
    loss: Literal["ce", "mse"] = setting("ce", "Cross-entropy, or 2 - 2 cos of scores.", source="table 7, row 5")
    student_temperature: float = setting(0.1, "Student's temperature tau_s.", source=HOW, gt=0)
    teacher_temperature: float = setting(0.07, "Teacher's tau_t in the end; tau_s: no sharpening.", source=HOW, gt=0)
    teacher_temperature_start: float = setting(0.04, "Teacher's tau_t in epoch 0.", source=HOW, gt=0)
    teacher_temperature_epochs: int = setting(30, "Length of tau_t's linear ramp.", unit="epochs", source=HOW, ge=0)
    center_momentum: float = setting(0.9, "Momentum m of the center.", source="section 3.1", ge=0, lt=1)
    sinkhorn_iterations: int = setting(
        3, "Rounds of the assignment sinkhorn.", source="SwAV, section 3.1", ge=1, le=1000
    )
    clip_norm: float = setting(3.0, "Largest norm of each tensor's gradient; 0: no clipping.", source=CODE, ge=0)
    drop_path: float = setting(0.1, "Stochastic depth of the student.", source=CODE, ge=0, lt=1)


# The authors' README, "ResNet-50 and other convnets trainings"; its teacher temperature stays at 0.04.
CONVNET = {
    "method.global_scale": (0.14, 1.0),
    "method.local_scale": (0.05, 0.14),
    "method.drop_path": 0.0,
    "optimizer.name": "sgd",
    "optimizer.base_lr": 0.03,
    "optimizer.weight_decay": 1e-4,
    "optimizer.final_weight_decay": None,
}
PRESETS = {
    "paper": Preset(
        "300 epochs; the paper's ablations have 10 local views (72.8 k-NN)",
        {"training.epochs": 300, "training.batch_size": 1024},
        CONVNET,
    ),
    "paper-table-2": Preset(
        "the released deit_s16 of the paper's table 2 (74.5 k-NN)",
        {
            "method.local_views": 10,
            "method.global_scale": (0.25, 1.0),
            "method.local_scale": (0.05, 0.25),
            "method.norm_last_layer": False,
            "optimizer.final_lr": 1e-5,
            "training.epochs": 800,
            "training.batch_size": 1024,
        },
    ),
    "thesis": Preset("the thesis's small card", {"training.epochs": 50, "training.batch_size": 8}, CONVNET),
    "small-data": Preset(
        "small images by the thousand, minutes to hours: batch norm in a smaller head, a faster and sharper teacher",
        {
            "method.local_views": 2,
            "method.global_scale": (0.5, 1.0),
            "method.local_scale": (0.2, 0.5),
            "method.hue": 0.05,
            "method.gray_probability": 0.1,
            "method.blur": False,
            "method.out_dim": 512,
            "method.hidden_dim": 512,
            "method.bottleneck_dim": 128,
            "method.head_batch_norm": True,
            "method.freeze_last_layer_epochs": 0,
            "method.teacher_momentum": 0.99,
            "method.teacher_temperature": 0.03,
            "method.teacher_temperature_epochs": 0,
            "method.drop_path": 0.0,
            "optimizer.base_lr": 8e-3,
            "optimizer.warmup_epochs": 0.4,
            "optimizer.final_weight_decay": 0.1,
            "training.batch_size": 32,
        },
        steps=750,
    ),
}


class Head(nn.Module):
    """MLP, l2-normalization, last layer (section 3.1, "Network architecture"; appendix C)."""

    def __init__(self, in_dim: int, config: DINOSettings, *, predictor: bool = False) -> None:
        super().__init__()
        widths = [in_dim, *[config.hidden_dim] * (config.head_layers - 1), config.bottleneck_dim]
        self.mlp = mlp(widths, activation=nn.GELU, batch_norm=config.head_batch_norm)
        again = [config.bottleneck_dim, config.hidden_dim, config.bottleneck_dim]
        self.predictor = mlp(again, activation=nn.GELU) if predictor else nn.Identity()
        self.last_layer = NormalizedLinear(config.bottleneck_dim, config.out_dim, learn_gain=not config.norm_last_layer)

    def forward(self, features: Tensor) -> Tensor:
        """(batch, in_dim) -> scores (batch, K)."""
        return self.last_layer(self.bottleneck(features))  # type: ignore[no-any-return]

    def bottleneck(self, features: Tensor) -> Tensor:
        """(batch, in_dim) -> unit vectors (batch, bottleneck_dim)."""
        bottleneck = self.predictor(self.mlp(features)).to(self.last_layer.rows.dtype)  # not bf16 from here on
        return functional.normalize(bottleneck, dim=-1)


class Network(nn.Module):
    """Backbone and head: the student, and the teacher."""

    def __init__(self, backbone: Backbone, head: Head) -> None:
        super().__init__()
        self.backbone, self.head = backbone, head

    def bottlenecks(self, views: Sequence[Tensor]) -> Tensor:
        """Views of (batch, 3, height, width) -> unit vectors (views, batch, bottleneck_dim)."""
        vectors = self.head.bottleneck(features_of_views(self.backbone, views))
        return vectors.view(len(views), -1, vectors.shape[-1])

    def forward(self, views: Sequence[Tensor]) -> Tensor:
        """Views of (batch, 3, height, width) -> scores (views, batch, K)."""
        return self.head.last_layer(self.bottlenecks(views))  # type: ignore[no-any-return]


def cross_entropy(probabilities: Tensor, student: Tensor, temperature: float) -> Tensor:
    """Mean over pairs of H(P_t, P_s) (equation 3), from P_t (T, batch, K) and the student's scores (V, batch, K)."""
    return -mean_over_pairs(probabilities, functional.log_softmax(student / temperature, dim=-1))


def squared_error(teacher: Tensor, student: Tensor) -> Tensor:
    """Mean over pairs of |t/|t| - s/|s||^2 of (centered) scores (T, batch, K) and (V, batch, K) (BYOL, equation 2)."""
    return 2 - 2 * mean_over_pairs(functional.normalize(teacher, dim=-1), functional.normalize(student, dim=-1))


class DINO(Method):
    """DINO: a student predicts the centered and sharpened output of its own moving average."""

    Config = DINOSettings
    presets = PRESETS
    backbone_defaults: ClassVar[Mapping[str, Any]] = {"positions": "dino"}
    center: Tensor

    def __init__(self, config: DINOSettings, make_backbone: MakeBackbone) -> None:
        super().__init__(config, make_backbone)
        self.config = config
        self.mean_over_images = config.assignment != "sinkhorn"
        student, teacher = make_backbone(drop_path=config.drop_path), make_backbone()
        self.student = Network(student, Head(student.feature_dim, config, predictor=config.predictor))
        self.teacher = Network(teacher, Head(teacher.feature_dim, config)).requires_grad_(False)
        self.teacher.load_state_dict(self.student.state_dict(), strict=not config.predictor)
        # The student before the last step, for the teacher that is one iteration behind it.
        self.previous = copy.deepcopy(self.teacher) if config.teacher == "previous_iteration" else None
        self.register_buffer("center", torch.zeros(config.out_dim))

    @classmethod
    def fill(cls, config: DINOSettings, situation: Situation) -> DINOSettings:
        """Crops in whole patches (convnet: local ones in multiples of 8 px) and what else depends on the image."""
        global_px, local_px = multi_crop_px(config.global_crop_px, config.local_crop_px, situation)
        decided = {
            "global_crop_px": global_px,
            "local_crop_px": local_px,
            "global_scale": config.global_scale or ((0.4, 1.0) if config.local_views else (0.14, 1.0)),
            "blur_sigma_px": config.blur_sigma_px or blur_range_px(global_px),
        }
        return config.model_copy(update=decided)

    @classmethod
    def make_views(cls, config: DINOSettings) -> MakeViews:
        """Two global views, then the local ones (DataAugmentationDINO in main_dino.py)."""
        blur_first, blur_second, blur_local = (1.0, 0.1, 0.5) if config.blur else (0.0, 0.0, 0.0)
        jitter: dict[str, Any] = {"brightness": 0.4, "contrast": 0.4, "saturation": 0.2, "hue": config.hue}
        first = Crop(
            crop_px=config.global_crop_px or 224,
            scale=config.global_scale or (0.4, 1.0),
            **jitter,
            jitter_probability=0.8,
            gray_probability=config.gray_probability,
            blur_probability=blur_first,
            blur_sigma_px=config.blur_sigma_px or (0.1, 2.0),
        )
        second = replace(first, blur_probability=blur_second, solarize_probability=0.2)
        local = replace(
            first, crop_px=config.local_crop_px or 96, scale=config.local_scale, blur_probability=blur_local
        )
        return MultiCrop([(first, 1), (second, 1), (local, config.local_views)])

    def embed(self, batch: Batch) -> dict[str, Tensor]:
        """What the last layers make scores of: the teacher's global views, all views of the student."""
        with torch.no_grad():
            teacher = self.teacher.bottlenecks(batch.views[:2])
        student = self.student.bottlenecks(batch.views)
        return {"teacher": teacher.transpose(0, 1), "student": student.transpose(0, 1)}

    def loss(self, embeddings: Mapping[str, Tensor], progress: Progress) -> StepOutput:
        """Loss over all pairs of a teacher's global and another student's view; see the module's equations."""
        config = self.config
        student = embeddings["student"].transpose(0, 1)  # (views, batch, bottleneck_dim)
        start, ramp = config.teacher_temperature_start, config.teacher_temperature_epochs
        temperature = linear_ramp(progress.epoch, ramp, start, config.teacher_temperature)
        with torch.no_grad():
            scores = self.teacher.head.last_layer(embeddings["teacher"].transpose(0, 1))
            centered = scores - self.center if config.assignment == "centering" else scores
            if config.assignment == "sinkhorn":
                probabilities = sinkhorn(scores, temperature, config.sinkhorn_iterations)
            else:
                probabilities = functional.softmax(centered / temperature, dim=-1)
        whole_batch = config.assignment == "sinkhorn"  # never in micro-batches, however large it is
        at_once = MOST_SCORES // (len(student) * config.out_dim) if whole_batch else student.shape[1]
        loss, cross = mean_of_parts(self.pair_losses, [probabilities, centered, student], max(1, at_once))
        teacher_entropy = entropy(probabilities)
        logs = {
            "loss": loss.detach(),
            "cross_entropy": cross.detach(),
            "teacher_entropy": teacher_entropy,
            "kl": cross.detach() - teacher_entropy,
            "teacher_temperature": torch.tensor(temperature),
        }
        if config.teacher == "momentum":
            logs["teacher_momentum"] = torch.tensor(self.momentum(progress))
        sums = {"scores": scores.sum(dim=(0, 1))[None], "probabilities": probabilities.sum(dim=(0, 1))[None]}
        return StepOutput(loss, logs, {**sums, "summed": torch.tensor([len(scores) * scores.shape[1]])})

    def pair_losses(self, probabilities: Tensor, centered: Tensor, student: Tensor) -> Tensor:
        """(2,): the loss, and the cross-entropy without gradient; of P_t and centered scores (2, batch, K)."""
        scores = self.student.head.last_layer(student)
        scored = scores if self.config.loss == "ce" else scores.detach()
        cross = cross_entropy(probabilities, scored, self.config.student_temperature)
        loss = cross if self.config.loss == "ce" else squared_error(centered, scores)
        return torch.stack([loss, cross.detach()])

    def batch_logs(self, carry: Mapping[str, Tensor]) -> dict[str, Tensor]:
        """How many scores the batch uses, from 1 to K."""
        return {"scores_used": entropy(carry["probabilities"].sum(dim=0) / carry["summed"].sum()).exp()}

    def momentum(self, progress: Progress) -> float:
        """The teacher's momentum l in the update of this step."""
        return ema.momentum_at(progress.step, progress.total_steps, self.config.teacher_momentum)

    def before_optimizer(self, progress: Progress) -> None:
        """Clip each tensor's gradient, then drop the last layer's at first, in this order (train_one_epoch)."""
        if self.config.clip_norm:
            clip_each(self.student.parameters(), self.config.clip_norm)
        if progress.epoch < self.config.freeze_last_layer_epochs:
            self.student.head.last_layer.zero_grad(set_to_none=True)

    def update(self, carry: Mapping[str, Tensor], progress: Progress) -> None:
        """Move the center by this batch's mean score, and the teacher."""
        if self.config.assignment == "centering":
            mean_score = carry["scores"].sum(dim=0) / carry["summed"].sum()
            self.center.lerp_(mean_score, 1 - self.config.center_momentum)
        if self.config.teacher == "momentum":
            ema.move_towards(self.teacher, self.student, self.momentum(progress))
        epoch_ends = (progress.step + 1) % progress.steps_per_epoch == 0
        if self.config.teacher == "student_copy" or (self.config.teacher == "previous_epoch" and epoch_ends):
            ema.copy_weights(self.teacher, self.student)
        if self.previous is not None:  # the student of step t - 1 is the teacher of step t
            ema.copy_weights(self.teacher, self.previous)
            ema.copy_weights(self.previous, self.student)

    def signs(self, batch_size: int) -> Sequence[Sign]:
        """The two collapses of figure 7."""
        sharpen = "a method.teacher_temperature and teacher_temperature_start below student_temperature"
        return distillation_signs(self.config.out_dim, "--set method.assignment=centering", sharpen)

    def networks(self) -> dict[str, Backbone]:
        """The teacher is evaluated: it is better than the student throughout training (figure 6)."""
        return {"teacher": self.teacher.backbone, "student": self.student.backbone}
