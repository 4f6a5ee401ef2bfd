"""torchvision: a state dict of its VisionTransformer or ResNet, without the classifier."""

from __future__ import annotations

import re
from functools import partial
from pathlib import Path
from typing import Any

import torch
import torchvision
from torch import nn
from torchvision.models.resnet import BasicBlock, Bottleneck

from ssl_bench.errors import NotExpressible
from ssl_bench.export.shapes import ResNetShape, ViTShape, resnet_shape, vit_shape
from ssl_bench.export.source import Source
from ssl_bench.export.targets import Compute, Target, Written

FILE = "model.pth"
STEM_CHANNELS, STAGE_CHANNELS = 64, (64, 128, 256, 512)
"""Of every residual network of torchvision; a bottleneck puts out four times as many."""

VIT_NAMES = (
    (r"cls_token", "class_token"),
    (r"pos_embed", "encoder.pos_embedding"),
    (r"patch_embed\.proj\.(.+)", r"conv_proj.\1"),
    (r"blocks\.(\d+)\.norm([12])\.(.+)", r"encoder.layers.encoder_layer_\1.ln_\2.\3"),
    (r"blocks\.(\d+)\.attn\.qkv\.(.+)", r"encoder.layers.encoder_layer_\1.self_attention.in_proj_\2"),
    (r"blocks\.(\d+)\.attn\.proj\.(.+)", r"encoder.layers.encoder_layer_\1.self_attention.out_proj.\2"),
    (r"blocks\.(\d+)\.mlp\.fc1\.(.+)", r"encoder.layers.encoder_layer_\1.mlp.0.\2"),
    (r"blocks\.(\d+)\.mlp\.fc2\.(.+)", r"encoder.layers.encoder_layer_\1.mlp.3.\2"),
    (r"norm\.(.+)", r"encoder.ln.\1"),
)
"""timm's names -> torchvision's (torchvision 0.29, `models/vision_transformer.py`)."""


def write(source: Source, folder: Path, header: str) -> Written:
    """One state dict; a plain one cannot hold the header."""
    vit, tensors = vit_shape(source), source.tensors
    resnet = resnet_shape(source) if vit is None else None
    if vit is not None:
        kind, head, arguments = torchvision.models.VisionTransformer, "heads", _vit_arguments(vit)
        tensors = {_renamed(name): tensor for name, tensor in tensors.items()}
        given = [f"{name}={value}" for name, value in arguments.items()]
        arguments["norm_layer"] = partial(nn.LayerNorm, eps=vit.norm_eps)
        given += [f"norm_layer=partial(torch.nn.LayerNorm, eps={vit.norm_eps})"]
        imports = "from functools import partial\n\nimport torch\nimport torchvision"
    elif resnet is not None:
        kind, head, arguments = torchvision.models.ResNet, "fc", _resnet_arguments(resnet)
        block = arguments["block"].__name__
        given = [block, *(f"{name}={value}" for name, value in arguments.items() if name != "block")]
        imports = f"import torch\nimport torchvision\nfrom torchvision.models.resnet import {block}"
    else:
        raise NotExpressible("only ViTs and residual networks are exported to torchvision")
    torch.save(tensors, folder / FILE)
    code = f"""{imports}

model = torchvision.models.{kind.__name__}({", ".join(given)})
model.{head} = torch.nn.Identity()
model.load_state_dict(torch.load({FILE!r}, weights_only=True))
features = model.eval()(images)"""

    def load() -> Compute:
        network: nn.Module = kind(**arguments)
        setattr(network, head, nn.Identity())
        network.load_state_dict(torch.load(folder / FILE, weights_only=True))
        return network.eval()

    return Written(code, load)


def _vit_arguments(shape: ViTShape) -> dict[str, Any]:
    return {
        "image_size": shape.image_px,
        "patch_size": shape.patch_px,
        "num_layers": shape.depth,
        "num_heads": shape.heads,
        "hidden_dim": shape.dim,
        "mlp_dim": shape.mlp_dim,
    }


def _resnet_arguments(shape: ResNetShape) -> dict[str, Any]:
    block = Bottleneck if shape.bottleneck else BasicBlock
    wanted = tuple(channels * block.expansion for channels in STAGE_CHANNELS)
    if (shape.stem_channels, shape.stage_channels) != (STEM_CHANNELS, wanted):
        raise NotExpressible(
            f"its stages have {shape.stage_channels} channels behind a stem of {shape.stem_channels}, and "
            f"torchvision's always {wanted} behind {STEM_CHANNELS}"
        )
    arguments: dict[str, Any] = {"block": block, "layers": list(shape.depths)}
    if shape.groups != 1 or shape.inner_channels != STEM_CHANNELS:
        arguments |= {"groups": shape.groups, "width_per_group": shape.inner_channels // shape.groups}
    return arguments


def _renamed(name: str) -> str:
    return next(re.sub(old, new, name) for old, new in VIT_NAMES if re.fullmatch(old, name))


TARGET = Target(FILE, write)
