"""The checks of a backbone: shapes, other image sizes, repeatability, and that it can do what it says it supports."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from functools import cached_property
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from ssl_bench.backbone import Backbone
from ssl_bench.settings import Settings, parse_settings
from ssl_bench.testing import common, subjects
from ssl_bench.testing.method_bench import same, some
from ssl_bench.testing.outcomes import CheckFailed, CheckSkipped, require

NARROW: Mapping[str, Any] = {"patch_px": 8, "depth": 2, "dim": 64, "width": 0.125}
"""Settings that the checks make small where a Config has them by these names."""
IMAGES = 3


class Subject:
    """A backbone class with the network that its checks look at."""

    def __init__(self, plugin: type[Backbone], settings: Mapping[str, Any], path: Path | None = None) -> None:
        self.plugin, self.settings = plugin, dict(settings)

    @cached_property
    def config(self) -> Settings:
        """The settings given, over narrow ones where the Config has those."""
        narrow = {name: value for name, value in NARROW.items() if name in self.plugin.Config.model_fields}
        owner = self.plugin.__name__
        try:
            return parse_settings(self.plugin.Config, {**narrow, **self.settings}, "backbone", owner)
        except ValueError:  # a setting of that name which means something else
            return parse_settings(self.plugin.Config, self.settings, "backbone", owner)

    def configs(self) -> list[Settings]:
        """What goes through JSON."""
        return [self.config]

    @cached_property
    def image_px(self) -> int:
        """32, or four patches where 32 has no whole number of them."""
        patch_px = self.plugin.patch_px_for(self.config, subjects.IMAGE_PX)
        return subjects.IMAGE_PX if patch_px is None or subjects.IMAGE_PX % patch_px == 0 else 4 * patch_px

    def build(self, seed: int = 0, drop_path: float = 0.0) -> Backbone:
        """A new network in eval mode, its weights drawn from `seed`."""
        torch.manual_seed(seed)
        return self.plugin(self.config, image_px=self.image_px, drop_path=drop_path).eval()

    def images(self, height: int | None = None, width: int | None = None) -> Tensor:
        """Three pictures (3, 3, height, width) around 0; square ones of the network's side unless told otherwise."""
        high, wide = height or self.image_px, width or self.image_px
        pixels = [torch.tensor(list(subjects.picture(i, wide, high).tobytes())) for i in range(IMAGES)]
        return torch.stack([one.view(high, wide, 3).permute(2, 0, 1) for one in pixels]) / 127.5 - 1

    @cached_property
    def network(self) -> Backbone:
        """One network for the checks that change nothing. Raises `CheckSkipped` when it cannot be built."""
        try:
            return self.build()
        except Exception as error:
            raise CheckSkipped(f"it cannot be built yet ({type(error).__name__})") from error


@torch.no_grad()
def it_can_be_built(subject: Subject) -> None:
    """The constructor takes (config, image_px=..., drop_path=...) and sets what the contract names."""
    network = subject.build()
    require(network.image_px == subject.image_px, f"image_px is {network.image_px}: set self.image_px = image_px")
    require(
        isinstance(network.feature_dim, int) and network.feature_dim > 0,
        f"feature_dim is {network.feature_dim!r}: set self.feature_dim to the length of one feature vector",
    )
    require(
        getattr(network, "kind", None) in ("vit", "convnet"), 'kind is not named: add kind = "vit" or kind = "convnet"'
    )
    require(
        network.patch_px is None or network.kind == "vit",
        f'a network with patches of {network.patch_px} px calls itself a convnet: set kind = "vit"',
    )
    require(isinstance(network.pretrained, str), "pretrained is not a string: name the weights that it starts from")
    require(isinstance(network.supports, frozenset), "supports is not a frozenset: frozenset({'patch_tokens'})")
    for place, names in (("supports", network.supports), ("why_not", frozenset(network.why_not))):
        unknown = names - {"patch_tokens", "attention"}
        require(not unknown, f"{place} names {sorted(unknown)}: known are patch_tokens and attention")


def initial_weights_come_from_the_global_random_state(subject: Subject) -> None:
    """The same torch seed gives the same weights, another seed others; pretrained weights are said and always alike."""
    if subject.build().pretrained:
        one, other = (subject.build(seed).state_dict() for seed in (1, 2))
        changed = [name for name in one if not same(one[name], other[name])]
        require(not changed, f"{some(changed)} differs between two networks of the same pretrained weights")
        return
    one, again, other = (subject.build(seed).state_dict() for seed in (1, 1, 2))
    changed = [name for name in one if not same(one[name], again[name])]
    require(
        not changed,
        f"{some(changed)} differs between two networks of one seed: draw initial weights from torch's global generator",
    )
    require(
        any(not same(one[name], other[name]) for name in one),
        "another seed gives the same weights: draw them anew in every __init__; where they are pretrained, name them "
        'in self.pretrained, e.g. "vit_tiny_patch16_224.augreg_in21k"',
    )


@torch.no_grad()
def features_have_the_declared_dimension(subject: Subject) -> None:
    """(batch, 3, height, width) -> (batch, feature_dim) of finite floats that differ from image to image."""
    features = subject.network(subject.images())
    wanted = (IMAGES, subject.network.feature_dim)
    require(
        tuple(features.shape) == wanted,
        f"features of {IMAGES} images are {tuple(features.shape)}, not (batch, feature_dim) = {wanted}: pool or take "
        "the CLS token, and set self.feature_dim to its length",
    )
    require(features.is_floating_point() and bool(torch.isfinite(features).all()), "features are not finite floats")
    require(not bool((features == features[0]).all()), "features are the same for every image")


@torch.no_grad()
def other_image_sizes_work(subject: Subject) -> None:
    """Larger, smaller and rectangular images work: multi-crop, masks and clips need them."""
    network, unit = subject.network, subject.network.patch_px or 8
    for rows, columns in ((2, 2), (6, 6), (3, 5)):
        images = subject.images(rows * unit, columns * unit)
        try:
            shape = tuple(network(images).shape)
        except Exception as error:
            raise CheckFailed(
                f"images of {rows * unit} x {columns * unit} px fail ({type(error).__name__}: {error}): resample "
                "position embeddings (timm: dynamic_img_size=True) or pool over whatever map there is"
            ) from error
        require(shape == (IMAGES, network.feature_dim), f"{rows * unit} x {columns * unit} px give features {shape}")


@torch.no_grad()
def tokens_are_what_its_layers_see(subject: Subject) -> None:
    """`token_count` is the length of the sequences that pass the network's layers, at its own and at other sizes.

    Asked of the inputs (batch, tokens, dim) of every normalization and linear layer.
    """
    network, unit = subject.network, subject.network.patch_px
    if unit is None:
        return
    for height, width in ((subject.image_px, subject.image_px), (3 * unit, 5 * unit)):
        seen: set[int] = set()

        def look(_: torch.nn.Module, given: tuple[Tensor, ...], seen: set[int] = seen) -> None:
            if given and isinstance(given[0], Tensor) and given[0].ndim == 3:
                seen.add(given[0].shape[1])

        layers = [one for one in network.modules() if isinstance(one, torch.nn.LayerNorm | torch.nn.Linear)]
        hooks = [layer.register_forward_pre_hook(look) for layer in layers]
        try:
            network(subject.images(height, width))
        finally:
            for hook in hooks:
                hook.remove()
        if not seen:  # layers of other kinds
            return
        said = network.token_count(height, width)
        require(
            said in seen,
            f"token_count({height}, {width}) says {said}, its layers see {sorted(seen)} tokens: name the tokens in "
            f"front of the patches in self.prefix_tokens (now {network.prefix_tokens}), and set self.patch_px",
        )


@torch.no_grad()
def maps_follow_rectangles(subject: Subject) -> None:
    """`patch_tokens` and `attention` of a rectangle have its rows and columns of patches, and each place its own."""
    network, unit = subject.network, subject.network.patch_px
    if unit is None:
        return
    for rows, columns in ((3, 5), (6, 2)):
        images = subject.images(rows * unit, columns * unit)
        for name in sorted(network.supports):
            shape = tuple(getattr(network, name)(images).shape[2:])
            require(
                shape == (rows, columns),
                f"{name}() of {rows * unit} x {columns * unit} px images is {shape[0]} x {shape[1]}: give rows first, "
                "then columns",
            )


@torch.no_grad()
def eval_mode_is_deterministic(subject: Subject) -> None:
    """In eval mode the same images give the same features, whatever else is in their batch."""
    network, images = subject.network, subject.images()
    torch.manual_seed(1)
    first = network(images)
    torch.manual_seed(2)
    require(
        same(first, network(images)),
        "the same images give other features in eval mode: switch dropout and other noise off unless self.training",
    )
    alone = network(images[:1])
    require(
        torch.allclose(alone, first[:1], rtol=1e-3, atol=1e-4),
        "an image's features depend on the other images of its batch: use running statistics in eval mode",
    )


@torch.no_grad()
def supports_what_it_says(subject: Subject) -> None:
    """`patch_tokens` and `attention` work exactly where `supports` names them, with the contract's shapes."""
    network, images = subject.network, subject.images()
    calls: dict[str, Callable[[Tensor], Tensor]] = {
        "patch_tokens": network.patch_tokens,
        "attention": network.attention,
    }
    for name, call in calls.items():
        try:
            maps = call(images)
        except NotImplementedError:
            require(name not in network.supports, f"supports names {name!r}, but {name}() is not written")
            continue
        require(
            name in network.supports,
            f"{name}() works but supports does not name it: supports = frozenset({{{name!r}, ...}})",
        )
        side = None if network.patch_px is None else subject.image_px // network.patch_px
        require(
            maps.ndim == 4 and len(maps) == IMAGES and (side is None or tuple(maps.shape[2:]) == (side, side)),
            f"{name}() gives {tuple(maps.shape)}: (batch, dim or heads, rows, columns) with {side} rows and columns",
        )
        require(bool(torch.isfinite(maps).all()), f"{name}() gives NaN or infinity")
        if name == "attention":
            sums = maps.sum(dim=(2, 3))
            require(
                float(maps.min()) >= 0 and float(sums.max()) <= 1 + 1e-4,
                f"attention() sums to {float(sums.max()):.3f} a head: give softmax weights of the patches, >= 0, <= 1",
            )


def patch_px_for_agrees(subject: Subject) -> None:
    """`patch_px_for` and `kind_for` say beforehand what the built network has."""
    said, has = subject.plugin.patch_px_for(subject.config, subject.image_px), subject.network.patch_px
    require(said == has, f"patch_px_for() says {said}, the network has {has}: return the same from both")
    said_kind = subject.plugin.kind_for(subject.config, subject.image_px)
    require(
        said_kind == subject.network.kind,
        f"kind_for() says {said_kind}, the network is a {subject.network.kind}: return the same from both",
    )


def settings_are_filled_once(subject: Subject) -> None:
    """`fill` takes the method's defaults for what is left open only, and changes nothing that is decided."""
    for defaults in ({}, {"positions": "dino"}, {"positions": "timm"}):
        filled = subject.plugin.fill(subject.config, subject.image_px, defaults)
        again = subject.plugin.fill(filled, subject.image_px, {"positions": "dino"})
        changed = [name for name in type(filled).model_fields if getattr(filled, name) != getattr(again, name)]
        require(not changed, f"fill() changes {some(changed)} a second time: decide only what is None")
        network = subject.plugin(filled, image_px=subject.image_px)
        rule = getattr(filled, "positions", None)
        require(
            network.positions is None or rule is None or network.positions == rule,
            f"backbone.positions = {rule!r}, but the network resamples as {network.positions!r}",
        )


@torch.no_grad()
def drop_path_is_accepted(subject: Subject) -> None:
    """`drop_path=0.2` gives the same weights by name as 0, and leaves eval mode deterministic."""
    dropped = subject.build(drop_path=0.2)
    require(
        dropped.state_dict().keys() == subject.network.state_dict().keys(),
        "drop_path changes the names in state_dict: a teacher without it could not take a student's weights",
    )
    require(
        same(dropped(subject.images()), dropped(subject.images())),
        "drop_path drops in eval mode too: skip blocks only while self.training",
    )
    dropped.train()(subject.images())


def every_parameter_gets_a_gradient(subject: Subject) -> None:
    """Every parameter takes part in the features."""
    network = subject.build().train()
    network(subject.images()).square().sum().backward()
    without = [name for name, one in network.named_parameters() if one.requires_grad and one.grad is None]
    require(not without, f"{some(without)} takes no part in the features: remove it, e.g. with num_classes=0")


@torch.no_grad()
def probe_features_are_vectors(subject: Subject) -> None:
    """`probe_features` gives (batch, dim) of finite numbers."""
    features = subject.network.probe_features(subject.images())
    require(
        features.ndim == 2 and len(features) == IMAGES and bool(torch.isfinite(features).all()),
        f"probe_features() gives {tuple(features.shape)}, or numbers that are not finite: give (batch, dim)",
    )


CHECKS = (
    common.docstring_and_paper_present,
    common.settings_are_described,
    it_can_be_built,
    common.settings_round_trip_through_json,
    initial_weights_come_from_the_global_random_state,
    features_have_the_declared_dimension,
    other_image_sizes_work,
    tokens_are_what_its_layers_see,
    maps_follow_rectangles,
    eval_mode_is_deterministic,
    supports_what_it_says,
    patch_px_for_agrees,
    settings_are_filled_once,
    drop_path_is_accepted,
    every_parameter_gets_a_gradient,
    probe_features_are_vectors,
)
