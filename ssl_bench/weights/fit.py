"""Whether weights belong to a network: loaded whole or refused, with all that differs and the nearest architecture."""

from __future__ import annotations

from collections.abc import Iterator, Mapping

from torch import Tensor

from ssl_bench import registry
from ssl_bench.backbone import Backbone
from ssl_bench.errors import UserError
from ssl_bench.registry.blueprint import blueprint
from ssl_bench.settings import Settings
from ssl_bench.weights.initial import InitialState
from ssl_bench.weights.whole import compared, heads_of, in_own_names


def start_from(backbone: Backbone, initial: InitialState, arch: str) -> None:
    """Load initial weights into a new backbone, all of them, and name them in `backbone.pretrained`."""
    weights = require_fit(backbone, initial, arch)
    backbone.load_state_dict(weights)
    backbone.pretrained = ", ".join([initial.words, *_resampled(in_own_names(weights, initial.weights), weights)])


def require_fit(backbone: Backbone, initial: InitialState, arch: str) -> dict[str, Tensor]:
    """The weights as they load into `backbone`, which may be on the meta device.

    Raises `UserError` for those of another architecture.
    """
    state = backbone.state_dict()
    weights = backbone.fit_weights(in_own_names(state, initial.weights))
    differences = compared(weights, state)
    if differences:
        nearest = _nearest(initial.weights, backbone.image_px)
        advice = f" The nearest architecture is {nearest}" if nearest not in ("", f"--arch {arch}") else ""
        advice = f" They are those of {initial.arch}" if initial.arch else advice
        raise UserError(f"the initial weights {initial.source} do not fit {arch}: {differences}.{advice}")
    heads = heads_of(backbone)
    if initial.heads is not None and heads is not None and heads != initial.heads:
        can_be_set = "heads" in type(backbone).Config.model_fields
        advice = f"Say --set backbone.heads={initial.heads}" if can_be_set else "Choose an architecture with as many"
        raise UserError(
            f"the initial weights {initial.source} are of a network with {initial.heads} heads, and {arch} has "
            f"{heads}: the shapes agree, but the features would differ. Evidence: {initial.heads_evidence}. {advice}"
        )
    return weights


def _resampled(initial: Mapping[str, Tensor], weights: Mapping[str, Tensor]) -> list[str]:
    """Which tensors were fitted to another image size."""
    return [
        f"{name} resampled from {tuple(given.shape)} to {tuple(weights[name].shape)}"
        for name, given in initial.items()
        if name in weights and weights[name].shape != given.shape
    ]


def _nearest(weights: Mapping[str, Tensor], image_px: int) -> str:
    """The registered architecture that shares most tensors, by name and shape, as it is typed; "" where none does."""
    shared = {name: _share(state, in_own_names(state, weights)) for name, state in _architectures(image_px)}
    best = max(shared, key=lambda name: shared[name], default="")
    return f"--arch {best}" if best and shared[best] > 0 else ""


def _share(state: Mapping[str, Tensor], weights: Mapping[str, Tensor]) -> float:
    """Which part of a network's tensors are among the weights, by name and shape."""
    return sum(name in weights and weights[name].shape == tensor.shape for name, tensor in state.items()) / len(state)


def _architectures(image_px: int) -> Iterator[tuple[str, Mapping[str, Tensor]]]:
    """Every registered backbone that needs no settings, as shapes alone."""
    for name in registry.names("backbone"):
        try:
            kind = registry.backbone(name)
            config: Settings = kind.Config()
        except Exception:  # a network that needs a setting, a broken plugin of others
            continue
        network = blueprint(kind, config, image_px)
        if network is not None and (state := network.state_dict()):
            yield name, state
