"""Random: the untrained network, the lower baseline ("random" in figure 4 of Caron et al. 2021, arXiv 2104.14294).

Nothing is trained: both presets have 0 epochs, so that a run measures the network as it starts and is recorded. Its
weights are those that the same seed, data and architecture start from in a run of a method that builds its backbone
first. Asked for epochs, it says so at the first step instead of writing down a training that did not happen.
"""

from __future__ import annotations

from typing import ClassVar, NoReturn

from ssl_bench.backbone import Backbone
from ssl_bench.blocks.views import Crop, MultiCrop
from ssl_bench.errors import UserError
from ssl_bench.method import Batch, MakeBackbone, MakeViews, Method, Preset, Progress
from ssl_bench.settings import Settings


class RandomInitSettings(Settings):
    """There is nothing to set."""


UNTRAINED = Preset("the network as it starts", {"training.epochs": 0})
PRESETS = {"paper": UNTRAINED, "small-data": UNTRAINED}


class RandomInit(Method):
    """Random: the network as it starts, not trained at all."""

    Config = RandomInitSettings
    presets = PRESETS
    expected_failures: ClassVar[dict[str, str]] = {"loss is a finite scalar": "nothing is trained, so there is no loss"}

    def __init__(self, config: RandomInitSettings, make_backbone: MakeBackbone) -> None:
        super().__init__(config, make_backbone)
        self.backbone = make_backbone()

    @classmethod
    def make_views(cls, config: RandomInitSettings) -> MakeViews:
        """One plain crop, because a method has views; no step ever sees it."""
        return MultiCrop([(Crop(32, (0.08, 1.0)), 1)])

    def step(self, batch: Batch, progress: Progress) -> NoReturn:
        """There is none: raises `UserError`."""
        raise UserError(
            "the method 'random' is the untrained network and has no training step: leave out --epochs, or give "
            "--epochs 0"
        )

    def networks(self) -> dict[str, Backbone]:
        """The untrained backbone."""
        return {"backbone": self.backbone}
