"""Building a run's method and networks from its recipe: the one place that seeds and draws initial weights."""

from __future__ import annotations

from inspect import getattr_static
from random import Random
from typing import Any

import torch

from ssl_bench.backbone import Backbone
from ssl_bench.blocks.device_views import on_device
from ssl_bench.errors import UserError
from ssl_bench.method import MakeBackbone, MakeViews, Method
from ssl_bench.recipes.resolve import Resolved
from ssl_bench.registry.blueprint import blueprint
from ssl_bench.registry.failures import in_one_message
from ssl_bench.weights.initial import InitialState, start_from
from ssl_bench.weights.whole import compared


def seed_initial_weights(seed: int) -> None:
    """Set torch's global random state for the initial weights of a run of this seed."""
    torch.manual_seed(Random(f"weights-{seed}").getrandbits(63))


def backbone_maker(
    kind: type[Backbone], config: Any, image_px: int, arch: str, initial: InitialState | None
) -> MakeBackbone:
    """Builds backbones of one architecture: drawn from the global random state, then from `initial` where given.

    They draw either way, so that what a method adds to them starts alike.
    """

    def make_backbone(*, drop_path: float = 0.0) -> Backbone:
        backbone = kind(config, image_px=image_px, drop_path=drop_path)
        if initial is not None:
            start_from(backbone, initial, arch)
        return backbone

    return make_backbone


def build_method(resolved: Resolved) -> Method:
    """The recipe's method with backbones of its architecture; initial weights come from the global random state."""
    recipe = resolved.recipe
    make_backbone = backbone_maker(
        resolved.backbone, resolved.backbone_config, resolved.dataset.image_px, recipe.arch, resolved.initial
    )
    with in_one_message(f"{recipe.method.name} cannot be built on {recipe.arch} with these settings"):
        method = resolved.method(resolved.method_config, make_backbone)
    if resolved.machine.activation_checkpointing:
        recompute_activations(method, True)
    return method


def views_of_a_run(method: Method, resolved: Resolved) -> MakeViews:
    """The method's view function, finished where `machine.augment_on` says. Raises `UserError` where that cannot be."""
    make_views = method.make_views(resolved.method_config)
    if resolved.machine.augment_on == "workers":
        return make_views
    own, none = (getattr_static(kind, "batch_views") for kind in (type(method), Method))
    return on_device(make_views, draws_over_batch=own is not none)


def recompute_activations(method: Method, enabled: bool) -> None:
    """Activation checkpointing in every network of the method. Raises `UserError` for a network that cannot."""
    for module in method.modules():
        if isinstance(module, Backbone):
            module.set_activation_checkpointing(enabled)


def require_rebuildable(method: Method, resolved: Resolved) -> None:
    """Raises `UserError` where the evaluated network is not of the run's architecture.

    Its kept weights are loaded into that architecture again, e.g. by `sslbench eval`. Other networks of the method may
    be of any width.
    """
    network = blueprint(resolved.backbone, resolved.backbone_config, resolved.dataset.image_px)
    if network is None:
        return
    name, evaluated = next(iter(method.networks().items()))
    differences = compared(evaluated.state_dict(), network.state_dict())
    if differences:
        raise UserError(
            f"the method {resolved.recipe.method.name!r} evaluates its network {name!r}, which is not "
            f"{resolved.recipe.arch} as make_backbone() builds it: {differences}. Name a network that "
            "make_backbone() built first in networks()"
        )
