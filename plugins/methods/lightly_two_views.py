"""SimCLR, BYOL and MoCo v2 put together from lightly's blocks, to compare ours with: `sslbench run lightly-simclr`.

Transform, heads, loss and moving average are lightly's (github.com/lightly-ai/lightly, extra `lightly`); settings,
presets and optimizer are those of our method, so that the blocks are compared and not their defaults. A setting that
lightly's blocks have no counterpart for is refused. The backbone is built first, as in our methods: one seed gives both
the same initial weights. DINO and SwAV are in lightly_multi_crop.py. In all five torchvision resamples the crops, other
random numbers are drawn, and the heads' initial weights are lightly's.

lightly's transforms draw from global generators, which are seeded for each image here. Its memory bank and its DINO
loss move while the loss is computed; here `update` moves them, so that a run resumes bit for bit.
"""

# mypy: disable-error-code="misc, no-any-return"

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from functools import partial
from typing import Any

import torch
from lightly.loss import NegativeCosineSimilarity, NTXentLoss
from lightly.loss.memory_bank import MemoryBankModule
from lightly.models.modules import (
    BYOLPredictionHead,
    BYOLProjectionHead,
    MoCoProjectionHead,
    SimCLRProjectionHead,
)
from lightly.models.utils import update_momentum
from lightly.transforms import (
    BYOLTransform,
    BYOLView1Transform,
    BYOLView2Transform,
    MoCoV2Transform,
    SimCLRTransform,
)
from lightly.utils.scheduler import cosine_schedule
from PIL import Image
from torch import Tensor, nn

from ssl_bench.backbone import Backbone
from ssl_bench.blocks.views import from_global_rng
from ssl_bench.errors import UserError
from ssl_bench.method import Batch, MakeBackbone, MakeViews, Method, Progress, Situation, StepOutput
from ssl_bench_plugins.methods.byol import BYOL
from ssl_bench_plugins.methods.mocov2 import MoCoV2
from ssl_bench_plugins.methods.simclr import SimCLR


def require(config: Any, name: str, **only: Any) -> None:
    """Raise `UserError` for a setting of the method `name` that lightly's blocks know one value of."""
    for key, value in only.items():
        given = getattr(config, key)
        if given != value:
            raise UserError(
                f"method.{key} = {given!r}: lightly's blocks know {value!r} only. Leave it out "
                f"(--set method.{key}={str(value).lower()}), or run {name}, which has it"
            )


def views_of(transform: Callable[[Image.Image], Sequence[Tensor]]) -> MakeViews:
    """A transform of lightly's as a function of (image, rng)."""
    return from_global_rng(partial(_as_tuple, transform))


def _as_tuple(transform: Callable[[Image.Image], Sequence[Tensor]], image: Image.Image) -> tuple[Tensor, ...]:
    return tuple(transform(image))


def in_full(tensor: Tensor) -> Tensor:
    """In float32 where autocast made less of it: a loss is computed in full precision."""
    return tensor if tensor.dtype == torch.float64 else tensor.float()


def require_whole_crops(config: Any, name: str) -> None:
    """lightly's crops reach up to the whole image."""
    scale = config.scale if hasattr(config, "scale") else config.crop_scale
    if scale[1] != 1:
        raise UserError(
            f"a view's largest area of {scale[1]} of the image: lightly's crops reach up to 1. Give an upper end of 1, "
            f"or run {name}"
        )


class LightlySimCLR(Method):
    """SimCLR of lightly's blocks: SimCLRTransform, SimCLRProjectionHead, NTXentLoss.

    arXiv 2002.05709. Differs by bilinear crops (ours bicubic) and a shift in the head's last norm (ours has none).
    """

    Config = SimCLR.Config
    presets = SimCLR.presets
    expected_failures = {"step reads no tensor value": "lightly's NTXentLoss picks logits with a mask"}  # noqa: RUF012

    def __init__(self, config: Any, make_backbone: MakeBackbone) -> None:
        super().__init__(config, make_backbone)
        self.backbone = make_backbone()
        dim = self.backbone.feature_dim
        self.head = SimCLRProjectionHead(
            dim, config.hidden_dim or dim, config.out_dim, batch_norm=config.head_batch_norm
        )
        self.criterion = NTXentLoss(config.temperature)

    @classmethod
    def fill(cls, config: Any, situation: Situation) -> Any:
        """As SimCLR's."""
        require_whole_crops(config, "simclr")
        return SimCLR.fill(config, situation)

    @classmethod
    def make_views(cls, config: Any) -> MakeViews:
        """lightly's transform with the recipe's strengths."""
        transform = SimCLRTransform(
            input_size=config.crop_px or 224,
            min_scale=config.scale[0],
            cj_prob=config.jitter_probability,
            cj_strength=config.color_strength,
            random_gray_scale=config.gray_probability,
            gaussian_blur=config.blur_probability,
            sigmas=config.blur_sigma_px or (0.1, 2.0),
        )
        return views_of(transform)

    def embed(self, batch: Batch) -> dict[str, Tensor]:
        """Projections of both views."""
        first, second = in_full(self.head(self.backbone(torch.cat(list(batch.views))))).chunk(2)
        return {"first": first, "second": second}

    def loss(self, embeddings: Mapping[str, Tensor], progress: Progress) -> StepOutput:
        """NT-Xent of both views' projections."""
        with torch.autocast(embeddings["first"].device.type, enabled=False):
            loss = self.criterion(embeddings["first"], embeddings["second"])
        return StepOutput(loss, {"loss": loss.detach()})

    def networks(self) -> dict[str, Backbone]:
        """The backbone without its head."""
        return {"backbone": self.backbone}


class LightlyBYOL(Method):
    """BYOL of lightly's blocks: BYOLTransform, its two heads, negative cosine similarity.

    arXiv 2006.07733. Differs by bilinear crops (ours bicubic) and by biases in the heads' layers. The loss is twice
    lightly's of each direction: the paper's less a constant of 4.
    """

    Config = BYOL.Config
    presets = BYOL.presets
    mean_over_images = True

    def __init__(self, config: Any, make_backbone: MakeBackbone) -> None:
        super().__init__(config, make_backbone)
        self.config = config
        self.backbone = make_backbone()
        widths = config.hidden_dim, config.out_dim
        self.online = nn.Sequential(self.backbone, BYOLProjectionHead(self.backbone.feature_dim, *widths))
        self.prediction_head = BYOLPredictionHead(config.out_dim, *widths)
        self.target = nn.Sequential(make_backbone(), BYOLProjectionHead(self.backbone.feature_dim, *widths))
        self.target.load_state_dict(self.online.state_dict())
        self.target.requires_grad_(False)
        self.criterion = NegativeCosineSimilarity()

    @classmethod
    def fill(cls, config: Any, situation: Situation) -> Any:
        """As BYOL's."""
        require_whole_crops(config, "byol")
        return BYOL.fill(config, situation)

    @classmethod
    def make_views(cls, config: Any) -> MakeViews:
        """lightly's two views with the recipe's strengths."""
        shared: Any = {
            "input_size": config.crop_px or 224,
            "min_scale": config.scale[0],
            "sigmas": config.blur_sigma_px or (0.1, 2.0),
            "cj_prob": config.jitter_probability,
            "cj_bright": config.brightness,
            "cj_contrast": config.contrast,
            "cj_sat": config.saturation,
            "cj_hue": config.hue,
            "random_gray_scale": config.gray_probability,
        }
        (blur_1, blur_2), (solarize_1, solarize_2) = config.blur_probability, config.solarize_probability
        first = BYOLView1Transform(**shared, gaussian_blur=blur_1, solarization_prob=solarize_1)
        second = BYOLView2Transform(**shared, gaussian_blur=blur_2, solarization_prob=solarize_2)
        return views_of(BYOLTransform(first, second))

    def step(self, batch: Batch, progress: Progress) -> StepOutput:
        """Each view's prediction against the other's target."""
        with torch.no_grad():
            targets = [in_full(self.target(view)) for view in batch.views]
        first, second = (in_full(self.prediction_head(self.online(view))) for view in batch.views)
        with torch.autocast(first.device.type, enabled=False):
            loss = 2 * self.criterion(first, targets[1]) + 2 * self.criterion(second, targets[0])
        return StepOutput(loss, {"loss": loss.detach()})

    def update(self, carry: Mapping[str, Tensor], progress: Progress) -> None:
        """The target follows, ever slower."""
        momentum = cosine_schedule(progress.step, progress.total_steps, self.config.target_momentum, 1.0)
        update_momentum(self.online, self.target, m=momentum)

    def networks(self) -> dict[str, Backbone]:
        """The online backbone, and the target's."""
        return {"online": self.backbone, "target": self.target[0]}  # type: ignore[dict-item]


class Queue(MemoryBankModule):
    """lightly's memory bank, saved with the method and moved by `enqueue` alone."""

    def __init__(self, size: tuple[int, int]) -> None:
        super().__init__(size)
        self.register_buffer("bank", self.bank)  # lightly's are not part of the state
        self.register_buffer("bank_ptr", self.bank_ptr)

    def forward(self, output: Tensor, labels: Tensor | None = None, update: bool = False) -> Any:
        """(output, the rows as columns), without taking the output in."""
        return super().forward(output, labels, update=False)

    def enqueue(self, keys: Tensor) -> None:
        """Take keys (batch, dim) in, in place of the oldest."""
        self._dequeue_and_enqueue(keys)


class LightlyMoCoV2(Method):
    """MoCo v2 of lightly's blocks: MoCoV2Transform, MoCoProjectionHead, NTXentLoss with memory bank.

    arXiv 2003.04297. Differs by batch norm over the whole batch (ours: in shuffled parts, as on several devices).
    """

    Config = MoCoV2.Config
    presets = MoCoV2.presets
    mean_over_images = True

    def __init__(self, config: Any, make_backbone: MakeBackbone) -> None:
        super().__init__(config, make_backbone)
        self.config = config
        self.backbone = make_backbone()
        dim = self.backbone.feature_dim
        self.query = nn.Sequential(self.backbone, MoCoProjectionHead(dim, dim, config.out_dim))
        self.key = nn.Sequential(make_backbone(), MoCoProjectionHead(dim, dim, config.out_dim))
        self.key.load_state_dict(self.query.state_dict())
        self.key.requires_grad_(False)
        self.criterion = NTXentLoss(config.temperature)
        self.criterion.memory_bank = Queue((config.queue_size or 65536, config.out_dim))

    @classmethod
    def fill(cls, config: Any, situation: Situation) -> Any:
        """As MoCo v2's, with one part of a batch."""
        require_whole_crops(config, "mocov2")
        whole = config.model_copy(update={"batch_norm_splits": config.batch_norm_splits or 1})
        require(whole, "mocov2", batch_norm_splits=1)
        return MoCoV2.fill(whole, situation)

    @classmethod
    def make_views(cls, config: Any) -> MakeViews:
        """lightly's transform with the recipe's strengths."""
        transform = MoCoV2Transform(
            input_size=config.crop_px or 224,
            min_scale=config.crop_scale[0],
            cj_bright=config.jitter,
            cj_contrast=config.jitter,
            cj_sat=config.jitter,
            cj_hue=config.hue,
            random_gray_scale=config.gray_probability,
            gaussian_blur=config.blur_probability,
            sigmas=config.blur_sigma_px or (0.1, 2.0),
        )
        return views_of(transform)

    def step(self, batch: Batch, progress: Progress) -> StepOutput:
        """View 1's queries against view 2's keys and the queue."""
        queries = in_full(self.query(batch.views[0]))
        with torch.no_grad():
            keys = nn.functional.normalize(in_full(self.key(batch.views[1])), dim=1)
        with torch.autocast(queries.device.type, enabled=False):
            loss = self.criterion(queries, keys)
        return StepOutput(loss, {"loss": loss.detach()}, {"keys": keys})

    def parameter_groups(self) -> Any:
        """As MoCo v2's: all alike."""
        return MoCoV2.parameter_groups(self)

    def update(self, carry: Mapping[str, Tensor], progress: Progress) -> None:
        """The queue takes the keys in, and the key encoder follows."""
        self.criterion.memory_bank.enqueue(carry["keys"])
        update_momentum(self.query, self.key, m=self.config.key_momentum)

    def networks(self) -> dict[str, Backbone]:
        """The query encoder's backbone, and the key encoder's."""
        return {"query": self.backbone, "key": self.key[0]}  # type: ignore[dict-item]
