"""SwAV: swapped assignments between views (Caron et al. 2020, arXiv 2006.09882).

Every view becomes a unit vector z, compared with K unit prototypes c. The two global views s also get codes q:
Sinkhorn-Knopp assigns the batch to the prototypes so that each is used equally. From each other view t the code of s is
predicted (equations 1 to 3 and 6, algorithm 1):

    p_t  = softmax(z_t C / tau)              Q_s = sinkhorn(exp(z_s C / epsilon)), rows sum to 1
    loss = mean over pairs (global view s, other view t != s) of  -sum_k q_s log p_t
    c   <- c / |c|                           before every forward pass

For small batches, codes are computed together with embeddings of earlier batches, one queue for each global view. The
queue starts to fill at a given epoch, is used once it is full, and receives a batch after that batch's codes are
computed. Each prototype receives rows / K of a sample, rows = batch + full queue. K > rows is allowed (the authors
assign 256 rows to 3000 prototypes for 15 epochs); more prototypes than images and a batch of one are refused.

The authors normalize the stored prototypes before each forward pass, outside of the gradient. Here they are normalized
at the start and by `update` after each optimizer step, because `step` moves nothing: every pass sees the same numbers.

Authors' code: github.com/facebookresearch/swav (main_swav.py, src/, scripts/). As there: the projector's batch norm
sees all views at once; LARS adapts and decays every parameter; the rate is not scaled with the batch. What differs:
LARS divides by |g + decay w|, apex's LARC by |g| + decay |w|; warm-up from 0 (theirs at batch 4096: 0.3); prototypes
are frozen for exactly 1 epoch (theirs: one step more); a queue need not be a multiple of the batch (theirs is cut);
images are divided by 0.229 in red (theirs: 0.228); below 96 px the largest blur shrinks with the crop; transformers,
which the paper does not have, are trained as in DINO (AdamW, biases and norms not decayed). For resnet50w2 and wider
the authors use method.hidden_dim=8192 and 4 local views.

lightly's SwaVLoss, sinkhorn and SwaVProjectionHead equal ours to 1e-9 in float64, with and without a queue
(tests/plugins/methods/test_swav.py); its prototypes are normalized before a forward pass, ours after a step.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace

import torch
from torch import Tensor, nn
from torch.nn import functional

from ssl_bench.backbone import Backbone
from ssl_bench.blocks.collapse_signs import ONE_USED, entropy, uniform
from ssl_bench.blocks.multi_crop import features_of_views, mean_over_pairs
from ssl_bench.blocks.patch_sizes import multi_crop_px
from ssl_bench.blocks.sinkhorn import sinkhorn
from ssl_bench.blocks.views import Crop, MultiCrop, blur_range_px
from ssl_bench.errors import UserError
from ssl_bench.method import (
    Batch,
    MakeBackbone,
    MakeViews,
    Method,
    ParameterGroup,
    Preset,
    Progress,
    Sign,
    Situation,
    StepOutput,
)
from ssl_bench.settings import AreaRange, BlurRange, Settings, setting

VIEWS = "multicropdataset.py"
APPENDIX = "appendix A.1"
QUEUE = "section 4.2, appendix A.6"
PAPERS_PROTOTYPES = 3000


class SwAVSettings(Settings):
    """SwAV's settings; null is decided from the data before the run and then recorded in the recipe."""

    global_crop_px: int | None = setting(None, "Side of the 2 global views; null: the image's.", unit="px", ge=1)
    local_crop_px: int | None = setting(None, "Side of the local views; null: 96/224 of it.", unit="px", ge=1)
    local_views: int = setting(
        6, "Local views an image; 0: no multi-crop.", unit="views", source=APPENDIX, ge=0, le=1000
    )
    global_scale: AreaRange = setting((0.14, 1.0), "Area of a global view, of the image's.", source=APPENDIX)
    local_scale: AreaRange = setting((0.05, 0.14), "Area of a local view, of the image's.", source=APPENDIX)
    color_strength: float = setting(
        1.0, "Factor of the jitter of brightness, contrast, saturation (0.8) and hue (0.2).", source=VIEWS, ge=0, le=2.5
    )
    gray_probability: float = setting(0.2, "Probability of a gray view.", source=VIEWS, ge=0, le=1)
    blur_probability: float = setting(0.5, "Probability of a blurred view.", source=VIEWS, ge=0, le=1)
    blur_sigma_px: BlurRange | None = setting(None, "Blur's range; null: 0.1 to 2 at 96 px.", unit="px", source=VIEWS)
    hidden_dim: int = setting(2048, "Width of the projector's hidden layer.", source=APPENDIX, ge=1)
    out_dim: int = setting(128, "Length of embeddings and prototypes.", source=APPENDIX, ge=2)
    prototypes: int | None = setting(
        None, "Number of prototypes, K; null: 3000, or a sixtieth of the images if less.", source=APPENDIX, ge=2
    )
    temperature: float = setting(0.1, "Temperature tau of predictions.", source=APPENDIX, gt=0)
    epsilon: float = setting(0.05, "Sinkhorn's temperature; 0.03 where the loss stays at ln K.", source=APPENDIX, gt=0)
    sinkhorn_iterations: int = setting(3, "Rounds of Sinkhorn-Knopp.", source=APPENDIX, ge=1, le=1000)
    queue_size: int = setting(
        0, "Length of each global view's queue of earlier embeddings; 0: none.", source=QUEUE, ge=0
    )
    queue_from_epoch: int = setting(
        15, "First epoch in which the queue fills; the run starts with 0.", source=QUEUE, ge=0
    )
    freeze_prototypes_epochs: float = setting(
        1, "How long the prototypes are frozen at first.", unit="epochs", source="scripts/swav_800ep_pretrain.sh", ge=0
    )


# LARS on convolutional networks, at batch 4096 and at batch 256 (scripts/).
LARGE_BATCH = {
    "optimizer.name": "lars",
    "optimizer.base_lr": 4.8,
    "optimizer.lr_scaling": "none",
    "optimizer.warmup_epochs": 10,
    "optimizer.final_lr": 4.8e-3,
    "optimizer.weight_decay": 1e-6,
    "optimizer.final_weight_decay": None,
}
SMALL_BATCH = {
    **LARGE_BATCH,
    "optimizer.base_lr": 0.6,
    "optimizer.warmup_epochs": 0,
    "optimizer.final_lr": 6e-4,
}
PRESETS = {
    "paper": Preset(
        "the paper's best (75.3 linear)",
        {"method.prototypes": PAPERS_PROTOTYPES, "training.epochs": 800, "training.batch_size": 4096},
        LARGE_BATCH,
    ),
    "paper-small-batch": Preset(
        "the paper's 400 epochs at batch 256, with a queue (74.3 linear)",
        {
            "method.prototypes": PAPERS_PROTOTYPES,
            "method.queue_size": 3840,
            "training.epochs": 400,
            "training.batch_size": 256,
        },
        SMALL_BATCH,
    ),
    "small-data": Preset(
        "small images by the thousand, minutes to hours: fewer prototypes, sharper codes, milder views, AdamW",
        {
            "method.local_views": 2,
            "method.global_scale": (0.5, 1.0),
            "method.local_scale": (0.2, 0.5),
            "method.color_strength": 0.5,
            "method.blur_probability": 0.0,
            "method.hidden_dim": 512,
            "method.epsilon": 0.03,
            "method.freeze_prototypes_epochs": 0.1,
            "optimizer.base_lr": 8e-3,
            "optimizer.warmup_epochs": 0.4,
            "optimizer.final_weight_decay": None,
            "training.batch_size": 32,
        },
        steps=750,
    ),
}


def swapped_prediction(codes: Tensor, scores: Tensor, temperature: float) -> Tensor:
    """Mean cross-entropy of codes (S, batch, K) and predictions from scores (V, batch, K) over pairs s != t."""
    return -mean_over_pairs(codes, functional.log_softmax(scores / temperature, dim=-1))


class SwAV(Method):
    """SwAV: a view predicts the assignment of another view to prototypes that are used equally."""

    Config = SwAVSettings
    presets = PRESETS
    queue: Tensor
    queued: Tensor

    def __init__(self, config: SwAVSettings, make_backbone: MakeBackbone) -> None:
        super().__init__(config, make_backbone)
        self.config = config
        self.backbone = make_backbone()
        self.projector = nn.Sequential(
            nn.Linear(self.backbone.feature_dim, config.hidden_dim),
            nn.BatchNorm1d(config.hidden_dim),
            nn.ReLU(),
            nn.Linear(config.hidden_dim, config.out_dim),
        )
        rows = nn.Linear(config.out_dim, config.prototypes or PAPERS_PROTOTYPES, bias=False).weight.detach()
        self.prototypes = nn.Parameter(functional.normalize(rows, dim=1))
        if config.queue_size:
            self.register_buffer("queue", torch.zeros(2, config.queue_size, config.out_dim))
            self.register_buffer("queued", torch.zeros((), dtype=torch.int64))

    @classmethod
    def fill(cls, config: SwAVSettings, situation: Situation) -> SwAVSettings:
        """Crops, blur and prototypes; raises `UserError` for a batch, a queue or prototypes that make no sense."""
        global_px, local_px = multi_crop_px(config.global_crop_px, config.local_crop_px, situation)
        images, batch = situation.train_images, situation.batch_size
        prototypes = config.prototypes or max(2, min(PAPERS_PROTOTYPES, images // 60))
        if batch < 2:
            raise UserError(
                "training.batch_size = 1: SwAV assigns a batch to prototypes that are used equally, and a single image "
                "would always be assigned to all of them. Give --batch-size 2 or more; the authors' smallest is 256"
            )
        if config.prototypes and prototypes > images:
            raise UserError(
                f"method.prototypes = {prototypes} is more than the {images} training images, so some would get no "
                f"image. Give {images} or fewer, e.g. --set method.prototypes={max(2, images // 60)}"
            )
        if 0 < config.queue_size < batch:
            raise UserError(
                f"method.queue_size = {config.queue_size} is smaller than training.batch_size = {batch}: the queue "
                f"would hold less than one batch. Give --set method.queue_size=0 for no queue, or {batch} or more"
            )
        decided = {
            "global_crop_px": global_px,
            "local_crop_px": local_px,
            "blur_sigma_px": config.blur_sigma_px or blur_range_px(global_px),
            "prototypes": prototypes,
        }
        return config.model_copy(update=decided)

    @classmethod
    def make_views(cls, config: SwAVSettings) -> MakeViews:
        """Two global views, then the local ones (MultiCropDataset in multicropdataset.py)."""
        strength = 0.8 * config.color_strength
        large = Crop(
            crop_px=config.global_crop_px or 224,
            scale=config.global_scale,
            interpolation="bilinear",  # RandomResizedCrop's default
            jitter_probability=0.8,
            brightness=strength,
            contrast=strength,
            saturation=strength,
            hue=0.2 * config.color_strength,
            gray_probability=config.gray_probability,
            blur_probability=config.blur_probability,
            blur_sigma_px=config.blur_sigma_px or (0.1, 2.0),
        )
        small = replace(large, crop_px=config.local_crop_px or 96, scale=config.local_scale)
        return MultiCrop([(large, 2), (small, config.local_views)])

    def embed(self, batch: Batch) -> dict[str, Tensor]:
        """Unit vectors (batch, views, out_dim)."""
        projected = self.projector(features_of_views(self.backbone, batch.views))
        unit = functional.normalize(projected.to(self.prototypes.dtype), dim=-1)  # not in bf16
        return {"embeddings": unit.view(len(batch.views), -1, unit.shape[-1]).transpose(0, 1)}

    @torch.no_grad()
    def codes(self, scores: Tensor, progress: Progress) -> Tensor:
        """Global views' scores (2, batch, K) -> their codes, assigned among the queue's embeddings once it is full.

        Until then its scores are -inf, which leaves them out of the assignment without a read of `queued` on the host.
        """
        batch = scores.shape[1]
        if self._queue_is_on(progress):
            earlier = functional.linear(self.queue, self.prototypes)
            is_full = self.queued >= self.config.queue_size
            scores = torch.cat([earlier.masked_fill(~is_full, -torch.inf), scores], dim=1)
        return sinkhorn(scores, self.config.epsilon, self.config.sinkhorn_iterations)[:, -batch:]

    def _queue_is_on(self, progress: Progress) -> bool:
        return self.config.queue_size > 0 and progress.epoch >= self.config.queue_from_epoch

    def loss(self, embeddings: Mapping[str, Tensor], progress: Progress) -> StepOutput:
        """Loss over all pairs of a global view's code and another view's prediction; see the module's equations."""
        vectors = embeddings["embeddings"].transpose(0, 1)  # (views, batch, out_dim)
        with torch.autocast(vectors.device.type, enabled=False):  # a cosine of 0.9 / 0.03 in bf16 is off by 0.1
            scores = functional.linear(vectors, self.prototypes)
            codes = self.codes(scores[:2].detach(), progress)
            loss = swapped_prediction(codes, scores, self.config.temperature)
        use = functional.softmax(scores[:2].detach().float() / self.config.temperature, dim=-1).mean(dim=(0, 1))
        code_entropy = entropy(codes)
        logs = {
            "code_entropy": code_entropy,
            "kl": loss.detach() - code_entropy,  # of the codes to the predictions
            "prototypes_used": entropy(use).exp(),  # from 1 to K
        }
        return StepOutput(loss, logs, {"embeddings": embeddings["embeddings"][:, :2].detach()})

    def parameter_groups(self) -> list[ParameterGroup]:
        """All alike in a convolutional network, as the authors' LARC; by default without decay on 1-d parameters."""
        alike = [ParameterGroup("all", list(self.parameters()))]
        return alike if self.backbone.kind == "convnet" else super().parameter_groups()

    def before_optimizer(self, progress: Progress) -> None:
        """Freeze the prototypes at first."""
        if progress.step < round(self.config.freeze_prototypes_epochs * progress.steps_per_epoch):
            self.prototypes.grad = None

    def update(self, carry: Mapping[str, Tensor], progress: Progress) -> None:
        """Normalize the prototypes for the next forward pass and put the newest embeddings into the queue."""
        self.prototypes.data.copy_(functional.normalize(self.prototypes.data, dim=1))
        if self._queue_is_on(progress):
            newest = carry["embeddings"].transpose(0, 1).to(self.queue.dtype)
            self.queue.copy_(torch.cat([newest, self.queue], dim=1)[:, : self.config.queue_size])
            self.queued.add_(newest.shape[1]).clamp_(max=self.config.queue_size)

    def signs(self, batch_size: int) -> Sequence[Sign]:
        """Embeddings that are alike get uniform codes; the loss then stays at ln K, as the authors' README warns."""
        change = "--set method.epsilon=0.03, a lower optimizer.base_lr"
        # cosines above 0.99, as NO_SPREAD
        uniform_codes = {"code_entropy": uniform(self.prototypes.shape[0], tolerance=0.0025)}
        return [
            Sign(uniform_codes, "all embeddings are alike", change),
            Sign({"prototypes_used": ONE_USED}, "one prototype is predicted for every image", change),
        ]

    def networks(self) -> dict[str, Backbone]:
        """The backbone without projector and prototypes."""
        return {"backbone": self.backbone}
