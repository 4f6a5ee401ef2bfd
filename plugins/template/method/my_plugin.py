"""SimSiam: what one view predicts of another, with a stop-gradient instead of a teacher (Chen, He; arXiv 2011.10566).

z = f(view)   p = h(z)   loss = D(p1, z2) / 2 + D(p2, z1) / 2,   D(p, z) = -cos(p, stop_gradient(z))    (eq. 1 to 4)
"""

from collections.abc import Mapping
from typing import Any

from torch import Tensor, nn
from torch.nn import functional

from ssl_bench.backbone import Backbone
from ssl_bench.blocks.collapse_signs import NO_SPREAD, spread
from ssl_bench.blocks.heads import mlp
from ssl_bench.blocks.views import Crop, MultiCrop
from ssl_bench.method import Batch, MakeBackbone, MakeViews, Method, Preset, Progress, Sign, Situation, StepOutput
from ssl_bench.settings import Settings, setting


class MyPluginSettings(Settings):
    """Every setting with its meaning and where its default comes from."""

    crop_px: int | None = setting(None, "Side of the views; null: the image's.", unit="px", ge=1)
    dim: int = setting(2048, "Width of the projector's layers.", source="section 3", ge=1)
    predictor_dim: int = setting(512, "Width of the predictor's hidden layer.", source="section 3", ge=1)


def negative_cosine(prediction: Tensor, target: Tensor) -> Tensor:
    """D (equation 1) of two (batch, dim), the mean over the batch; no gradient reaches `target`."""
    return -functional.cosine_similarity(prediction, target.detach(), dim=-1).mean()


class MyPlugin(Method):
    """my_plugin: a network predicts its own output for another view of the image."""

    Config = MyPluginSettings
    mean_over_images = True  # so a large batch may be computed in micro-batches
    presets = {  # noqa: RUF012
        "paper": Preset("100 epochs of ImageNet", {"training.epochs": 100, "training.batch_size": 512}),
        "small-data": Preset("small images", {"method.dim": 256, "method.predictor_dim": 64}, steps=750),
    }

    def __init__(self, config: MyPluginSettings, make_backbone: MakeBackbone) -> None:
        super().__init__(config, make_backbone)
        self.backbone = make_backbone()
        widths = [self.backbone.feature_dim, config.dim, config.dim, config.dim]
        self.projector = nn.Sequential(mlp(widths, batch_norm=True), nn.BatchNorm1d(config.dim, affine=False))
        self.predictor = mlp([config.dim, config.predictor_dim, config.dim], batch_norm=True)

    @classmethod
    def fill(cls, config: MyPluginSettings, situation: Situation) -> MyPluginSettings:
        """What depends on the data is decided here, before the run, so that a recipe is complete."""
        return config.model_copy(update={"crop_px": config.crop_px or situation.image_px})

    @classmethod
    def make_views(cls, config: MyPluginSettings) -> MakeViews:
        """Two views of one kind (section 3), drawn from the `Random` that the loop hands over."""
        jitter: dict[str, Any] = {"brightness": 0.4, "contrast": 0.4, "saturation": 0.4, "hue": 0.1}
        view = Crop(config.crop_px or 224, (0.2, 1.0), **jitter, jitter_probability=0.8, gray_probability=0.2)
        return MultiCrop([(view, 2)])

    def step(self, batch: Batch, progress: Progress) -> StepOutput:
        """The loss of a batch; a method with a teacher or a queue moves it in `update`, never here."""
        first, second = (self.projector(self.backbone(view)) for view in batch.views)
        loss = (negative_cosine(self.predictor(first), second) + negative_cosine(self.predictor(second), first)) / 2
        return StepOutput(loss, {}, {"projections": first.detach()})

    def batch_logs(self, carry: Mapping[str, Tensor]) -> dict[str, Tensor]:
        """What is logged of the whole batch; the spread falls to 0 in a collapse."""
        return {"spread": spread(carry["projections"])}

    def signs(self, batch_size: int) -> list[Sign]:
        """What the logs come to in a collapse: a run in which this lasts ends, in these words."""
        return [Sign({"spread": NO_SPREAD}, "all projections are alike", "a lower optimizer.base_lr")]

    def networks(self) -> dict[str, Backbone]:
        """The networks by name, without their heads; the first is the one that is evaluated."""
        return {"backbone": self.backbone}
