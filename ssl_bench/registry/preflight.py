"""What a plugin breaks of its contract, said before long work: of the class as it is, and of its first step."""

from __future__ import annotations

import inspect
import re
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any, get_args

import torch
from torch import Tensor

from ssl_bench.backbone import Backbone, Capability
from ssl_bench.errors import UserError, did_you_mean
from ssl_bench.settings import Settings

if TYPE_CHECKING:
    from ssl_bench.method import Method, StepOutput

CALLS: Mapping[str, Mapping[str, str]] = {
    "Method": {
        "fill": "cls, config, situation",
        "make_views": "cls, config",
        "batch_views": "cls, config, views, rng",
        "prepare": "self, batches",
        "step": "self, batch, progress",
        "before_optimizer": "self, progress",
        "update": "self, carry, progress",
        "signs": "self, batch_size",
        "parameter_groups": "self",
        "networks": "self",
    },
    "Backbone": {
        "patch_px_for": "cls, config, image_px",
        "kind_for": "cls, config, image_px",
        "fill": "cls, config, image_px, defaults",
        "without_pretrained": "cls, config",
        "fit_weights": "self, weights",
        "token_count": "self, height, width",
        "forward": "self, images",
        "probe_features": "self, images",
        "tokens": "self, images",
        "patch_tokens": "self, images",
        "attention": "self, images",
        "feature_maps": "self, images",
        "set_activation_checkpointing": "self, enabled",
    },
    "Evaluator": {"data": "self, dataset", "evaluate": "self, evaluation"},
    "Dataset": {"recognises": "cls, path"},
}
"""The parameters with which the functions of each contract are called, all by position."""
CAPABILITIES: tuple[str, ...] = get_args(Capability)
NETWORK_NAME = re.compile(r"[A-Za-z0-9_-]+")
REPLACED = (
    "has evaluation_backbone(), which networks() replaced: write "
    'def networks(self): return {"backbone": ...} with what evaluation_backbone() returned first, and delete it'
)
"""What a plugin written for the first version of the contract is told."""


def why_no_plugin(loaded: object, contract: type) -> str:
    """What keeps `loaded` from being a plugin of `contract`, and how to fix it; "" where nothing does."""
    kind = contract.__name__
    if not isinstance(loaded, type) or not issubclass(loaded, contract):
        return f"is not a {kind}: it is {loaded!r} and must be a subclass of {contract.__module__}.{kind}"
    config = getattr(loaded, "Config", None)
    if not isinstance(config, type):
        return (
            "has no Config: add a class attribute Config, a subclass of ssl_bench.settings.Settings (empty if there is "
            "nothing to set)"
        )
    if not issubclass(config, Settings):
        return (
            f"has a Config that is no settings model: make {config.__name__} a subclass of ssl_bench.settings.Settings"
        )
    if kind == "Method" and hasattr(loaded, "evaluation_backbone"):
        return REPLACED
    for name in dir(contract):
        if getattr(getattr(loaded, name, None), "__isabstractmethod__", False):
            meaning = (getattr(contract, name).__doc__ or "").partition("\n")[0]
            return f"has no {name}(): write it. {meaning}"
    if wrong := wrong_hook(loaded, kind):
        return wrong
    return wrong_capabilities(loaded)


def wrong_hook(plugin: type, contract: str) -> str:
    """The first function of a plugin of `contract` that cannot be called as the core does, and how to write it.

    "" where there is none.
    """
    for name, call in CALLS[contract].items():
        hook = inspect.getattr_static(plugin, name, None)
        write = f"write {'@classmethod ' if call.startswith('cls') else ''}def {name}({call})"
        if isinstance(hook, property):
            return f"has {name} as a property: {write}"
        if not isinstance(hook, classmethod | staticmethod) and not callable(hook):
            continue
        plain = inspect.isfunction(hook)
        given = call.split(", ")[0 if plain else 1 :]  # all others are called without what stands first
        try:
            signature = inspect.signature(getattr(plugin, name))
        except (TypeError, ValueError):  # of a function that is not written in Python
            continue
        try:
            signature.bind(*given)
        except TypeError:
            return f"has {name}{signature}, which is not how it is called: {write}"
        if plain and call.startswith("cls"):
            return f"has {name}() without @classmethod: {write}"
    return ""


def require_frozen(method: Method, name: str) -> None:
    """Raises `UserError` unless the parts that a method declares frozen are there and untrained."""
    if wrong := wrong_frozen(method):
        raise UserError(f"the method {name!r} {wrong}")


def wrong_frozen(method: Method) -> str:
    """What is wrong with a method's `frozen`; "" where nothing is."""
    parts = dict(method.named_modules())
    listed = {id(p) for group in method.parameter_groups() for p in group.parameters}
    for part in sorted(method.frozen):
        if part not in parts:
            known = [one for one in parts if one]
            return f"names {part!r} as frozen, and has no such submodule.{did_you_mean(part, known)}"
        for weight, parameter in parts[part].named_parameters():
            if parameter.requires_grad:
                return (
                    f"names {part!r} as frozen, and {part}.{weight} asks for a gradient: call "
                    f"self.{part}.requires_grad_(False) in __init__, or take it out of `frozen`"
                )
            if id(parameter) in listed:
                return f"lists {part}.{weight} in parameter_groups(), and names {part!r} as frozen: leave it out"
    return ""


def wrong_capabilities(loaded: object) -> str:
    """What is wrong with the capabilities that a method or an evaluator requires; "" where nothing is.

    A misspelled one would be refused on every network, or leave every check skipped.
    """
    required: Any = getattr(loaded, "requires", frozenset())
    if isinstance(required, property):  # decided by the settings, so only known of an instance
        return ""
    if not isinstance(required, frozenset | set) or not all(isinstance(name, str) for name in required):
        return f"requires {required!r:.60}: write requires = frozenset({{...}}) with names of {', '.join(CAPABILITIES)}"
    for name in sorted(required - set(CAPABILITIES)):
        return (
            f"requires {name!r}, which is no capability of a backbone.{did_you_mean(name, CAPABILITIES)} "
            f"Known: {', '.join(CAPABILITIES)}"
        )
    return ""


def require_capabilities(plugin: object, kind: str, name: str) -> None:
    """Raises `UserError` for a method or an evaluator, built, that requires what no backbone can have."""
    if wrong := wrong_capabilities(plugin):
        raise UserError(f"the {kind} {name!r} {wrong}")


def require_filled(config: object, kind: type, method: str) -> None:
    """Raises `UserError` unless `fill` gave the method's settings."""
    if not isinstance(config, kind):
        raise UserError(
            f"the method {method!r}: fill() gives {config!r}. Return the settings, e.g. config.model_copy(update=...)"
        )


def require_parts(make_views: object, networks: object, method: str) -> None:
    """Raises `UserError` unless a method gave a function that makes views and its networks by name."""
    if not callable(make_views):
        raise UserError(
            f"the method {method!r}: make_views() gives {make_views!r}. Return a function of (image, Random), e.g. "
            "ssl_bench.blocks.views.MultiCrop"
        )
    if wrong := wrong_networks(networks):
        raise UserError(f"the method {method!r}: {wrong}")


def wrong_networks(networks: object) -> str:
    """What is wrong with what `networks()` gave; "" where nothing is."""
    example = 'Return e.g. {"teacher": self.teacher, "student": self.student}, the evaluated one first'
    if not isinstance(networks, Mapping) or not networks:
        return f"networks() gives {networks!r:.60}. {example}"
    for name, network in networks.items():
        if not isinstance(name, str) or not NETWORK_NAME.fullmatch(name):
            return f"networks() names a network {name!r:.60}. Give it letters, digits, _ and - only. {example}"
        if not isinstance(network, Backbone):
            return f"networks()[{name!r}] is {network!r:.60}. Return what make_backbone() built, without head"
    return ""


def require_step_output(output: StepOutput, method: str) -> None:
    """Raises `UserError` for what `step` may not return: it is asked on one batch before anything is trained."""
    from ssl_bench.method import StepOutput as Expected

    wrong = f"the method {method!r}: step() gives"
    if not isinstance(output, Expected):
        raise UserError(f"{wrong} {_shown(output)}. Return StepOutput(loss, logs, carry), from ssl_bench.method")
    loss = output.loss
    if not isinstance(loss, Tensor) or loss.ndim:
        raise UserError(f"{wrong} as its loss {_shown(loss)}. Reduce it to one number, e.g. loss.mean()")
    if not bool(torch.isfinite(loss)):
        raise UserError(
            f"{wrong} the loss {loss.item()} before anything is trained. Look for a logarithm or a division by 0, and "
            "for images that are all of one colour"
        )
    if not loss.requires_grad:
        raise UserError(f"{wrong} a loss without a gradient. Compute it outside of torch.no_grad(), without detach()")
    for name, value in output.logs.items():
        if not isinstance(value, Tensor) or value.numel() != 1:
            raise UserError(f"{wrong} as logs[{name!r}] {_shown(value)}. Log one number, e.g. value.mean()")
    for name, value in output.carry.items():
        if not isinstance(value, Tensor) or not value.ndim:
            raise UserError(
                f"{wrong} as carry[{name!r}] {_shown(value)}. Give it a leading dimension, e.g. value[None]"
            )


def _shown(value: Any) -> str:
    return f"a tensor of shape {tuple(value.shape)}" if isinstance(value, Tensor) else f"{value!r:.60}"
