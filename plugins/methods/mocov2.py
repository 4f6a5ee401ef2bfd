"""MoCo v2: momentum contrast with an MLP head (Chen et al. 2020, arXiv 2003.04297; MoCo: He et al., 1911.05722).

A query q (view 1) is matched to its key k+ (view 2 of the same image) among the keys k_i of earlier batches, which are
kept in a queue of K rows (1911.05722, equation 1, algorithm 1). Only the query encoder gets a gradient, and only view 1
gives queries: the symmetric loss is another method.

    loss    = mean over queries of  -log( exp(q.k+ / tau) / (exp(q.k+ / tau) + sum_i exp(q.k_i / tau)) )
    queue  <- keys of this batch in place of the oldest      after the logits
    theta_k <- m theta_k + (1 - m) theta_q                   before keys are encoded

The authors move theta_k inside the step, before its keys are encoded. Here `step` moves nothing, so theta_k moves at
the end of `update`, after the optimizer: what the authors do at the start of step n + 1 is done at the end of step n,
with the same theta_q. Their first move has no counterpart and needs none, since theta_k = theta_q then. All losses are
the authors' (tests/plugins/methods/test_mocov2.py); the saved key encoder is one move ahead.

Batch norm would reveal which keys come from the query's batch, so the authors normalize on each of 8 GPUs separately
and shuffle the key images among them (1911.05722, section 3.3). On one device the batch goes through the encoders in as
many parts, queries in order, keys shuffled; the momentum of running averages is reduced so that they cover as many
batches. For encoders without batch norm the batch is not split: the result is the same.

Authors' code: github.com/facebookresearch/moco (moco/builder.py, main_moco.py; "demo": colab/moco_cifar10_demo.ipynb).
What differs: the rate's cosine falls at every step (theirs: every epoch); below 96 px the largest blur shrinks with
the crop (theirs: 2 px; the demo: none); transformers, which v2 does not have, are trained as in MoCo v3 (2104.02057:
AdamW, 1.5e-4 per 256, decay 0.1, 40 epochs of warm-up; without its frozen patch projection).

lightly's NTXentLoss with a memory bank equals our loss to 1e-9 and our queue to 1e-12 in float64, and its
MoCoProjectionHead our head in float32 (tests/plugins/methods/test_mocov2.py); it moves the queue inside the loss.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import torch
from torch import Tensor, nn
from torch.nn import functional

from ssl_bench.backbone import Backbone
from ssl_bench.blocks import ema
from ssl_bench.blocks.collapse_signs import NO_SPREAD, spread
from ssl_bench.blocks.patch_sizes import view_px
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

CODE = "main_moco.py"
V1 = "1911.05722, section 3"
V2 = "2003.04297, table 1"
PAPERS_QUEUE = 65536
PAPERS_PARTS = 8
LEAST_PART = 16
"""Least number of images in a part of the batch when the number of parts is decided here."""


class MoCoV2Settings(Settings):
    """MoCo v2's settings; null is decided from the data before the run and then recorded in the recipe."""

    crop_px: int | None = setting(None, "Side of both views; null: the image's.", unit="px", ge=1)
    crop_scale: AreaRange = setting((0.2, 1.0), "Area of a view, of the image's.", source=CODE)
    jitter: float = setting(
        0.4, "Largest change of brightness, contrast and saturation; probability 0.8.", source=CODE, ge=0
    )
    hue: float = setting(0.1, "Largest change of the hue in jitter.", unit="turns", source=CODE, ge=0, le=0.5)
    gray_probability: float = setting(0.2, "Probability of a gray view.", source=CODE, ge=0, le=1)
    blur_probability: float = setting(0.5, "Probability of a blurred view.", source=CODE, ge=0, le=1)
    blur_sigma_px: BlurRange | None = setting(None, "Blur's range; null: 0.1 to 2 at 96 px.", unit="px", source=CODE)
    out_dim: int = setting(128, "Length of queries and keys.", source=CODE, ge=2)
    queue_size: int | None = setting(
        None, "Keys in the queue, K; null: 65536, or a third of the images if less.", unit="keys", source=V2, ge=1
    )
    key_momentum: float = setting(0.999, "Momentum m of the key encoder, constant.", source=V1, ge=0, le=1)
    temperature: float = setting(0.2, "Temperature tau of the loss.", source=V2, gt=0)
    batch_norm_splits: int | None = setting(
        None,
        "Equal parts of the batch with batch norm of their own, as on so many devices; null: up to 8, of 16 images.",
        unit="parts",
        source=V1 + ".3",
        ge=1,
    )


PAPER = {
    "method.queue_size": PAPERS_QUEUE,
    "optimizer.name": "adamw",
    "optimizer.base_lr": 1.5e-4,
    "optimizer.warmup_epochs": 40,
    "optimizer.final_lr": 0.0,
    "optimizer.weight_decay": 0.1,
    "optimizer.final_weight_decay": None,
    "training.batch_size": 256,
}
PAPER_CONVNET = {
    "optimizer.name": "sgd",
    "optimizer.base_lr": 0.03,
    "optimizer.warmup_epochs": 0,
    "optimizer.final_lr": 0.0,
    "optimizer.weight_decay": 1e-4,
    "optimizer.final_weight_decay": None,
}
PRESETS = {
    "paper": Preset("the paper's 200 epochs (67.5 linear)", {**PAPER, "training.epochs": 200}, PAPER_CONVNET),
    "paper-800": Preset("the paper's 800 epochs (71.1 linear)", {**PAPER, "training.epochs": 800}, PAPER_CONVNET),
    "small-data": Preset(
        "small images by the thousand, minutes to hours: a shorter queue, a faster key encoder, sharper, no blur",
        {  # momentum, temperature and views as in the demo, which is meant for 800 epochs of 50,000 images
            "method.blur_probability": 0.0,
            "method.key_momentum": 0.99,
            "method.temperature": 0.1,
            "optimizer.name": "adamw",
            "optimizer.base_lr": 4e-3,
            "optimizer.warmup_epochs": 0.4,
            "optimizer.final_lr": 0.0,
            "optimizer.weight_decay": 0.1,
            "optimizer.final_weight_decay": None,
            "training.batch_size": 64,
        },
        {
            "optimizer.name": "sgd",
            "optimizer.base_lr": 0.12,
            "optimizer.warmup_epochs": 0,
            "optimizer.final_lr": 0.0,
            "optimizer.weight_decay": 5e-4,  # the demo's
            "optimizer.final_weight_decay": None,
        },
        steps=750,
    ),
}


class Encoder(nn.Module):
    """Backbone and head: the query encoder, and the key encoder (2003.04297, section 3; torch's initial weights)."""

    def __init__(self, backbone: Backbone, out_dim: int) -> None:
        super().__init__()
        dim = backbone.feature_dim
        self.backbone = backbone
        self.head = nn.Sequential(nn.Linear(dim, dim), nn.ReLU(), nn.Linear(dim, out_dim))

    def forward(self, images: Tensor, parts: int = 1) -> Tensor:
        """(batch, 3, height, width) -> unit vectors (batch, out_dim); batch norm sees one of `parts` at a time."""
        projected = torch.cat([self.head(self.backbone(part)) for part in images.chunk(parts)])
        return functional.normalize(projected.to(next(self.head.parameters()).dtype), dim=-1)  # not in bf16


def logits(queries: Tensor, keys: Tensor, queue: Tensor, temperature: float) -> Tensor:
    """Queries and keys (batch, dim), queue (K, dim) -> (batch, 1 + K) similarities / tau, the right one first."""
    positive = (queries * keys).sum(dim=-1, keepdim=True)
    return torch.cat([positive, queries @ queue.T], dim=1) / temperature


def info_nce(candidates: Tensor) -> Tensor:
    """Equation 1 of 1911.05722, averaged over the queries, from logits (batch, 1 + K)."""
    return -functional.log_softmax(candidates, dim=-1)[:, 0].mean()


def has_batch_norm(network: nn.Module) -> bool:
    """Whether batch norm makes the features of an image depend on its batch."""
    return any(isinstance(layer, nn.modules.batchnorm._BatchNorm) for layer in network.modules())


class MoCoV2(Method):
    """MoCo v2: a query finds its key among a queue of keys made by a slow encoder."""

    Config = MoCoV2Settings
    presets = PRESETS
    mean_over_images = True
    queue: Tensor
    queue_position: Tensor

    def __init__(self, config: MoCoV2Settings, make_backbone: MakeBackbone) -> None:
        super().__init__(config, make_backbone)
        self.config = config
        self.query = Encoder(make_backbone(), config.out_dim)
        self.key = Encoder(make_backbone(), config.out_dim).requires_grad_(False)
        self.key.load_state_dict(self.query.state_dict())
        queue = torch.randn(config.queue_size or PAPERS_QUEUE, config.out_dim)
        self.register_buffer("queue", functional.normalize(queue, dim=-1))
        self.register_buffer("queue_position", torch.zeros((), dtype=torch.int64))
        self.parts = (config.batch_norm_splits or 1) if has_batch_norm(self.query) else 1
        for layer in self.modules():
            if isinstance(layer, nn.modules.batchnorm._BatchNorm) and layer.momentum:
                layer.momentum = 1 - (1 - layer.momentum) ** (1 / self.parts)

    @classmethod
    def fill(cls, config: MoCoV2Settings, situation: Situation) -> MoCoV2Settings:
        """Crop, blur, queue and parts of a batch; raises `UserError` for a queue or parts that do not fit a batch."""
        batch = situation.batch_size
        crop_px = view_px(config.crop_px, situation)
        queue = config.queue_size or max(1, min(PAPERS_QUEUE, situation.train_images // 3) // batch) * batch
        if queue % batch:
            below = queue // batch * batch
            multiples = f"{below} or {below + batch}" if below else f"{batch}"
            raise UserError(
                f"method.queue_size = {queue} is not a multiple of training.batch_size = {batch}, and the queue takes "
                f"whole batches. The nearest multiples: {multiples}; e.g. --set method.queue_size="
                f"{below + batch}; with null it is chosen for you"
            )
        splits = config.batch_norm_splits
        possible = [parts for parts in range(1, max(2, batch // 2 + 1)) if batch % parts == 0]
        if splits is None:
            splits = max(parts for parts in possible if parts == 1 or parts <= min(PAPERS_PARTS, batch // LEAST_PART))
        elif situation.is_convnet and splits not in possible:
            raise UserError(
                f"method.batch_norm_splits = {splits} does not divide training.batch_size = {batch} into equal parts "
                f"of at least 2 images. Possible: {', '.join(map(str, possible))}, or have it chosen "
                "with --set method.batch_norm_splits=null"
            )
        decided = {
            "crop_px": crop_px,
            "blur_sigma_px": config.blur_sigma_px or blur_range_px(crop_px),
            "queue_size": queue,
            "batch_norm_splits": splits,
        }
        return config.model_copy(update=decided)

    @classmethod
    def make_views(cls, config: MoCoV2Settings) -> MakeViews:
        """The query's view and the key's, drawn alike (`--aug-plus` in main_moco.py)."""
        view = Crop(
            crop_px=config.crop_px or 224,
            scale=config.crop_scale,
            interpolation="bilinear",  # RandomResizedCrop's default
            jitter_probability=0.8,
            brightness=config.jitter,
            contrast=config.jitter,
            saturation=config.jitter,
            hue=config.hue,
            gray_probability=config.gray_probability,
            blur_probability=config.blur_probability,
            blur_sigma_px=config.blur_sigma_px or (0.1, 2.0),
        )
        return MultiCrop([(view, 2)])

    def step(self, batch: Batch, progress: Progress) -> StepOutput:
        """Loss of view 1's queries against view 2's keys and the queue, before these keys enter it."""
        parts = self.parts_of(batch)
        queries = self.query(batch.views[0], parts)
        keys = self.encode_keys(batch.views[1], parts)
        with torch.autocast(queries.device.type, enabled=False):  # a cosine of 0.9 / 0.1 in bf16 is off by 0.03
            candidates = logits(queries, keys, self.queue, self.config.temperature)
            loss = info_nce(candidates)
        found = (candidates.detach().argmax(dim=-1) == 0).float().mean()
        positive = (queries.detach() * keys).sum(dim=-1).mean()
        logs = {"loss": loss.detach(), "keys_found": found, "positive_cosine": positive}
        return StepOutput(loss, logs, {"keys": keys})

    def parts_of(self, batch: Batch) -> int:
        """Parts with batch norm of their own; a micro-batch has fewer, but two, so that its keys are shuffled."""
        if self.parts == 1 or batch.step_images is None:
            return self.parts
        return max(2, self.parts * len(batch.index) // batch.step_images)

    @torch.no_grad()
    def encode_keys(self, images: Tensor, parts: int) -> Tensor:
        """(batch, 3, height, width) -> keys (batch, out_dim) in the images' order, encoded in shuffled parts."""
        if parts == 1:
            return self.key(images)  # type: ignore[no-any-return]
        order = torch.randperm(len(images), device=images.device)
        return self.key(images[order], parts)[order.argsort()]  # type: ignore[no-any-return]

    def batch_logs(self, carry: Mapping[str, Tensor]) -> dict[str, Tensor]:
        """How far the batch's keys differ, which tells a collapse."""
        return {"key_spread": spread(carry["keys"])}

    def parameter_groups(self) -> list[ParameterGroup]:
        """The query encoder, decayed with its biases and norms (main_moco.py gives SGD all parameters alike)."""
        return [ParameterGroup("query", list(self.query.parameters()))]

    def update(self, carry: Mapping[str, Tensor], progress: Progress) -> None:
        """Replace the oldest keys with this batch's, then move the key encoder for the next step."""
        keys = carry["keys"]
        rows = (self.queue_position + torch.arange(len(keys), device=keys.device)) % len(self.queue)
        self.queue[rows] = keys.to(self.queue.dtype)
        self.queue_position.add_(len(keys)).remainder_(len(self.queue))
        ema.move_towards(self.key, self.query, self.config.key_momentum)

    def signs(self, batch_size: int) -> Sequence[Sign]:
        """If all keys are alike, the query's is as likely as every row of the queue: the loss is ln(1 + K)."""
        change = "a lower optimizer.base_lr, a method.key_momentum nearer to 1"
        return [Sign({"key_spread": NO_SPREAD}, "keys are alike for all images", change)]

    def networks(self) -> dict[str, Backbone]:
        """The query encoder's backbone is evaluated, as in main_lincls.py."""
        return {"query": self.query.backbone, "key": self.key.backbone}
