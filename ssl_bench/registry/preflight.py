"""Breaches of the contract that are found before long work: in a plugin's class, and in its first step."""

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
        "batch_logs": "self, carry",
        "before_optimizer": "self, progress",
        "update": "self, carry, progress",
        "signs": "self, batch_size",
        "parameter_groups": "self",
        "networks": "self",
    },
    "WholeBatchLoss": {"embed": "self, batch", "loss": "self, embeddings, progress"},
    "Backbone": {
        "patch_px_for": "cls, config, image_px",
        "kind_for": "cls, config, image_px",
        "fill": "cls, config, image_px, defaults",
        "without_pretrained": "cls, config",
        "fit_weights": "self, weights",
        "token_count": "self, height, width",
        "forward": "self, images",
        "probe_features": "self, images",
        "both_features": "self, images",
        "tokens": "self, images",
        "patch_tokens": "self, images",
        "attention": "self, images",
        "feature_maps": "self, images",
        "set_activation_checkpointing": "self, enabled",
    },
    "Evaluator": {"data": "self, dataset", "evaluate": "self, evaluation"},
    "Logger": {"log": "self, step, values", "close": "self"},
    "Dataset": {"recognizes": "cls, path", "recognises": "cls, path"},
}
"""The arguments of each contract's functions, all passed by position."""
CAPABILITIES: tuple[str, ...] = get_args(Capability)
NETWORK_NAME = re.compile(r"[A-Za-z0-9_-]+")
REPLACED = (
    "has evaluation_backbone(), which networks() replaced: write "
    'def networks(self): return {"backbone": ...} with what evaluation_backbone() returned first, and delete it'
)
"""The message for a plugin written for the first version of the contract."""


def why_no_plugin(loaded: object, contract: type) -> str:
    """Why `loaded` is not a plugin of `contract`, and how to fix it; "" if it is one."""
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
            f"has a Config that is not a settings model: make {config.__name__} a subclass of "
            "ssl_bench.settings.Settings"
        )
    if kind == "Method" and hasattr(loaded, "evaluation_backbone"):
        return REPLACED
    for name in dir(contract):
        if getattr(getattr(loaded, name, None), "__isabstractmethod__", False):
            meaning = (getattr(contract, name).__doc__ or "").partition("\n")[0]
            return f"has no {name}(): write it. {meaning}"
    if wrong := wrong_hook(loaded, kind) or (wrong_parts(loaded) if kind == "Method" else ""):
        return wrong
    return wrong_capabilities(loaded)


def wrong_parts(method: type) -> str:
    """What is wrong with a method's `step`, or `embed` and `loss` in its place; "" if nothing is."""
    from ssl_bench.method import Method

    if getattr(method, "step", None) is not Method.step:
        return ""
    if not callable(getattr(method, "embed", None)) or not callable(getattr(method, "loss", None)):
        return (
            "has no step(): write def step(self, batch, progress), which returns StepOutput(loss, logs, carry); or, "
            "for a loss that compares the images of a batch with each other, embed(self, batch) and loss(self, "
            "embeddings, progress)"
        )
    return wrong_hook(method, "WholeBatchLoss")


def wrong_hook(plugin: type, contract: str) -> str:
    """The first function of a plugin of `contract` that the core cannot call, and how to write it; "" for none."""
    for name, call in CALLS[contract].items():
        hook = inspect.getattr_static(plugin, name, None)
        write = f"write {'@classmethod ' if call.startswith('cls') else ''}def {name}({call})"
        if isinstance(hook, property):
            return f"has {name} as a property: {write}"
        if not isinstance(hook, classmethod | staticmethod) and not callable(hook):
            continue
        plain = inspect.isfunction(hook)
        given = call.split(", ")[0 if plain else 1 :]  # others are bound: called without self or cls
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
    """Raises `UserError` unless the parts that a method declares frozen exist and are not trained."""
    if wrong := wrong_frozen(method):
        raise UserError(f"the method {name!r} {wrong}")


def wrong_frozen(method: Method) -> str:
    """What is wrong with a method's `frozen`; "" if nothing is."""
    parts = dict(method.named_modules())
    listed = {id(p) for group in method.parameter_groups() for p in group.parameters}
    for part in sorted(method.frozen):
        if part not in parts:
            known = [one for one in parts if one]
            return f"names {part!r} as frozen, and has no such submodule.{did_you_mean(part, known)}"
        for weight, parameter in parts[part].named_parameters():
            if parameter.requires_grad:
                return (
                    f"names {part!r} as frozen, and {part}.{weight} requires a gradient: call "
                    f"self.{part}.requires_grad_(False) in __init__, or take it out of `frozen`"
                )
            if id(parameter) in listed:
                return f"lists {part}.{weight} in parameter_groups(), and names {part!r} as frozen: leave it out"
    return ""


def wrong_capabilities(loaded: object) -> str:
    """What is wrong with the capabilities that a method or an evaluator requires; "" if nothing is.

    With a misspelled one, every network would be refused or every check skipped.
    """
    required: Any = getattr(loaded, "requires", frozenset())
    if isinstance(required, property):  # depends on the settings, so only an instance knows
        return ""
    if not isinstance(required, frozenset | set) or not all(isinstance(name, str) for name in required):
        return f"requires {required!r:.60}: write requires = frozenset({{...}}) with names of {', '.join(CAPABILITIES)}"
    for name in sorted(required - set(CAPABILITIES)):
        return (
            f"requires {name!r}, which is not a capability of a backbone.{did_you_mean(name, CAPABILITIES)} "
            f"Known: {', '.join(CAPABILITIES)}"
        )
    return ""


def require_capabilities(plugin: object, kind: str, name: str) -> None:
    """Raises `UserError` for a method or an evaluator instance that requires what no backbone can have."""
    if wrong := wrong_capabilities(plugin):
        raise UserError(f"the {kind} {name!r} {wrong}")


def require_filled(config: object, kind: type, method: str) -> None:
    """Raises `UserError` unless `fill` returned the method's settings."""
    if not isinstance(config, kind):
        raise UserError(
            f"the method {method!r}: fill() gives {config!r}. Return the settings, e.g. config.model_copy(update=...)"
        )


def require_parts(make_views: object, networks: object, method: str) -> None:
    """Raises `UserError` unless `make_views()` returned a function and `networks()` networks by name."""
    if not callable(make_views):
        raise UserError(
            f"the method {method!r}: make_views() gives {make_views!r}. Return a function of (image, Random), e.g. "
            "ssl_bench.blocks.views.MultiCrop"
        )
    if wrong := wrong_networks(networks):
        raise UserError(f"the method {method!r}: {wrong}")


def wrong_networks(networks: object) -> str:
    """What is wrong with the return value of `networks()`; "" if nothing is."""
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
    """Raises `UserError` for an output that `step` may not return; checked on one batch before training."""
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
            "for images of a single color"
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
