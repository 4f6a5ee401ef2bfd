"""SimCLR: a simple framework for contrastive learning (Chen et al. 2020, arXiv 2002.05709).

Two views of each of N images make 2N projections z. Each has one positive, the other view of its image, among the other
2N - 1 projections; the loss is the cross-entropy of identifying it (equation 1, algorithm 1):

    l(i, j) = -log( exp(s(i, j) / tau) / sum over k != i of exp(s(i, k) / tau) )      s(i, k) = cos(z_i, z_k)
    loss    = mean over the 2N projections i, whose positive is j, of l(i, j)

Authors' code: github.com/google-research/simclr (objective.py, model_util.py, data_util.py). What differs:
- the loss is the paper's mean; their code adds the means of the two directions, twice as much. Only biases and norms
  are affected, since LARS divides by the gradient's norm;
- the projector is their code's: batch norm after both layers, no biases, and no shift in the last norm; the paper's
  text has g(h) = W2 relu(W1 h), which is `head_batch_norm = false`;
- the last batch norm of each residual block starts at 1 (as torchvision's), theirs at 0;
- their crops are TensorFlow's (at least a tenth of the image, 100 tries), ours torchvision's with the same ranges;
- their blur ends at a twentieth of the image on each side; ours is whole, and its largest width shrinks below 96 px;
- the warm-up reaches its peak one step earlier (`ssl_bench.blocks.schedules`);
- on a ViT, which the paper does not have, the paper's presets use AdamW with DINO's values.
lightly's NTXentLoss and SimCLRProjectionHead equal ours to 1e-12 in float64 (tests/plugins/methods/test_simclr.py); its
head's last norm learns a shift, which ours and the authors' leave out.
Negatives are those of this process: gathering projections and synchronizing batch norm over several processes, as the
authors do, is left to a launcher that has them.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import torch
from torch import Tensor, nn
from torch.nn import functional

from ssl_bench.backbone import Backbone
from ssl_bench.blocks.collapse_signs import NO_SPREAD, spread, uniform
from ssl_bench.blocks.heads import mlp
from ssl_bench.blocks.patch_sizes import view_px
from ssl_bench.blocks.views import Crop, MultiCrop, blur_range_px
from ssl_bench.errors import UserError
from ssl_bench.method import Batch, MakeBackbone, MakeViews, Method, Preset, Progress, Sign, Situation, StepOutput
from ssl_bench.settings import AreaRange, BlurRange, Settings, setting

VIEWS, HEAD = "appendix A", "model_util.py"


class SimCLRSettings(Settings):
    """SimCLR's settings; null is decided from the data before the run and then recorded in the recipe."""

    crop_px: int | None = setting(None, "Side of the 2 views; null: the image's.", unit="px", ge=1)
    scale: AreaRange = setting((0.08, 1.0), "Area of a view, of the image's.", source=VIEWS)
    color_strength: float = setting(
        1.0, "Strength s of the color jitter: 0.8 s, and 0.2 s for the hue; 0.5 on CIFAR.", source=VIEWS, ge=0, le=2.5
    )
    jitter_probability: float = setting(0.8, "Probability of the jitter.", source=VIEWS, ge=0, le=1)
    gray_probability: float = setting(0.2, "Probability of a gray view.", source=VIEWS, ge=0, le=1)
    blur_probability: float = setting(0.5, "Probability of blur; 0 on CIFAR.", source=VIEWS, ge=0, le=1)
    blur_sigma_px: BlurRange | None = setting(None, "Blur; null: 0.1 to 2 from 96 px on.", unit="px", source=VIEWS)
    hidden_dim: int | None = setting(None, "Width of the hidden layer; null: the features'.", source=HEAD, ge=1)
    out_dim: int = setting(128, "Width of the projections.", source="section 2.3", ge=2)
    head_batch_norm: bool = setting(True, "Batch norm after both layers, in place of biases.", source=HEAD)
    temperature: float = setting(0.1, "Temperature tau; 0.5 on CIFAR.", source="table 5, appendix B.9", gt=0)


def on_imagenet(epochs: int, summary: str, *, base_lr: float = 0.3, scaling: str = "linear") -> Preset:
    """The paper's values (section 2.3, appendix B.6); LARS leaves out biases and norms."""
    convnet_values = {
        "optimizer.name": "lars",
        "optimizer.base_lr": base_lr,
        "optimizer.lr_scaling": scaling,
        "optimizer.final_lr": 0.0,
        "optimizer.weight_decay": 1e-6,
        "optimizer.final_weight_decay": None,
        "training.batch_size": 4096,
    }
    return Preset(summary, {"training.epochs": epochs, "training.batch_size": 1024}, convnet_values)


PRESETS = {
    "paper": on_imagenet(1000, "ImageNet, 1000 epochs (the paper's table 6: 69.3 linear with ResNet-50)"),
    "paper-100": on_imagenet(100, "ImageNet, 100 epochs (section 2.3, the setting of the paper's ablations)"),
    "paper-100-sqrt": on_imagenet(
        100, "the same for batches below 4096: the rate is 0.075 sqrt(batch) (B.1)", base_lr=1.2, scaling="sqrt"
    ),  # 1.2 at a batch of 256
    "small-data": Preset(
        "small images by the thousand, minutes to hours: the paper's CIFAR views and temperature (B.9), a narrow head",
        {
            "method.scale": (0.2, 1.0),
            "method.color_strength": 0.5,
            "method.blur_probability": 0.0,
            "method.temperature": 0.5,
            "optimizer.base_lr": 4e-3,
            "optimizer.warmup_epochs": 0.4,
            "optimizer.final_weight_decay": None,
            "training.batch_size": 64,
        },
        {
            "optimizer.name": "sgd",
            "optimizer.base_lr": 0.12,
            "optimizer.final_lr": 0.0,
            "optimizer.weight_decay": 5e-4,
        },
        steps=750,
    ),
}


def projector(in_dim: int, config: SimCLRSettings) -> nn.Sequential:
    """g: (batch, in_dim) -> (batch, out_dim), not yet normalized (section 2.1; authors' projection_head)."""
    hidden_dim = config.hidden_dim or in_dim
    if not config.head_batch_norm:
        return mlp([in_dim, hidden_dim, config.out_dim])
    last = nn.BatchNorm1d(config.out_dim)
    last.register_parameter("bias", None)  # "for the final layer, neither bias nor relu is used"
    layers = nn.Linear(in_dim, hidden_dim, bias=False), nn.Linear(hidden_dim, config.out_dim, bias=False)
    for layer in layers:
        nn.init.normal_(layer.weight, std=0.01)
    return nn.Sequential(layers[0], nn.BatchNorm1d(hidden_dim), nn.ReLU(), layers[1], last)


def similarities(projections: Tensor, temperature: float) -> Tensor:
    """(2N, dim) -> (2N, 2N): s(i, k) / tau, and minus infinity where k = i, which is not a candidate."""
    unit = functional.normalize(projections, dim=-1)
    itself = torch.eye(len(unit), dtype=torch.bool, device=unit.device)
    return (unit @ unit.T / temperature).masked_fill(itself, -torch.inf)


def positives(projections: Tensor) -> Tensor:
    """(2N,) int64: where each projection's positive is, when the N first views stand before the N second views."""
    return torch.arange(len(projections), device=projections.device).roll(len(projections) // 2)


def nt_xent(projections: Tensor, temperature: float) -> Tensor:
    """Normalized temperature-scaled cross-entropy of (2N, dim), first views before second views (equation 1)."""
    return functional.cross_entropy(similarities(projections, temperature), positives(projections))


class SimCLR(Method):
    """SimCLR: tell the other view of an image from the views of all other images in the batch."""

    Config = SimCLRSettings
    presets = PRESETS

    def __init__(self, config: SimCLRSettings, make_backbone: MakeBackbone) -> None:
        super().__init__(config, make_backbone)
        self.config = config
        self.backbone = make_backbone()
        self.projector = projector(self.backbone.feature_dim, config)

    @classmethod
    def fill(cls, config: SimCLRSettings, situation: Situation) -> SimCLRSettings:
        """Crop and blur from the image's side. Raises `UserError` for a batch of 1, which has no negatives."""
        if situation.batch_size < 2:
            raise UserError(
                f"training.batch_size = {situation.batch_size}: SimCLR tells an image from the others of its batch, "
                "so it needs at least 2 images a step. Give --batch-size 2 or more; 64 suits small sets, and larger "
                "batches have more negatives"
            )
        crop_px = view_px(config.crop_px, situation)
        blur = config.blur_sigma_px or blur_range_px(crop_px)
        return config.model_copy(update={"crop_px": crop_px, "blur_sigma_px": blur})

    @classmethod
    def make_views(cls, config: SimCLRSettings) -> MakeViews:
        """Two views of one distribution (appendix A)."""
        strength = 0.8 * config.color_strength
        view = Crop(
            crop_px=config.crop_px or 224,
            scale=config.scale,
            jitter_probability=config.jitter_probability,
            brightness=strength,
            contrast=strength,
            saturation=strength,
            hue=0.2 * config.color_strength,
            gray_probability=config.gray_probability,
            blur_probability=config.blur_probability,
            blur_sigma_px=config.blur_sigma_px or (0.1, 2.0),
        )
        return MultiCrop([(view, 2)])

    def embed(self, batch: Batch) -> dict[str, Tensor]:
        """Projections (batch, 2, out_dim); both views go through the network as one batch, as the authors' do."""
        projections = self.projector(self.backbone(torch.cat(batch.views)))
        projections = projections.to(next(self.projector.parameters()).dtype)
        return {"projections": projections.view(2, -1, projections.shape[-1]).transpose(0, 1)}

    def loss(self, embeddings: Mapping[str, Tensor], progress: Progress) -> StepOutput:
        """NT-Xent over both views of the whole batch."""
        projections = embeddings["projections"].transpose(0, 1).flatten(0, 1)
        with torch.autocast(projections.device.type, enabled=False):  # 0.99 / 0.1 in bf16 is off by 0.03
            loss = nt_xent(projections, self.config.temperature)
            found = similarities(projections.detach(), 1.0).argmax(dim=-1) == positives(projections)
        return StepOutput(loss, {"positives_found": found.float().mean(), "spread": spread(projections.detach())})

    def signs(self, batch_size: int) -> Sequence[Sign]:
        """If all projections are alike, the 2N - 1 candidates are equally likely and the gradient is 0."""
        near = {"loss": uniform(2 * batch_size - 1), "spread": NO_SPREAD}
        return [Sign(near, "all projections are alike", "a lower optimizer.base_lr, a larger --batch-size")]

    def networks(self) -> dict[str, Backbone]:
        """f, without the projector: h is the better representation (section 4.2)."""
        return {"backbone": self.backbone}
