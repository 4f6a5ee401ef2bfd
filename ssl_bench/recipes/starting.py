"""Where a run's networks start: the initial weights asked for, and whether they belong to the architecture."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from ssl_bench.backbone import Backbone
from ssl_bench.errors import UserError
from ssl_bench.records.recipe import InitialSettings, InitialWeights
from ssl_bench.registry.blueprint import blueprint
from ssl_bench.settings import parse_settings
from ssl_bench.weights.initial import InitialState, initial_state, require_fit, require_settings


def chosen_start(values: Mapping[str, Any]) -> InitialState | None:
    """The weights that the settings `initial.*` ask for; None where they ask for none.

    Raises `UserError` for weights that cannot be read, or are no longer those that a recipe names.
    """
    settings = parse_settings(InitialSettings, values, "initial", "the initial weights")
    if settings.source is None:
        if settings.network or settings.fingerprint:
            raise UserError("initial.network and initial.fingerprint say nothing without initial.source: give --init")
        return None
    initial = initial_state(Path(settings.source), settings.network or None)
    if settings.fingerprint and initial.fingerprint != settings.fingerprint:
        raise UserError(
            f"the initial weights {initial.source} changed: their fingerprint is {initial.fingerprint[:12]} and the "
            f"recipe's {settings.fingerprint[:12]}. Put the file back, or name it where it lies with --init "
            "PATH; a new run with --init starts from it as it is now"
        )
    return initial


def as_recorded(initial: InitialState | None) -> InitialWeights | None:
    """The weights as a recipe holds them."""
    if initial is None:
        return None
    return InitialWeights(
        source=initial.name or str(initial.source), network=initial.network, fingerprint=initial.fingerprint
    )


def require_start_fits(
    initial: InitialState | None, backbone: type[Backbone], config: Any, image_px: int, arch: str
) -> None:
    """Raises `UserError` for weights of another architecture, or an architecture that brings its own.

    Nothing is built for it but shapes; where even those cannot be had, building the method decides.
    """
    if initial is None:
        return
    if backbone.without_pretrained(config) != config:
        raise UserError(
            f"{arch} starts from pretrained weights of its own, and --init names {initial.source}: leave one out "
            "(an architecture without a tag and without backbone.weights starts from --init)"
        )
    network = blueprint(backbone, config, image_px)
    if network is not None:
        require_fit(network, initial, arch)
    require_settings(initial, config, arch)
