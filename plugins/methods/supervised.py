"""Supervised: training with labels, the baseline (Goyal et al. 2017, arXiv 1706.02677; DeiT, 2020, arXiv 2012.12877).

A linear layer on the backbone's features predicts the class of one random crop; the loss is the cross-entropy

    loss = mean over the batch of -log softmax(W f(x) + b)[label]

with part of the target spread over all classes on ViTs (label smoothing, DeiT). The only method that sees labels.

What differs: convnets are trained with a cosine schedule instead of steps at epochs 30, 60 and 80, and without decay on
norms and biases; ViTs with random crops and flips only, without DeiT's RandAugment, mixup, CutMix, erasing and repeated
samples, so expect less than its 79.8. As for every method, the backbone's features are evaluated, not the classifier.
"""

from __future__ import annotations

from torch import nn
from torch.nn import functional

from ssl_bench.backbone import Backbone
from ssl_bench.blocks.patch_sizes import view_px
from ssl_bench.blocks.views import Crop, MultiCrop
from ssl_bench.errors import UserError
from ssl_bench.method import Batch, MakeBackbone, MakeViews, Method, Preset, Progress, Situation, StepOutput
from ssl_bench.settings import AreaRange, Settings, setting


class SupervisedSettings(Settings):
    """Settings of supervised training; null is decided from the data before the run and then recorded in the recipe."""

    classes: int | None = setting(None, "Number of classes; null: the dataset's.", unit="classes", ge=2)
    crop_px: int | None = setting(None, "Side of the view; null: the image's.", unit="px", ge=1)
    scale: AreaRange = setting((0.08, 1.0), "Area of the view, of the image's.", source="Goyal, section 5.1")
    label_smoothing: float = setting(
        0.0, "Part of the target that is spread over all classes.", source="DeiT, table 9", ge=0, lt=1
    )
    drop_path: float = setting(0.0, "Stochastic depth of the backbone.", source="DeiT, table 9", ge=0, lt=1)


DEIT = {
    "method.label_smoothing": 0.1,
    "method.drop_path": 0.1,
    "optimizer.base_lr": 2.5e-4,  # 5e-4 at 512
    "optimizer.warmup_epochs": 5,
    "optimizer.final_lr": 1e-5,
    "optimizer.weight_decay": 0.05,
    "optimizer.final_weight_decay": None,
    "training.epochs": 300,
    "training.batch_size": 1024,
}
GOYAL = {
    "method.label_smoothing": 0.0,
    "method.drop_path": 0.0,
    "optimizer.name": "sgd",
    "optimizer.base_lr": 0.1,
    "optimizer.final_lr": 0.0,
    "optimizer.weight_decay": 1e-4,
    "training.epochs": 90,
    "training.batch_size": 256,
}
PRESETS = {
    "paper": Preset("ImageNet: DeiT's values on a ViT, Goyal's on a convnet", DEIT, GOYAL),
    "small-data": Preset(
        "small images by the thousand, minutes to hours: milder crops, a small batch",
        {
            "method.scale": (0.2, 1.0),
            "optimizer.base_lr": 4e-3,
            "optimizer.warmup_epochs": 0.4,
            "optimizer.weight_decay": 0.05,
            "optimizer.final_weight_decay": None,
            "training.batch_size": 64,
        },
        {
            "optimizer.name": "sgd",
            "optimizer.base_lr": 0.1,
            "optimizer.final_lr": 0.0,
            "optimizer.weight_decay": 5e-4,
        },
        steps=750,
    ),
}


class Supervised(Method):
    """Supervised: cross-entropy on labels, the baseline of the tables."""

    Config = SupervisedSettings
    presets = PRESETS
    needs_labels = True
    mean_over_images = True

    def __init__(self, config: SupervisedSettings, make_backbone: MakeBackbone) -> None:
        super().__init__(config, make_backbone)
        assert config.classes is not None, "fill() decides the number of classes"
        self.config = config
        self.backbone = make_backbone(drop_path=config.drop_path)
        self.classifier = nn.Linear(self.backbone.feature_dim, config.classes)
        nn.init.normal_(self.classifier.weight, std=0.01)  # Goyal, section 5.1
        nn.init.zeros_(self.classifier.bias)

    @classmethod
    def fill(cls, config: SupervisedSettings, situation: Situation) -> SupervisedSettings:
        """Number of classes and crop from the data. Raises `UserError` for fewer than 2 classes or than the data's."""
        classes = config.classes or situation.classes
        if situation.classes < 2 or classes < situation.classes:
            raise UserError(
                f"the dataset has {situation.classes} classes and method.classes is {config.classes}: 'supervised' "
                "learns to tell at least two classes apart, and all of the dataset's. Use labeled data, or a method "
                "that needs no labels (sslbench list)"
            )
        crop_px = view_px(config.crop_px, situation)
        return config.model_copy(update={"classes": classes, "crop_px": crop_px})

    @classmethod
    def make_views(cls, config: SupervisedSettings) -> MakeViews:
        """One random resized crop, flipped half of the time."""
        assert config.crop_px is not None, "fill() decides the crop"
        return MultiCrop([(Crop(config.crop_px, config.scale), 1)])

    def step(self, batch: Batch, progress: Progress) -> StepOutput:
        """Cross-entropy of the batch's labels."""
        assert batch.labels is not None, "a method with needs_labels gets labels"
        scores = self.classifier(self.backbone(batch.views[0])).to(self.classifier.weight.dtype)
        loss = functional.cross_entropy(scores, batch.labels, label_smoothing=self.config.label_smoothing)
        return StepOutput(loss, {"accuracy": (scores.detach().argmax(dim=-1) == batch.labels).float().mean()})

    def networks(self) -> dict[str, Backbone]:
        """The backbone, without the classifier."""
        return {"backbone": self.backbone}
