"""What a network attends to in an image of any size: the size it is seen at, and each head's map on its patches."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Literal

import numpy as np
import torch
from numpy.typing import NDArray
from PIL import Image
from torch import Tensor

from ssl_bench.backbone import Backbone
from ssl_bench.blocks import pixels as operations
from ssl_bench.blocks.patch_sizes import nearest_whole

Resize = Literal["square", "short-side", "native"]


def seen_size(size: tuple[int, int], size_px: int, resize: Resize, patch_px: int | None) -> tuple[int, int]:
    """(height, width) at which a network sees an image of `size` (height, width), in whole patches.

    "square": both sides `size_px`, whatever the aspect (visualize_attention.py's default); "short-side": the shorter
    side `size_px`, the aspect kept; "native": the image's own size. Each side goes to the nearest number of whole
    patches, so that the patches cover the image. (The authors' script cuts the last pixels off.)
    """
    height, width = map(float, size)
    if resize == "square":
        height = width = size_px
    elif resize == "short-side":
        height, width = (side * size_px / min(size) for side in size)
    return nearest_whole(height, patch_px or 1), nearest_whole(width, patch_px or 1)


@torch.inference_mode()
def attention_maps(backbone: Backbone, images: Sequence[Image.Image], size: tuple[int, int]) -> NDArray[np.float64]:
    """(images, heads, rows, columns): last block's CLS attention on RGB `images`, resized to `size` (height, width).

    Bilinear with antialiasing as visualize_attention.py, mean and deviation as the network takes them.
    """
    parameter = next(backbone.parameters())
    batch = torch.stack([_as_tensor(image, size, backbone) for image in images]).to(parameter.device, parameter.dtype)
    maps: NDArray[np.float64] = backbone.attention(batch).double().cpu().numpy()
    return maps


def _as_tensor(image: Image.Image, size: tuple[int, int], backbone: Backbone) -> Tensor:
    height, width = size
    resized = image if image.size == (width, height) else image.resize((width, height), Image.Resampling.BILINEAR)
    values = operations.unpack(resized).transpose(2, 0, 1).astype(np.float32, order="C")
    return operations.normalize(values, backbone.mean, backbone.std)
