"""The contract of a backbone: images in, features out, and what else the architecture can show."""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import Any, ClassVar, Literal, NamedTuple

from torch import Tensor, nn

from ssl_bench.errors import NotExpressible, UserError
from ssl_bench.measurement import NO_PROTOCOL, Protocol
from ssl_bench.settings import Settings

Capability = Literal["patch_tokens", "attention", "masking", "feature_maps"]
"""What an architecture may offer beyond features: "patch_tokens": `tokens` and `patch_tokens`; "attention":
`attention`; "masking": `tokens` takes `mask`, `mask_token` and `keep`; "feature_maps": `feature_maps`."""
Kind = Literal["vit", "convnet"]
IMAGENET_MEAN = (0.485, 0.456, 0.406)
IMAGENET_STD = (0.229, 0.224, 0.225)
"""Of ImageNet's training set, for channels in 0..1."""
Positions = Literal["dino", "mae", "timm"]
"""Rule that resamples learned positions for an image size other than the one a network was built for.

"dino": bicubic without antialiasing (a = -0.75), scale factor (side + 0.1) / grid (`interpolate_pos_encoding` in
vision_transformer.py of github.com/facebookresearch/dino). "mae": the same with scale factor side / grid
(`interpolate_pos_embed` in util/pos_embed.py of github.com/facebookresearch/mae; transformers' networks). "timm":
bicubic with antialiasing (a = -0.5), scale factor side / grid (timm's `resample_abs_pos_embed`).
"""


class Tokens(NamedTuple):
    """What a transformer of patches makes of images, after its last norm."""

    cls: Tensor | None
    """(batch, dim): the class token; None where the network has none."""
    patches: Tensor
    """(batch, patches, dim), row by row; with `keep` only those patches, in its order."""
    registers: Tensor
    """(batch, registers, dim): registers and a distillation token; 0 of them where the network has none."""
    grid: tuple[int, int]
    """Rows and columns of the whole image's patches, kept or not."""


class BothFeatures(NamedTuple):
    """What a k-NN and what a linear probe read of the same images."""

    features: Tensor
    """(batch, feature_dim): what `forward` gives."""
    probe_features: Tensor
    """(batch, dim): what `probe_features` gives; the same tensor where that is `forward`."""


class TimmModel(NamedTuple):
    """How timm builds a network: `timm.create_model(name, num_classes=0, **arguments)`."""

    name: str
    arguments: dict[str, Any]
    """As JSON can hold them."""


class Backbone(nn.Module):
    """A network without a classifier. The class docstring's first line names it.

    Subclasses are built as `Arch(config, image_px=..., drop_path=...)` and draw their initial weights from the
    global random state, which the runner seeds. They accept any square or rectangular input whose sides are
    multiples of `patch_px` (or of nothing, for a convolutional network).
    """

    Config: ClassVar[type[Settings]]
    kind: Kind
    """"vit": attention or an MLP mixes tokens; "convnet": convolutions mix positions. Presets follow it."""
    patch_px: int | None
    """Side of a patch in pixels; None for a network without a fixed grid of patches."""
    prefix_tokens: tuple[str, ...] = ("CLS",)
    """Names of the tokens in front of the patches, in order, e.g. ("CLS", "register"). Unused without patches."""
    positions: Positions | None = None
    """Rule for learned positions at other image sizes; None for a network without learned positions to resample."""
    pretrained: str = ""
    """The weights it starts from, e.g. "vit_tiny_patch16_224.augreg_in21k"; empty for random initial weights."""
    image_px: int
    """Side of the square image it was built for."""
    mean: tuple[float, float, float] = IMAGENET_MEAN
    """Of the images it takes, by channel; ImageNet's unless its weights were made with another."""
    std: tuple[float, float, float] = IMAGENET_STD
    preprocessing: Any = None
    """A `blocks.preprocessing.Preprocessing`: how published weights of this network are evaluated, where known."""
    feature_dim: int
    """Length of one feature vector."""
    supports: frozenset[str] = frozenset()
    """What it offers, by the names of `Capability`."""
    why_not: Mapping[Capability, str] = {}
    """Why a capability is missing, for messages: {"attention": "it is a convolutional network"}."""

    trainable: ClassVar[bool] = True
    """False for a network that is run as it is, without parameters of torch's."""
    check_settings: ClassVar[Mapping[str, Any] | None] = None
    """Settings with which the checks of methods and evaluators build it, narrow; None: they use other networks."""
    settings_before: ClassVar[Mapping[str, Any]] = {}
    """Of settings that were added later: the values that stand for what runs from before them did."""

    def __init__(self, config: Any, *, image_px: int, drop_path: float = 0.0) -> None:
        super().__init__()

    def __init_subclass__(cls, **arguments: Any) -> None:
        """A subclass with another `forward` or `probe_features` does not inherit a `both_features` made for the old."""
        super().__init_subclass__(**arguments)
        if not {"forward", "probe_features"}.isdisjoint(vars(cls)) and "both_features" not in vars(cls):
            cls.both_features = Backbone.both_features  # type: ignore[method-assign]

    @classmethod
    def patch_px_for(cls, config: Any, image_px: int) -> int | None:
        """The patch side this architecture will have, without building it; None for a convolutional network."""
        return None

    @classmethod
    def only_px_for(cls, config: Any) -> int | None:
        """The one image size that it takes, without building it; None for a network that can be built for others."""
        return None

    @classmethod
    def kind_for(cls, config: Any, image_px: int) -> Kind:
        """The `kind` this architecture will have, without building it."""
        kind: Kind | None = getattr(cls, "kind", None)
        return kind or ("convnet" if cls.patch_px_for(config, image_px) is None else "vit")

    @classmethod
    def fill(cls, config: Any, image_px: int, defaults: Mapping[str, Any]) -> Any:
        """The config with settings left open (None) taken from `defaults`, the method's `backbone_defaults`.

        Raises `UserError` for settings that cannot work at `image_px`.
        """
        left_open = {name for name in cls.Config.model_fields if getattr(config, name) is None}
        decided = {name: value for name, value in defaults.items() if name in left_open}
        return config.model_copy(update=decided) if decided else config

    @classmethod
    def names_like(cls, family: str, shapes: Mapping[str, tuple[int, ...]]) -> Sequence[str]:
        """Of a backbone that is many networks: names of those that tensors of these names and shapes may belong to.

        `family` is "vit", "resnet", "convnext", "swin", "beit", "dinov3", "efficientnet" or "".
        """
        return ()

    @classmethod
    def without_pretrained(cls, config: Any) -> Any:
        """A config that builds the same architecture with random weights: kept weights are loaded into it."""
        return config

    def fit_weights(self, weights: Mapping[str, Tensor]) -> dict[str, Tensor]:
        """Weights of this architecture, perhaps for another image size, as `load_state_dict` takes them here.

        By default as they are. An architecture with learned positions resamples them; tensors that it does not know
        stay, so that weights of another architecture are still refused.
        """
        return dict(weights)

    @property
    def parameter_count(self) -> int:
        """Numbers that training moved."""
        return sum(parameter.numel() for parameter in self.parameters())

    def token_count(self, height: int, width: int) -> int | None:
        """Tokens of an image in a block, prefix tokens included; None for a network without patches."""
        if self.patch_px is None:
            return None
        return len(self.prefix_tokens) + (height // self.patch_px) * (width // self.patch_px)

    def positions_protocol(self, height: int, width: int) -> Protocol:
        """Part of a protocol, e.g. ", positions dino"; empty at the size the network was built for."""
        if self.positions is None or (height, width) == (self.image_px, self.image_px):
            return NO_PROTOCOL
        return Protocol.of(", positions {positions}", positions=self.positions)

    @abstractmethod
    def forward(self, images: Tensor) -> Tensor:
        """(batch, 3, height, width) -> (batch, feature_dim): the CLS token after the last norm, or pooled features."""

    def probe_features(self, images: Tensor) -> Tensor:
        """(batch, 3, height, width) -> (batch, dim): what DINO's linear probe reads (paper, appendix F.2)."""
        features: Tensor = self(images)
        return features

    @property
    def probe_reads(self) -> str:
        """What `probe_features` are, in words for a record; overridden together with them."""
        return "the features that k-NN reads"

    def both_features(self, images: Tensor) -> BothFeatures:
        """(batch, 3, height, width) -> `forward` and `probe_features` of the same images, bitwise.

        A network that can compute both in one pass overrides this; here it is two, or one where both are `forward`.
        """
        features: Tensor = self(images)
        if type(self).probe_features is Backbone.probe_features:
            return BothFeatures(features, features)
        return BothFeatures(features, self.probe_features(images))

    def tokens(
        self,
        images: Tensor,
        *,
        mask: Tensor | None = None,
        mask_token: Tensor | None = None,
        keep: Tensor | None = None,
    ) -> Tokens:
        """(batch, 3, height, width) -> class token, patches and registers after the last norm, in one pass.

        With the capability "masking", `ssl_bench.blocks.patch_selection` has the pieces:

        - `mask` (batch, patches) bool: the embeddings of these patches are replaced by `mask_token` (dim,) before
          positions are added (BEiT, iBOT, SimMIM). The mask token is a parameter of the method, handed in: weights of a
          backbone are those of its architecture, whoever trains it.
        - `keep` (batch, kept) int64: only these patches, each with its position, enter the blocks (MAE). The class
          token and the registers always do.
        - Both: patches are replaced first, then chosen.

        Raises `UserError` for a mask, token or positions of the wrong type or shape, or one without the other.
        """
        raise NotImplementedError(f"{type(self).__name__} has no patch tokens")

    def patch_tokens(self, images: Tensor) -> Tensor:
        """(batch, 3, height, width) -> (batch, dim, rows, columns): `tokens(images).patches` as a map."""
        tokens = self.tokens(images)
        return tokens.patches.transpose(1, 2).reshape(len(images), -1, *tokens.grid)

    def attention(self, images: Tensor) -> Tensor:
        """(batch, 3, height, width) -> (batch, heads, rows, columns): CLS query of the last block on the patches.

        Each head's map is the softmax over all tokens with the CLS key's own weight left out, so it sums to < 1.
        """
        raise NotImplementedError(f"{type(self).__name__} has no CLS attention")

    def feature_maps(self, images: Tensor) -> tuple[Tensor, ...]:
        """(batch, 3, height, width) -> one (batch, channels, rows, columns) a stage, the finest first.

        A network without stages gives the outputs of four blocks, at the quarters of its depth, all of one size. They
        are as the stage or block leaves them, before any final norm.
        """
        raise NotImplementedError(f"{type(self).__name__} has no feature maps")

    def timm_model(self) -> TimmModel:
        """How timm builds the same network with tensors of the same names, a common first part of ours left out.

        Its features are equal at `image_px`; it refuses every other size at which they would not be. For
        `sslbench export --to timm`. Raises `NotExpressible` where timm has no such network.
        """
        raise NotExpressible(f"{type(self).__name__} does not say which network of timm it is")

    def set_activation_checkpointing(self, enabled: bool) -> None:
        """Compute activations again in the backward pass instead of keeping them: less memory, about a third more work.

        Losses and gradients stay the same, bitwise on a CPU, drop path included (`ssl_bench.blocks.recompute`). Raises
        `UserError` for a network that cannot.
        """
        if enabled:
            raise UserError(
                f"{type(self).__name__} cannot recompute activations: leave machine.activation_checkpointing at false"
            )


@contextmanager
def eval_mode(network: nn.Module) -> Iterator[None]:
    """Eval mode inside, each module's own mode again outside."""
    modes = [(module, module.training) for module in network.modules()]
    network.eval()
    try:
        yield
    finally:
        for module, training in modes:
            module.training = training
