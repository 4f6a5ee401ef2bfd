"""transformers: a folder that `from_pretrained` reads, a ViTModel or a ResNetModel.

Tensors have the names of the checkpoints on Hugging Face's hub, which every version of transformers reads.
"""

from __future__ import annotations

import json
import re
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from safetensors.torch import save_file
from torch import Tensor

from ssl_bench.blocks.preprocessing import Preprocessing
from ssl_bench.errors import NotExpressible
from ssl_bench.export.shapes import ResNetShape, ViTShape, resnet_shape, vit_shape
from ssl_bench.export.source import Source
from ssl_bench.export.targets import Compute, Target, Written
from ssl_bench.weights.exported import HEADER
from ssl_bench.weights.tensor_file import detached

FILE = "model.safetensors"
BICUBIC, BILINEAR = 3, 2
"""As PIL numbers them."""
WIDENING = 4
"""Of a bottleneck's 3 x 3 convolution to its output: `reduction` in transformers, which no configuration changes."""

VIT_NAMES = (
    (r"cls_token", "embeddings.cls_token"),
    (r"pos_embed", "embeddings.position_embeddings"),
    (r"patch_embed\.proj\.(.+)", r"embeddings.patch_embeddings.projection.\1"),
    (r"blocks\.(\d+)\.norm1\.(.+)", r"encoder.layer.\1.layernorm_before.\2"),
    (r"blocks\.(\d+)\.norm2\.(.+)", r"encoder.layer.\1.layernorm_after.\2"),
    (r"blocks\.(\d+)\.attn\.proj\.(.+)", r"encoder.layer.\1.attention.output.dense.\2"),
    (r"blocks\.(\d+)\.mlp\.fc1\.(.+)", r"encoder.layer.\1.intermediate.dense.\2"),
    (r"blocks\.(\d+)\.mlp\.fc2\.(.+)", r"encoder.layer.\1.output.dense.\2"),
    (r"norm\.(.+)", r"layernorm.\1"),
)


def write(source: Source, folder: Path, header: str) -> Written:
    """Weights, `config.json` and `preprocessor_config.json`."""
    vit = vit_shape(source)
    resnet = resnet_shape(source) if vit is None else None
    if vit is not None:
        config, tensors = _vit_config(vit), _vit_tensors(source.tensors)
        arguments, read = {"add_pooling_layer": False}, "last_hidden_state[:, 0]"
    elif resnet is not None:
        config, tensors = _resnet_config(resnet), {_resnet_name(name): one for name, one in source.tensors.items()}
        arguments, read = {}, "pooler_output.flatten(1)"
    else:
        raise NotExpressible("only ViTs and residual networks are exported to transformers")
    save_file(detached(tensors), folder / FILE, metadata={"format": "pt", HEADER: header})
    (folder / "config.json").write_text(json.dumps(config, indent=2) + "\n", "utf-8")
    seen = json.dumps(_seen(source.preprocessing), indent=2) + "\n"
    (folder / "preprocessor_config.json").write_text(seen, "utf-8")
    name = config["architectures"][0]
    given = "".join(f", {key}={value}" for key, value in arguments.items())
    code = f"""from transformers import {name}

model = {name}.from_pretrained("."{given}).eval()
features = model(pixel_values=images).{read}"""

    def load() -> Compute:
        import transformers

        with _without_progress():
            kind = getattr(transformers, name)
            network, found = kind.from_pretrained(folder, output_loading_info=True, **arguments)
        problems = {key: names for key, names in found.items() if names}
        if problems:
            raise NotExpressible(f"transformers' {name} has other tensors ({problems})")
        network.eval()

        def compute(images: Tensor) -> Tensor:
            output = network(pixel_values=images)
            features: Tensor = output.last_hidden_state[:, 0] if vit is not None else output.pooler_output.flatten(1)
            return features

        return compute

    return Written(code, load)


@contextmanager
def _without_progress() -> Iterator[None]:
    from transformers.utils import logging

    shown = logging.is_progress_bar_enabled()
    logging.disable_progress_bar()
    try:
        yield
    finally:
        if shown:
            logging.enable_progress_bar()


def _vit_config(shape: ViTShape) -> dict[str, Any]:
    return {
        "architectures": ["ViTModel"],
        "model_type": "vit",
        "image_size": shape.image_px,
        "patch_size": shape.patch_px,
        "num_channels": 3,
        "hidden_size": shape.dim,
        "num_hidden_layers": shape.depth,
        "num_attention_heads": shape.heads,
        "intermediate_size": shape.mlp_dim,
        "hidden_act": "gelu",
        "layer_norm_eps": shape.norm_eps,
        "qkv_bias": True,
        "hidden_dropout_prob": 0.0,
        "attention_probs_dropout_prob": 0.0,
        "torch_dtype": "float32",
    }


def _vit_tensors(tensors: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """Under transformers' names, with queries, keys and values apart."""
    named: dict[str, Tensor] = {}
    for name, tensor in tensors.items():
        found = re.fullmatch(r"blocks\.(\d+)\.attn\.qkv\.(.+)", name)
        if found:
            for part, rows in zip(("query", "key", "value"), tensor.chunk(3), strict=True):
                named[f"encoder.layer.{found[1]}.attention.attention.{part}.{found[2]}"] = rows
        else:
            named[next(re.sub(old, new, name) for old, new in VIT_NAMES if re.fullmatch(old, name))] = tensor
    return named


def _resnet_config(shape: ResNetShape) -> dict[str, Any]:
    own = shape.stage_channels[0] // WIDENING if shape.bottleneck else shape.stage_channels[0]
    if shape.groups != 1 or shape.inner_channels != own:
        raise NotExpressible(
            f"the 3 x 3 convolutions of its first stage have {shape.inner_channels} channels in {shape.groups} groups, "
            f"and those of transformers' ResNet {own} in one"
        )
    return {
        "architectures": ["ResNetModel"],
        "model_type": "resnet",
        "num_channels": 3,
        "embedding_size": shape.stem_channels,
        "hidden_sizes": list(shape.stage_channels),
        "depths": list(shape.depths),
        "layer_type": "bottleneck" if shape.bottleneck else "basic",
        "hidden_act": "relu",
        "downsample_in_first_stage": False,
        "downsample_in_bottleneck": False,
        "torch_dtype": "float32",
    }


def _resnet_name(name: str) -> str:
    """E.g. `layer2.0.bn1.bias` -> `encoder.stages.1.layers.0.layer.0.normalization.bias`."""
    module, _, kind = name.rpartition(".")
    parts = module.split(".")
    if len(parts) == 1:
        return f"embedder.embedder.{_KINDS[parts[0].rstrip('1')]}.{kind}"
    stage, block = int(parts[0].removeprefix("layer")) - 1, parts[1]
    if parts[2] == "downsample":
        layer = f"shortcut.{_KINDS[parts[3]]}"
    else:
        layer = f"layer.{int(parts[2][-1]) - 1}.{_KINDS[parts[2][:-1]]}"
    return f"encoder.stages.{stage}.layers.{block}.{layer}.{kind}"


_KINDS = {"conv": "convolution", "bn": "normalization", "0": "convolution", "1": "normalization"}


def _seen(seen: Preprocessing) -> dict[str, Any]:
    """Of BitImageProcessor, which resizes the shorter side and crops, as DINOv2's on the hub; squashed: ViT's."""
    resample = BILINEAR if seen.interpolation == "bilinear" else BICUBIC
    config: dict[str, Any] = {
        "image_processor_type": "BitImageProcessor",
        "do_convert_rgb": True,
        "do_resize": True,
        "size": {"shortest_edge": seen.resize_px},
        "resample": resample,
        "do_center_crop": True,
        "crop_size": {"height": seen.crop_px, "width": seen.crop_px},
        "do_rescale": True,
        "rescale_factor": 1 / 255,
        "do_normalize": True,
        "image_mean": list(seen.mean),
        "image_std": list(seen.std),
    }
    if seen.squash:
        config["size"] = {"height": seen.resize_px, "width": seen.resize_px}
    return config


TARGET = Target(FILE, write, packages=("transformers",), extra="hf")
