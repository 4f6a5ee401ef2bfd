"""What methods and evaluators require of an architecture, checked before any data are read or a weight is drawn."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any, NamedTuple

from ssl_bench.backbone import Backbone, Capability
from ssl_bench.errors import UserError
from ssl_bench.registry.blueprint import blueprint
from ssl_bench.registry.preflight import require_capabilities

SIDES_PX = (224, 64, 60)
"""Image sizes at which an architecture is asked what it offers: one is whole patches of 4 to 8, 14 or 16 px."""


class Offer(NamedTuple):
    """What an architecture offers, and why not the rest."""

    supports: frozenset[str]
    why_not: Mapping[Capability, str]


def offer_of(kind: type[Backbone], config: Any) -> Offer | None:
    """What the architecture offers: as its class says, else as its blueprint does; None where neither can tell."""
    declared = next((parent for parent in kind.__mro__ if "supports" in vars(parent)), Backbone)
    if declared is not Backbone:
        return Offer(kind.supports, kind.why_not)
    for side_px in SIDES_PX:
        network = blueprint(kind, config, side_px)
        if network is not None:
            return Offer(network.supports, network.why_not)
    return None


def require_offered(plugin: Any, role: str, name: str, arch: str, offer: Offer | Backbone) -> None:
    """Raises `UserError` where the method or evaluator (`role`) called `name` needs what the architecture lacks.

    `plugin` is its class or an instance; a class that decides by its settings what it requires is left to the instance.
    """
    require_capabilities(plugin, role, name)
    required = plugin.requires
    if isinstance(required, property):
        return
    missing = required - offer.supports
    if missing:
        leave_out = "Leave it out with --with, or choose" if role == "evaluator" else "Choose"
        raise UserError(
            f"the {role} {name!r} needs {' and '.join(sorted(missing))}, which {arch} does not have"
            f"{why_missing(offer, missing)}. {leave_out} an architecture that has it (sslbench list), e.g. a ViT."
        )


def why_missing(offer: Offer | Backbone, missing: Iterable[str]) -> str:
    """The reasons that the architecture gives, e.g. ": swin_tiny has no CLS token"; empty where it gives none."""
    reasons = dict.fromkeys(reason for name, reason in sorted(offer.why_not.items()) if name in missing)
    return f": {'; '.join(reasons)}" if reasons else ""
