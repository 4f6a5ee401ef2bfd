"""BYOL: bootstrap your own latent (Grill et al. 2020, arXiv 2006.07733).

An online network (backbone f, projector g, predictor q) sees one view v of an image and predicts the projection that a
target network (f', g', no predictor) gives of the other view v'. There are no negative pairs (section 3.1, equation 2):

    L(v, v') = |q/|q| - z'/|z'||^2 = 2 - 2 cos(q, z')       q = q(g(f(v))),  z' = g'(f'(v')) without gradient
    loss     = mean over the batch of L(v, v') + L(v', v)   the sum of both directions, not their mean
    target  <- tau target + (1 - tau) online                after the optimizer, at step k of K, parameters only
    tau      = 1 - (1 - tau_base) (cos(pi k / K) + 1) / 2   section 3.3

The target is in training mode: its batch norms use the statistics of its own batch and keep running averages of their
own. Each view is a batch of its own, so that batch norm sees one kind of view at a time. f is what is kept.

Authors' code: github.com/google-deepmind/deepmind-research/tree/master/byol (byol_experiment.py, utils/networks.py,
utils/augmentations.py, configs/byol.py). What differs:
- the target starts as a copy of the online network; theirs has other initial weights (they saw no difference);
- the last batch norm of each residual block starts at 1 (as torchvision's), theirs at 0;
- no online classifier: labels stay out of training;
- jitter multiplies the brightness (as torchvision's), theirs adds to it;
- their blur ends at a twentieth of the image on each side; ours is whole, and its largest width shrinks below 96 px;
- the warm-up reaches its peak one step earlier (`ssl_bench.blocks.schedules`);
- on a ViT, which the paper does not have, the paper's presets use AdamW with DINO's values (DINO's table 2 has BYOL).
Our loss equals 2 + 2 c, c lightly's NegativeCosineSimilarity, to 1e-12 and our heads its BYOLProjectionHead to 1e-10
with its last bias at 0, which ours and the authors' leave out (float64; tests/plugins/methods/test_byol.py).
Synchronizing batch norm over several processes, as the authors do, is left to a launcher that has them.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace

import torch
from torch import Tensor, nn
from torch.nn import functional

from ssl_bench.backbone import Backbone
from ssl_bench.blocks import ema
from ssl_bench.blocks.collapse_signs import NO_SPREAD, spread
from ssl_bench.blocks.patch_sizes import view_px
from ssl_bench.blocks.views import Crop, MultiCrop, blur_range_px
from ssl_bench.errors import UserError
from ssl_bench.method import Batch, MakeBackbone, MakeViews, Method, Preset, Progress, Sign, Situation, StepOutput
from ssl_bench.settings import AreaRange, BlurRange, Probabilities, Settings, setting

TABLE = "appendix B, table 6"
HEADS = "section 3.3"


class BYOLSettings(Settings):
    """BYOL's settings; null is decided from the data before the run and then recorded in the recipe."""

    crop_px: int | None = setting(None, "Side of the 2 views; null: the image's.", unit="px", ge=1)
    scale: AreaRange = setting((0.08, 1.0), "Area of a view, of the image's.", source="appendix B")
    brightness: float = setting(0.4, "Largest change of brightness, as a factor from 1.", source=TABLE, ge=0)
    contrast: float = setting(0.4, "Largest change of contrast, as a factor from 1.", source=TABLE, ge=0)
    saturation: float = setting(0.2, "Largest change of saturation, as a factor from 1.", source=TABLE, ge=0)
    hue: float = setting(0.1, "Largest change of the hue.", unit="turns", source=TABLE, ge=0, le=0.5)
    jitter_probability: float = setting(0.8, "Probability of these four changes.", source=TABLE, ge=0, le=1)
    gray_probability: float = setting(0.2, "Probability of a gray view.", source=TABLE, ge=0, le=1)
    blur_probability: Probabilities = setting((1.0, 0.1), "Probability of blur in view 1 and view 2.", source=TABLE)
    blur_sigma_px: BlurRange | None = setting(None, "Blur; null: 0.1 to 2 from 96 px on.", unit="px", source=TABLE)
    solarize_probability: Probabilities = setting((0.0, 0.2), "Probability of solarizing view 1 and 2.", source=TABLE)
    hidden_dim: int = setting(4096, "Width of the projector's and the predictor's hidden layer.", source=HEADS, ge=1)
    out_dim: int = setting(256, "Width of projections and predictions.", source=HEADS, ge=2)
    target_momentum: float = setting(0.996, "tau_base, at the start; ends at 1.", source=HEADS, ge=0, le=1)


def on_imagenet(epochs: int, base_lr: float, weight_decay: float, target_momentum: float, top_1: str) -> Preset:
    """The paper's values for a number of epochs (configs/byol.py); LARS leaves out biases and norms."""
    values = {
        "method.target_momentum": target_momentum,
        "training.epochs": epochs,
        "training.batch_size": 1024,
    }
    convnet_values = {
        "optimizer.name": "lars",
        "optimizer.base_lr": base_lr,
        "optimizer.final_lr": 0.0,
        "optimizer.weight_decay": weight_decay,
        "optimizer.final_weight_decay": None,
        "training.batch_size": 4096,
    }
    return Preset(f"ImageNet, {epochs} epochs ({top_1})", values, convnet_values)


PRESETS = {
    "paper": on_imagenet(1000, 0.2, 1.5e-6, 0.996, "the paper's table 1: 74.3 linear with ResNet-50"),
    "paper-300": on_imagenet(300, 0.3, 1e-6, 0.99, "the paper's ablations: 72.5 linear with ResNet-50"),
    "paper-100": on_imagenet(100, 0.45, 1e-6, 0.99, "the authors' configs/byol.py"),
    "small-data": Preset(
        "small images by the thousand, minutes to hours: smaller heads, no blur, milder views, a slow target on a ViT",
        {
            "method.scale": (0.5, 1.0),
            "method.hue": 0.05,
            "method.gray_probability": 0.1,
            "method.blur_probability": (0.0, 0.0),
            "method.hidden_dim": 1024,
            "method.out_dim": 128,
            "method.target_momentum": 0.999,
            "optimizer.base_lr": 4e-3,
            "optimizer.warmup_epochs": 0.4,
            "optimizer.final_weight_decay": None,
            "training.batch_size": 32,
        },
        {
            "method.scale": (0.2, 1.0),
            "method.hue": 0.1,
            "method.gray_probability": 0.2,
            "method.target_momentum": 0.99,
            "optimizer.name": "sgd",
            "optimizer.base_lr": 0.12,
            "optimizer.final_lr": 0.0,
            "optimizer.weight_decay": 5e-4,
            "training.batch_size": 64,
        },
        steps=750,
    ),
}


def head(in_dim: int, hidden_dim: int, out_dim: int) -> nn.Sequential:
    """Projector or predictor: linear, batch norm, ReLU, linear without bias (authors' networks.MLP)."""
    layers = nn.Linear(in_dim, hidden_dim), nn.Linear(hidden_dim, out_dim, bias=False)
    for layer in layers:  # haiku's default, which the authors use
        std = layer.in_features**-0.5
        nn.init.trunc_normal_(layer.weight, std=std, a=-2 * std, b=2 * std)
    nn.init.zeros_(layers[0].bias)
    return nn.Sequential(layers[0], nn.BatchNorm1d(hidden_dim), nn.ReLU(), layers[1])


class Network(nn.Module):
    """Backbone and projector: the target, and the online network up to its predictor."""

    def __init__(self, backbone: Backbone, config: BYOLSettings) -> None:
        super().__init__()
        self.backbone = backbone
        self.projector = head(backbone.feature_dim, config.hidden_dim, config.out_dim)

    def forward(self, images: Tensor) -> Tensor:
        """(batch, 3, height, width) -> projections (batch, out_dim)."""
        return self.projector(self.backbone(images))  # type: ignore[no-any-return]


def regression_loss(predictions: Tensor, targets: Tensor) -> Tensor:
    """Mean over the batch of |q/|q| - z/|z||^2 = 2 - 2 cos(q, z), of (batch, dim) each (equation 2)."""
    cosines: Tensor = (functional.normalize(predictions, dim=-1) * functional.normalize(targets, dim=-1)).sum(dim=-1)
    return 2 - 2 * cosines.mean()


class BYOL(Method):
    """BYOL: an online network predicts the projections of its own moving average, without negative pairs."""

    Config = BYOLSettings
    presets = PRESETS
    mean_over_images = True

    def __init__(self, config: BYOLSettings, make_backbone: MakeBackbone) -> None:
        super().__init__(config, make_backbone)
        self.config = config
        self.online = Network(make_backbone(), config)
        self.predictor = head(config.out_dim, config.hidden_dim, config.out_dim)
        self.target = Network(make_backbone(), config).requires_grad_(False)
        self.target.load_state_dict(self.online.state_dict())

    @classmethod
    def fill(cls, config: BYOLSettings, situation: Situation) -> BYOLSettings:
        """Crop and blur from the image's side. Raises `UserError` for a batch of 1, which has no batch statistics."""
        if situation.batch_size < 2:
            raise UserError(
                f"training.batch_size = {situation.batch_size}: BYOL's heads have batch norm, which needs at least 2 "
                "images a step. Give --batch-size 2 or more; 64 suits small sets"
            )
        crop_px = view_px(config.crop_px, situation)
        blur = config.blur_sigma_px or blur_range_px(crop_px)
        return config.model_copy(update={"crop_px": crop_px, "blur_sigma_px": blur})

    @classmethod
    def make_views(cls, config: BYOLSettings) -> MakeViews:
        """Two views, drawn from the distributions T and T' of table 6."""
        first = Crop(
            crop_px=config.crop_px or 224,
            scale=config.scale,
            jitter_probability=config.jitter_probability,
            brightness=config.brightness,
            contrast=config.contrast,
            saturation=config.saturation,
            hue=config.hue,
            gray_probability=config.gray_probability,
            blur_probability=config.blur_probability[0],
            blur_sigma_px=config.blur_sigma_px or (0.1, 2.0),
            solarize_probability=config.solarize_probability[0],
        )
        second = replace(
            first,
            blur_probability=config.blur_probability[1],
            solarize_probability=config.solarize_probability[1],
        )
        return MultiCrop([(first, 1), (second, 1)])

    def step(self, batch: Batch, progress: Progress) -> StepOutput:
        """Loss of both directions; see the module's equations."""
        dtype = self.predictor[3].weight.dtype  # the loss in full precision, whatever the layers ran in
        with torch.no_grad():
            targets = [self.target(view).to(dtype) for view in batch.views]
        first, second = (self.predictor(self.online(view)).to(dtype) for view in batch.views)
        loss = regression_loss(first, targets[1]) + regression_loss(second, targets[0])
        momentum = torch.tensor(self.momentum(progress))
        return StepOutput(loss, {"target_momentum": momentum}, {"targets": targets[0]})

    def batch_logs(self, carry: Mapping[str, Tensor]) -> dict[str, Tensor]:
        """How far the batch's targets differ, which tells a collapse."""
        return {"target_spread": spread(carry["targets"])}

    def update(self, carry: Mapping[str, Tensor], progress: Progress) -> None:
        """Move the target's parameters; its batch norms keep running statistics of their own."""
        ema.move_towards(self.target, self.online, self.momentum(progress))

    def momentum(self, progress: Progress) -> float:
        """The target's momentum tau in the update of this step."""
        return ema.momentum_at(progress.step, progress.total_steps, self.config.target_momentum)

    def signs(self, batch_size: int) -> Sequence[Sign]:
        """The constant solution of equation 2, which the predictor and a slow target prevent (section 3.2)."""
        change = "a method.target_momentum nearer to 1, a lower optimizer.base_lr"
        return [Sign({"target_spread": NO_SPREAD}, "the target gives every image the same projection", change)]

    def networks(self) -> dict[str, Backbone]:
        """The online backbone f is evaluated: "at the end of training, we only keep the encoder" (section 3.1)."""
        return {"online": self.online.backbone, "target": self.target.backbone}
