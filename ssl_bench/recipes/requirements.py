"""Whether an architecture offers what a method and the evaluators require, before any data are read."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from ssl_bench import registry
from ssl_bench.backbone import Backbone
from ssl_bench.errors import UserError
from ssl_bench.method import Method
from ssl_bench.records.recipe import arch_text
from ssl_bench.registry.capabilities import offer_of, require_offered
from ssl_bench.registry.failures import in_one_message
from ssl_bench.registry.preflight import require_capabilities
from ssl_bench.settings import parse_settings


def require_capable(
    method: tuple[str, type[Method]],
    backbone: tuple[str, type[Backbone], Any],
    evaluators: Mapping[str, Mapping[str, Any]],
) -> None:
    """Raises `UserError` for an unknown capability, and for one that the architecture does not have.

    `method` is (name, class), `backbone` (name, class, config), `evaluators` the settings given of each by name.
    """
    required: list[tuple[str, str, Any]] = [("method", *method)]
    for name, settings in evaluators.items():
        kind = registry.evaluator(name)
        config = parse_settings(kind.Config, settings, f"evaluators.{name}", name)
        with in_one_message(f"the evaluator {name!r} cannot be made with these settings"):
            required.append(("evaluator", name, kind(config)))
    for role, name, plugin in required:
        require_capabilities(plugin, role, name)
    if not any(plugin.requires for _, _, plugin in required):
        return
    name, kind_of_backbone, backbone_config = backbone
    offer = offer_of(kind_of_backbone, backbone_config)
    if offer is not None:  # else the built network tells
        for role, plugin_name, plugin in required:
            require_offered(plugin, role, plugin_name, arch_text(name, dict(backbone_config)), offer)


def refuse_training(
    method: tuple[str, type[Method]], backbone: tuple[str, type[Backbone], Any], epochs: int | None
) -> None:
    """For a network that is not `trainable`: raises `UserError` where the method would train it, or there is none.

    `epochs` are those given; None: the presets'.
    """
    method_name, method_kind = method
    name, kind, config = backbone
    kind.only_px_for(config)  # reads the network
    presets = [preset.values_for("convnet").get("training.epochs") for preset in method_kind.presets.values()]
    if epochs == 0 or (epochs is None and presets and not any(presets)):
        return
    arch = arch_text(name, dict(config))
    raise UserError(
        f"{arch} cannot be trained, by {method_name} or any other method: it is run as it is. Evaluate it with "
        f"sslbench eval, or as a run of the method random: sslbench run random --arch {arch}"
    )
