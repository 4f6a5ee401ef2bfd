"""The network in a file of weights, normalizing images as its source does, for every verb that takes weights."""

from __future__ import annotations

from collections.abc import Collection, Mapping
from pathlib import Path
from typing import Any

from ssl_bench.backbone import Backbone
from ssl_bench.blocks.preprocessing import Preprocessing
from ssl_bench.errors import UserError, did_you_mean
from ssl_bench.runs.building import seed_initial_weights
from ssl_bench.runs.weights_data import changed_preprocessing
from ssl_bench.settings import section_of
from ssl_bench.weights.loaded import Loaded
from ssl_bench.weights.loading import load_network, open_weights

SEED = 0
"""Of random weights beside those of a file."""


def require_sections(values: Mapping[str, Any], sections: Collection[str], verb: str) -> None:
    """Raises `UserError` for a setting of another section than `verb` takes."""
    for name in values:
        section = name.partition(".")[0]
        if section not in sections:
            raise UserError(
                f"{name!r} is no setting of {verb}.{did_you_mean(section, sections)} It takes "
                f"{', '.join(f'{one}.*' for one in sections)}"
            )


def weights_network(
    weights: Path,
    *,
    arch: str | None = None,
    key: str | None = None,
    method: str | None = None,
    values: Mapping[str, Any],
    accept_mismatch: bool = False,
) -> tuple[Loaded, Preprocessing]:
    """The network of a file, folder or published name, in eval mode on the CPU, and how it sees images.

    `values` may hold `backbone.*` and `preprocessing.*`; mean and deviation of the latter are the network's. Raises
    `UserError` for whatever is not exactly that network.
    """
    loaded = load_network(
        open_weights(weights, arch, method), arch=arch, key=key, settings=section_of(values, "backbone"),
        accept_mismatch=accept_mismatch,
    )  # fmt: skip
    preprocessing = changed_preprocessing(loaded.preprocessing, section_of(values, "preprocessing"))
    loaded.backbone.mean, loaded.backbone.std = preprocessing.mean, preprocessing.std
    return loaded, preprocessing


def untrained_network(loaded: Loaded) -> Backbone:
    """The same architecture with random weights, seen through the same preprocessing.

    Raises `UserError` where the architecture is its weights, as in an ONNX file.
    """
    if not loaded.backbone.trainable:
        raise UserError(f"{loaded.arch} has no random weights to compare with")
    seed_initial_weights(SEED)
    backbone = type(loaded.backbone)(loaded.config, image_px=loaded.backbone.image_px)
    backbone.mean, backbone.std = loaded.backbone.mean, loaded.backbone.std
    return backbone.eval()


def loaded_in_words(loaded: Loaded) -> str:
    """E.g. "DINO's checkpoint: teacher fills all 150 tensors of deit_s16"."""
    return f"{loaded.recognized.words}: {loaded.candidate.name} fills all {loaded.used} tensors of {loaded.arch}"
