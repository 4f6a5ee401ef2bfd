"""The contract of a backbone: images in, features out, and what else the architecture can show."""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Mapping
from typing import Any, ClassVar, Literal

from torch import Tensor, nn

from ssl_bench.settings import Settings

Capability = Literal["patch_tokens", "attention"]


class Backbone(nn.Module):
    """A network without a classifier. The class docstring's first line names it.

    Subclasses are built as `Arch(config, image_px=..., drop_path=...)` and draw their initial weights from the
    global random state, which the runner seeds. They accept any square or rectangular input whose sides are
    multiples of `patch_px` (or of nothing, for a convolutional network).
    """

    Config: ClassVar[type[Settings]]
    kind: ClassVar[Literal["vit", "convnet"]]
    patch_px: int | None
    """Side of a patch in pixels; None for a convolutional network."""
    image_px: int
    """Side of the square image it was built for."""
    feature_dim: int
    """Length of one feature vector."""
    supports: frozenset[str] = frozenset()
    """Of "patch_tokens", "attention"."""
    why_not: Mapping[Capability, str] = {}
    """Why it has not what `supports` leaves out, for messages: {"attention": "it is a convolutional network"}."""

    def __init__(self, config: Any, *, image_px: int, drop_path: float = 0.0) -> None:
        super().__init__()

    @classmethod
    def patch_px_for(cls, config: Any, image_px: int) -> int | None:
        """The patch side this architecture will have, without building it; None for a convolutional network."""
        return None

    @abstractmethod
    def forward(self, images: Tensor) -> Tensor:
        """(batch, 3, height, width) -> (batch, feature_dim): the CLS token after the last norm, or pooled features."""

    def probe_features(self, images: Tensor) -> Tensor:
        """(batch, 3, height, width) -> (batch, dim): what DINO's linear probe reads (paper, appendix F.2)."""
        features: Tensor = self(images)
        return features

    def patch_tokens(self, images: Tensor) -> Tensor:
        """(batch, 3, height, width) -> (batch, dim, rows, columns): last-block patch features after the last norm."""
        raise NotImplementedError(f"{type(self).__name__} has no patch tokens")

    def attention(self, images: Tensor) -> Tensor:
        """(batch, 3, height, width) -> (batch, heads, rows, columns): CLS query of the last block on the patches.

        Each head's map is the softmax over all tokens with the CLS key's own weight left out, so it sums to < 1.
        """
        raise NotImplementedError(f"{type(self).__name__} has no CLS attention")
