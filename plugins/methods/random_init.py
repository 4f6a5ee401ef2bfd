"""Random: the untrained network, the lower baseline ("random" in figure 4 of Caron et al. 2021, arXiv 2104.14294).

Nothing is trained: both presets have 0 epochs, so a run evaluates and records the network with its initial weights.
They are the ones that any method which builds its backbone first starts from, given the same seed, data and
architecture. With epochs above 0 the first step fails, so that no training is recorded that did not happen.
"""

from __future__ import annotations

from typing import ClassVar, NoReturn

from ssl_bench.backbone import Backbone
from ssl_bench.blocks.views import Crop, MultiCrop
from ssl_bench.errors import UserError
from ssl_bench.method import Batch, MakeBackbone, MakeViews, Method, Preset, Progress
from ssl_bench.settings import Settings


class RandomInitSettings(Settings):
    """No settings."""


UNTRAINED = Preset("the network with its initial weights", {"training.epochs": 0})
PRESETS = {"paper": UNTRAINED, "small-data": UNTRAINED}


class RandomInit(Method):
    """Random: the network with its initial weights, not trained."""

    Config = RandomInitSettings
    presets = PRESETS
    expected_failures: ClassVar[dict[str, str]] = {"loss is a finite scalar": "nothing is trained, so there is no loss"}

    def __init__(self, config: RandomInitSettings, make_backbone: MakeBackbone) -> None:
        super().__init__(config, make_backbone)
        self.backbone = make_backbone()

    @classmethod
    def make_views(cls, config: RandomInitSettings) -> MakeViews:
        """One crop, which the contract requires; no step sees it."""
        return MultiCrop([(Crop(32, (0.08, 1.0)), 1)])

    def step(self, batch: Batch, progress: Progress) -> NoReturn:
        """Raises `UserError`: there is no training step."""
        raise UserError(
            "the method 'random' is the untrained network and has no training step: leave out --epochs, or give "
            "--epochs 0"
        )

    def networks(self) -> dict[str, Backbone]:
        """The untrained backbone."""
        return {"backbone": self.backbone}
