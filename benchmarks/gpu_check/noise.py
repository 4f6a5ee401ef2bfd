"""Images without meaning, all different, and methods on them: enough to see whether a device computes."""

from __future__ import annotations

from collections.abc import Mapping
from random import Random

import numpy as np
import torch
from PIL import Image
from torch import nn
from torch.utils.data import default_collate

from benchmarks.gpu_check.checks import Architecture, Bench
from ssl_bench import registry
from ssl_bench.dataset import Dataset
from ssl_bench.datasets.opening import Found
from ssl_bench.method import Batch, Method
from ssl_bench.planning.stand_in import StandIn
from ssl_bench.recipes.request import Request
from ssl_bench.recipes.resolve import Resolved, resolve
from ssl_bench.runs.building import build_method, seed_initial_weights
from ssl_bench.settings import parse_settings


class NoiseSplit:
    """Smooth color noise; the classes take turns."""

    def __init__(self, count: int, image_px: int, classes: int) -> None:
        self.count, self.image_px = count, image_px
        self.labels = [index % classes for index in range(count)]

    def __len__(self) -> int:
        return self.count

    def image(self, index: int) -> Image.Image:
        coarse = np.random.default_rng(index).integers(0, 256, (8, 8, 3), dtype=np.uint8)
        return Image.fromarray(coarse).resize((self.image_px, self.image_px), Image.Resampling.BICUBIC)


def open_noise(found: Found, settings: Mapping[str, object]) -> Dataset:
    """A `datasets.opening.Opening` that opens noise whatever was found."""
    data = StandIn(parse_settings(StandIn.Config, settings, "data", "noise"))
    data.train = NoiseSplit(data.config.train_images, data.config.image_px, data.config.classes)
    return data


def resolved(name: str, architecture: Architecture, bench: Bench) -> Resolved:
    """A run of the method on noise, whose epoch has `steps` steps."""
    sizes = bench.sizes
    values: dict[str, object] = {
        "data.image_px": sizes.image_px,
        "data.train_images": sizes.batch * sizes.steps,
        "data.classes": 10,
        "training.batch_size": sizes.batch,
        **architecture.values,
    }
    return resolve(Request(method=name, arch=architecture.name, values=values, evaluators=()), open_noise)


def methods(bench: Bench) -> list[str]:
    """Those that are tried, all that are registered by default."""
    return list(bench.sizes.methods) or registry.names("method")


def own_methods(bench: Bench) -> list[str]:
    """Without those that are made of another library's blocks."""
    return [name for name in methods(bench) if not registry.find("method", name).extras]


def missing(name: str) -> str:
    """How to install what a method needs; "" where nothing is missing."""
    return registry.find("method", name).lacking()


def built(request: Resolved) -> Method:
    """The method with the initial weights of seed 0, on the CPU."""
    seed_initial_weights(0)
    return build_method(request)


def low_precisions(device: torch.device) -> dict[str, torch.dtype]:
    """What autocast offers: bf16 only where it is not emulated."""
    offered = {"fp16": torch.float16}
    if device.type != "cuda" or torch.cuda.get_device_capability(device) >= (8, 0):
        offered["bf16"] = torch.bfloat16
    return offered


def noise_batch(request: Resolved, method: Method, count: int, device: torch.device) -> Batch:
    """`count` images' views as a run would make them."""
    split, make_views = request.training_split, method.make_views(request.method_config)
    views = tuple(default_collate([tuple(make_views(split.image(index), Random(index))) for index in range(count)]))
    views = method.draw_over_batch()(views, Random(0))
    labels = torch.tensor([split.labels[index] for index in range(count)]) if split.labels is not None else None
    moved = labels.to(device) if method.needs_labels and labels is not None else None
    return Batch(tuple(view.to(device) for view in views), torch.arange(count, device=device), moved)


def without_dropout(method: Method) -> Method:
    """Dropout and stochastic depth switched off, which draw other numbers on another device."""
    for module in method.modules():
        if isinstance(module, nn.Dropout):
            module.p = 0.0
        if hasattr(module, "drop_prob"):
            setattr(module, "drop_prob", 0.0)  # noqa: B010 (of timm and of plugins)
    return method
