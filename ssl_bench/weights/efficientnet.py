"""EfficientNet-PyTorch's names (github.com/lukemelas/EfficientNet-PyTorch, converted from TensorFlow) as timm's.

Blocks are counted through there and by stage in timm; a stage ends where the number of output channels changes.
"""

from __future__ import annotations

import re
from collections.abc import Mapping

from torch import Tensor

ANCHORS = ("_conv_stem.weight", "_blocks.0._depthwise_conv.weight")
NORM_EPS = 1e-3
"""Of batch norm, as TensorFlow has it (`batch_norm_epsilon` in efficientnet_pytorch/utils.py)."""

_TOP = {"_conv_stem": "conv_stem", "_bn0": "bn1", "_conv_head": "conv_head", "_bn1": "bn2", "_fc": "head"}
_EXPANDED = {
    "_expand_conv": "conv_pw", "_bn0": "bn1", "_depthwise_conv": "conv_dw", "_bn1": "bn2",
    "_se_reduce": "se.conv_reduce", "_se_expand": "se.conv_expand", "_project_conv": "conv_pwl", "_bn2": "bn3",
}  # fmt: skip
_SEPARABLE = {**_EXPANDED, "_bn1": "bn1", "_project_conv": "conv_pw", "_bn2": "bn2"}


def to_timm(tensors: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """The tensors under timm's names; what is not known keeps its own."""
    places = _places(tensors)
    renamed = {}
    for name, tensor in tensors.items():
        block = re.fullmatch(r"_blocks\.(\d+)\.(\w+)\.(.+)", name)
        top = re.fullmatch(r"(_\w+)\.(.+)", name)
        if block and int(block[1]) in places:
            table = _EXPANDED if f"_blocks.{block[1]}._expand_conv.weight" in tensors else _SEPARABLE
            stage, index = places[int(block[1])]
            name = f"blocks.{stage}.{index}.{table.get(block[2], block[2])}.{block[3]}"
        elif top and not block:
            name = f"{_TOP.get(top[1], top[1])}.{top[2]}"
        renamed[name] = tensor
    return renamed


def _places(tensors: Mapping[str, Tensor]) -> dict[int, tuple[int, int]]:
    """Block number -> (stage, index in the stage)."""
    places: dict[int, tuple[int, int]] = {}
    channels, stage, index, number = None, -1, 0, 0
    while (weight := tensors.get(f"_blocks.{number}._project_conv.weight")) is not None:
        stage, index = (stage, index + 1) if len(weight) == channels else (stage + 1, 0)
        channels = len(weight)
        places[number] = (stage, index)
        number += 1
    return places
