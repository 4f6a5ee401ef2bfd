"""The checks of a backbone: shapes, other image sizes, repeatability, and the capabilities it declares."""

from __future__ import annotations

from typing import get_args

import torch
from torch import Tensor

from ssl_bench.backbone import Backbone, Capability, Positions
from ssl_bench.errors import UserError
from ssl_bench.testing import backbone_tokens, common
from ssl_bench.testing.backbone_bench import IMAGES, Subject
from ssl_bench.testing.method_bench import same, some
from ssl_bench.testing.outcomes import CheckFailed, require

__all__ = ["CHECKS", "Subject"]


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
        getattr(network, "kind", None) in ("vit", "convnet"), 'kind is missing: add kind = "vit" or kind = "convnet"'
    )
    require(
        network.patch_px is None or network.kind == "vit",
        f'a network with patches of {network.patch_px} px calls itself a convnet: set kind = "vit"',
    )
    require(isinstance(network.pretrained, str), "pretrained is not a string: name the weights that it starts from")
    require(isinstance(network.supports, frozenset), "supports is not a frozenset: frozenset({'patch_tokens'})")
    for place, names in (("supports", network.supports), ("why_not", frozenset(network.why_not))):
        unknown = names - set(get_args(Capability))
        require(not unknown, f"{place} names {sorted(unknown)}: known are {', '.join(get_args(Capability))}")


def initial_weights_come_from_the_global_random_state(subject: Subject) -> None:
    """Weights follow from the torch seed, unless the network names pretrained weights, which are always the same."""
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
                "position embeddings (timm: dynamic_img_size=True) or pool over a map of any size"
            ) from error
        require(shape == (IMAGES, network.feature_dim), f"{rows * unit} x {columns * unit} px give features {shape}")


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


def patch_px_for_agrees(subject: Subject) -> None:
    """`patch_px_for` and `kind_for` agree with the built network."""
    stated, built = subject.plugin.patch_px_for(subject.config, subject.image_px), subject.network.patch_px
    require(stated == built, f"patch_px_for() says {stated}, the network has {built}: return the same from both")
    stated_kind = subject.plugin.kind_for(subject.config, subject.image_px)
    require(
        stated_kind == subject.network.kind,
        f"kind_for() says {stated_kind}, the network is a {subject.network.kind}: return the same from both",
    )


def settings_are_filled_once(subject: Subject) -> None:
    """`fill` takes the method's defaults only for settings left open, and changes none that are decided."""
    rules = get_args(Positions)
    for defaults in ({}, *({"positions": rule} for rule in rules)):
        filled = subject.plugin.fill(subject.config, subject.image_px, defaults)
        again = subject.plugin.fill(filled, subject.image_px, {"positions": rules[0]})
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
        "drop_path skips blocks in eval mode too: skip blocks only while self.training",
    )
    dropped.train()(subject.images())


def every_parameter_gets_a_gradient(subject: Subject) -> None:
    """Every parameter takes part in the features."""
    network = subject.build().train()
    network(subject.images()).square().sum().backward()
    without = [name for name, one in network.named_parameters() if one.requires_grad and one.grad is None]
    require(not without, f"{some(without)} takes no part in the features: remove it, e.g. with num_classes=0")


def recomputed_activations_change_nothing(subject: Subject) -> None:
    """`set_activation_checkpointing(True)` keeps less, and features, gradients and buffers are bitwise the same."""

    def trained(enabled: bool) -> tuple[dict[str, Tensor], int]:
        network = subject.build(drop_path=0.2).train()
        network.set_activation_checkpointing(enabled)
        kept = 0

        def keep(tensor: Tensor) -> Tensor:
            nonlocal kept
            kept += tensor.numel() * tensor.element_size()
            return tensor

        torch.manual_seed(1)
        with torch.autograd.graph.saved_tensors_hooks(keep, lambda tensor: tensor):
            features = network(subject.images())
        torch.autograd.backward(features.square().sum())
        found = {"features": features, "random state": torch.get_rng_state(), **dict(network.named_buffers())}
        gradients = {f"gradient of {name}": one.grad for name, one in network.named_parameters()}
        return found | {name: one for name, one in gradients.items() if one is not None}, kept

    try:
        subject.build().set_activation_checkpointing(True)
    except UserError:  # it refuses, as the contract allows
        return
    (plain, kept), (recomputed, kept_again) = trained(False), trained(True)
    require(
        plain.keys() == recomputed.keys(), "set_activation_checkpointing(True) changes which parameters get a gradient"
    )
    changed = [name for name, one in plain.items() if not torch.equal(one, recomputed[name])]
    require(
        not changed,
        f"set_activation_checkpointing(True) changes {some(changed)}: run each block through "
        "ssl_bench.blocks.recompute.recompute",
    )
    require(
        kept_again < kept,
        f"set_activation_checkpointing(True) keeps {kept_again:,} bytes for the backward pass, {kept:,} without: "
        "recompute each block, or leave the method to the base class, which refuses",
    )


@torch.no_grad()
def probe_features_are_vectors(subject: Subject) -> None:
    """`probe_features` gives (batch, dim) of finite numbers; features of its own have a name of their own."""
    kind = type(subject.network)
    require(
        kind.probe_features is Backbone.probe_features or kind.probe_reads is not Backbone.probe_reads,
        "probe_features() is overridden and probe_reads is not, so records would call them the features that k-NN "
        "reads: override it with what they are, e.g. 'CLS tokens of the last 4 blocks'",
    )
    features = subject.network.probe_features(subject.images())
    require(
        features.ndim == 2 and len(features) == IMAGES and bool(torch.isfinite(features).all()),
        f"probe_features() gives {tuple(features.shape)}, or numbers that are not finite: give (batch, dim)",
    )


@torch.no_grad()
def both_features_are_the_two(subject: Subject) -> None:
    """`both_features` gives what `forward` and `probe_features` give, bitwise, in eval mode."""
    network, images = subject.network.eval(), subject.images()
    both = network.both_features(images)
    for name, found, expected in (
        ("features", both.features, network(images)),
        ("probe_features", both.probe_features, network.probe_features(images)),
    ):
        require(
            same(found, expected),
            f"the {name} of both_features() differ from those computed alone: the number of an evaluator would depend "
            "on which others run beside it; compute the same, or delete both_features()",
        )


CHECKS = (
    common.docstring_and_paper_present,
    common.settings_are_described,
    common.functions_take_what_they_are_given,
    it_can_be_built,
    common.settings_round_trip_through_json,
    initial_weights_come_from_the_global_random_state,
    features_have_the_declared_dimension,
    other_image_sizes_work,
    backbone_tokens.tokens_are_what_its_layers_see,
    backbone_tokens.maps_follow_rectangles,
    eval_mode_is_deterministic,
    backbone_tokens.supports_what_it_says,
    backbone_tokens.tokens_come_in_one_pass,
    backbone_tokens.masked_patches_are_not_seen,
    backbone_tokens.only_kept_patches_are_seen,
    backbone_tokens.feature_maps_go_from_fine_to_coarse,
    patch_px_for_agrees,
    settings_are_filled_once,
    drop_path_is_accepted,
    every_parameter_gets_a_gradient,
    recomputed_activations_change_nothing,
    probe_features_are_vectors,
    both_features_are_the_two,
)
