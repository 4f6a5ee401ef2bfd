"""A small convolutional network with average pooling (LeCun et al. 1998, doi:10.1109/5.726791): replace it by yours."""

from itertools import pairwise

from torch import Tensor, nn

from ssl_bench.backbone import Backbone
from ssl_bench.settings import Settings, setting


class MyPluginSettings(Settings):
    """What can be changed, on the command line as --set backbone.NAME=VALUE."""

    channels: int = setting(32, "Channels of the first layer; each later layer has twice as many.", ge=1)


class MyPlugin(Backbone):
    """my_plugin: three convolutions and an average."""

    Config = MyPluginSettings
    kind = "convnet"
    supports = frozenset({"feature_maps"})

    def __init__(self, config: MyPluginSettings, *, image_px: int, drop_path: float = 0.0) -> None:
        super().__init__(config, image_px=image_px, drop_path=drop_path)
        self.patch_px, self.image_px, self.feature_dim = None, image_px, 4 * config.channels
        widths = [3, config.channels, 2 * config.channels, 4 * config.channels]
        self.stages = nn.ModuleList()
        for before, after in pairwise(widths):
            convolution = nn.Conv2d(before, after, 3, stride=2, padding=1, bias=False)
            self.stages.append(nn.Sequential(convolution, nn.BatchNorm2d(after), nn.ReLU()))

    def forward(self, images: Tensor) -> Tensor:
        """(batch, 3, height, width) -> (batch, feature_dim)."""
        return self.feature_maps(images)[-1].mean(dim=(2, 3))

    def feature_maps(self, images: Tensor) -> tuple[Tensor, ...]:
        """(batch, 3, height, width) -> three maps, at 1/2, 1/4 and 1/8 of the image."""
        maps = [images]
        for stage in self.stages:
            maps.append(stage(maps[-1]))
        return tuple(maps[1:])
