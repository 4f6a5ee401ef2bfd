"""What a network of timm is, asked of the network itself: built on torch's meta device, which computes shapes alone.

Nothing is read from a name: `vit_base_r50_s16_224` is a transformer with patches of 16 px behind a ResNet's stem, and
`levit_128s` has no fixed grid of patches.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import lru_cache
from typing import Any

import timm
import torch
from timm.models.eva import Eva
from timm.models.vision_transformer import VisionTransformer
from torch import Tensor, nn

from ssl_bench.backbone import Kind, Positions
from ssl_bench.errors import UserError

from . import vit_tokens


@dataclass(frozen=True)
class Facts:
    """What is known of a network before it is built for a run."""

    kind: Kind
    patch_px: int | None
    """Side of a patch where the features are a grid of patches, else None."""
    prefix_tokens: tuple[str, ...]
    """Names of the tokens in front of the patches."""
    tokens: int | None
    """Tokens that leave the last block; None for feature maps, or where the image is not whole patches."""
    positions: tuple[Positions, ...]
    """Rules that can resample its learned positions; empty where it has none to resample."""
    reads_token: bool
    """Whether features can be the class token as the last norm leaves it."""


@lru_cache(maxsize=64)
def facts(name: str, image_px: int) -> Facts:
    """The facts of timm's `name` for square images of `image_px`. Raises `UserError` where timm cannot build it."""
    network = _on_meta(name, image_px)
    patch_px = _patch_px(network)
    prefix_tokens = _prefix_tokens(network)
    if patch_px is not None and image_px % patch_px:
        return Facts("vit", patch_px, prefix_tokens, None, position_rules(network), can_read_token(network))
    features = _shape_of_features(network, image_px)
    tokens = features[1] if len(features) == 3 else None
    if patch_px is not None and tokens != len(prefix_tokens) + (image_px // patch_px) ** 2:
        patch_px = None  # patches that are merged on the way, as in Swin
    kind: Kind = "vit" if tokens is not None or _mostly_attends(network) else "convnet"
    return Facts(kind, patch_px, prefix_tokens, tokens, position_rules(network), can_read_token(network))


def create(name: str, image_px: int, drop_path: float, **more: Any) -> Any:
    """timm's network without classifier, with as much as its constructor understands of size and drop path.

    `more` goes to `timm.create_model`. Raises `UserError` where timm refuses the size or the network has no
    stochastic depth.
    """
    sized: dict[str, Any] = {"img_size": image_px}
    dropped: dict[str, Any] = {"drop_path_rate": drop_path}
    attempts = [{"dynamic_img_size": True, **sized, **dropped}, {**sized, **dropped}, dropped]
    if not drop_path:
        attempts.append({})
    for arguments in attempts:
        try:
            return timm.create_model(name, num_classes=0, **arguments, **more)
        except TypeError as error:
            if "unexpected keyword argument" not in str(error):
                raise
        except (ValueError, AssertionError, RuntimeError) as error:
            if more.get("pretrained"):
                raise
            raise UserError(
                f"timm cannot build {name} for images of {image_px} px{_reason(error)}. {size_advice(name)}"
            ) from error
    raise UserError(f"{name} has no stochastic depth: set the method's drop_path to 0 (--set method.drop_path=0)")


def size_arguments(name: str, image_px: int) -> dict[str, Any]:
    """What of an image size the constructor of timm's `name` understands, as `create` hands it over."""
    sized: dict[str, Any] = {"img_size": image_px}
    for arguments in ({"dynamic_img_size": True, **sized}, sized):
        try:
            with torch.device("meta"):
                timm.create_model(name, num_classes=0, **arguments)
        except TypeError:  # no such argument
            continue
        except NotImplementedError:  # a constructor that reads values, which a network on the meta device lacks
            pass
        return arguments
    return {}


def does_not_fit(name: str, image_px: int, shape: tuple[int, ...], error: Exception) -> UserError:
    """The message for a network, built for `image_px`, that fails on images of `shape` (batch, 3, height, width)."""
    height, width = shape[-2:]
    start = f"timm's {name} fails on images of {width} x {height} px{_reason(error)}. "
    if (height, width) == (image_px, image_px):
        return UserError(start + size_advice(name))
    return UserError(
        f"{start}It was built for {image_px} x {image_px} px, and not every network takes other sizes. Give every view "
        f"that size (a method with local views: --set method.local_views=0, or a larger method.local_crop_px where "
        f"they are too small; an evaluator: its size_px or short_side_px), or choose a network that takes any size, "
        "e.g. --arch timm:vit_tiny_patch16_224"
    )


def size_advice(name: str) -> str:
    """The image size that timm's configuration of the network names, as something to type."""
    config = timm.get_pretrained_cfg(name)
    own_px = config.input_size[-1] if config else 224
    return f"It is meant for {own_px} px: --set data.image_px={own_px}"


def position_rules(network: Any) -> tuple[Positions, ...]:
    """The rules that can resample the network's learned positions; DINO's where features are a plain ViT's CLS."""
    if getattr(network, "pos_embed", None) is None or not isinstance(network, VisionTransformer | Eva):
        return ()
    return ("timm", "dino", "mae") if reads_cls_alone(network) else ("timm",)


def can_read_token(network: Any) -> bool:
    """Whether the network has a class token that passes its last norm, whatever timm's classifier pools."""
    return (
        isinstance(network, VisionTransformer | Eva)
        and network.cls_token is not None
        and network.attn_pool is None
        and type(network.norm) is not nn.Identity
        and type(network.fc_norm) is nn.Identity
    )


def reads_cls_alone(network: Any) -> bool:
    """Whether features are the CLS token of a plain ViT as its last norm leaves it."""
    return (
        type(network) is VisionTransformer
        and network.cls_token is not None
        and network.global_pool == "token"
        and vit_tokens.shows_attention(network)
        and type(network.fc_norm) is nn.Identity
    )


def _on_meta(name: str, image_px: int) -> Any:
    try:
        with torch.device("meta"):
            return create(name, image_px, 0.0).eval()
    except NotImplementedError:  # a constructor that reads a tensor's values
        with torch.random.fork_rng(devices=[]):
            return create(name, image_px, 0.0).eval()


def _shape_of_features(network: Any, image_px: int) -> tuple[int, ...]:
    """Shape of `forward_features` of one image; () where it gives something other than one tensor, or fails."""
    device = next(network.parameters()).device
    try:
        with torch.no_grad():
            features = network.forward_features(torch.zeros(1, 3, image_px, image_px, device=device))
    except (ValueError, AssertionError, RuntimeError, NotImplementedError):  # said where it is used on images
        return ()
    return tuple(features.shape) if isinstance(features, Tensor) else ()


def _patch_px(network: Any) -> int | None:
    """Side of a patch at the network's entrance, None where there is no such thing."""
    if isinstance(network, VisionTransformer | Eva):
        return vit_tokens.patch_px(network)
    entrances: list[Any] = [getattr(network, name, None) for name in ("patch_embed", "stem")]
    for embed in entrances:
        if hasattr(embed, "feat_ratio"):
            return int(embed.feat_ratio())
        size = getattr(embed, "patch_size", None)
        if size is not None:
            return int(size if isinstance(size, int) else size[0])
    return None


def _prefix_tokens(network: Any) -> tuple[str, ...]:
    names = ["CLS"] if getattr(network, "cls_token", None) is not None else []
    if getattr(network, "dist_token", None) is not None:
        names.append("distillation")
    count = getattr(network, "num_prefix_tokens", len(names))
    return (*names, *["register"] * (count - len(names)))


def _mostly_attends(network: nn.Module) -> bool:
    """Whether layers of attention outnumber dense convolutions over more than one pixel."""
    projections = (nn.Linear, nn.Conv2d)
    attentions = sum(
        hasattr(layer, "num_heads") and any(isinstance(part, projections) for part in layer.modules())
        for layer in network.modules()
    )
    dense = sum(
        isinstance(layer, nn.Conv2d) and layer.groups == 1 and max(layer.kernel_size) > 1 for layer in network.modules()
    )
    return attentions > dense


def _reason(error: Exception) -> str:
    first = str(error).strip().partition("\n")[0].rstrip(".")
    return f" ({first})" if first else ""
