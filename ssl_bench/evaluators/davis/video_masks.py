"""From the mask of a video's first frame to masks of all: the released DAVIS protocol around `propagation`.

After DINO's eval_video_segmentation.py (read_frame, read_seg, eval_video_tracking_davis). Frames are read one by one
and of past ones only the features and soft labels of the source frames are kept: the first and the last few.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Iterable, Iterator
from dataclasses import dataclass

import numpy as np
import torch
from PIL import Image
from torch import Tensor
from torch.nn.functional import normalize

from ssl_bench.backbone import Backbone
from ssl_bench.blocks.views import IMAGENET_STD
from ssl_bench.datasets.indexed_png import VOID, Mask
from ssl_bench.errors import UserError
from ssl_bench.evaluation.features import UnusableFeatures
from ssl_bench.evaluators.davis.opencv_resize import resize_bilinear
from ssl_bench.evaluators.davis.propagation import hard_labels, propagate

STD = (0.228, 0.224, 0.225)
"""Of the released script, which has 0.228 where ImageNet's is 0.229; for networks that take ImageNet's."""
LONG_SIDE_MULTIPLE_PX = 64
VERSION = 1
"""Of the steps: raised when the same options would give other masks."""


@dataclass(frozen=True)
class Propagation:
    """The options of one propagation; the evaluator's settings of the same names say what they mean."""

    short_side_px: int = 480
    context_frames: int = 7
    radius: int | None = 12
    top_k: int = 5
    temperature: float = 0.1


def sides(short_side_px: int, patch_px: int | None) -> tuple[int, int]:
    """The shorter side, and what the longer side is a multiple of, in px: 64, or a patch where it does not divide 64.

    Where patches do not divide the shorter side either, it is floored. Raises `UserError` where no patch is left.
    """
    step = LONG_SIDE_MULTIPLE_PX if not patch_px or LONG_SIDE_MULTIPLE_PX % patch_px == 0 else patch_px
    short = short_side_px // patch_px * patch_px if patch_px else short_side_px
    if short:
        return short, step
    raise UserError(f"frames of {short_side_px} px on the shorter side have no patch of {patch_px} px: enlarge them")


def frame_size(width: int, height: int, short_side_px: int, patch_px: int | None) -> tuple[int, int]:
    """(height, width) at which the network sees a frame: the shorter side as asked for, the longer in proportion.

    Floored to a multiple of 64 px, so that 854 x 480 becomes 832 x 480; a square is taken for a landscape (read_frame).
    Raises `UserError` where nothing is left of it.
    """
    short, step = sides(short_side_px, patch_px)
    long = int(short * max(width, height) / min(width, height) // step) * step
    if not long:
        raise UserError(f"frames of {width} x {height} px have no {step} px at {short} px on the shorter side: enlarge")
    return (long, short) if height > width else (short, long)


def propagate_masks(
    backbone: Backbone, frames: Iterable[Image.Image], first_mask: Mask, options: Propagation
) -> Iterator[Mask]:
    """The mask of each of `frames` (RGB, of one size), the given one first; reads a frame when its mask is asked for.

    On the device of the backbone, which is in eval mode and supports patch tokens. Objects are those of the first mask:
    void and what appears later are background. Raises `UnusableFeatures` where features are not finite.
    """
    height, width = first_mask.shape
    size = frame_size(width, height, options.short_side_px, backbone.patch_px)
    given = np.where(first_mask == VOID, np.uint8(0), first_mask)
    recent: deque[tuple[Tensor, Tensor]] = deque(maxlen=options.context_frames)
    first: tuple[Tensor, Tensor] | None = None
    for frame in frames:
        features = patch_features(backbone, frame, size)
        if first is None:
            first = features, one_hot(given, features.shape[0], features.shape[1]).to(features)
            yield given
            continue
        sources = [first, *recent]
        soft = propagate(
            features, [source for source, _ in sources], [labels for _, labels in sources],
            radius=options.radius, top_k=options.top_k, temperature=options.temperature,
        )  # fmt: skip
        recent.append((features, soft))
        hard = hard_labels(soft, *size).cpu().numpy()
        yield np.array(Image.fromarray(hard).resize((width, height), Image.Resampling.NEAREST))


@torch.inference_mode()
def patch_features(backbone: Backbone, frame: Image.Image, size: tuple[int, int]) -> Tensor:
    """(rows, columns, dim): l2-normalized patch tokens of an RGB frame resized to `size` (height, width).

    On the device and in the type of the backbone.
    """
    weight = next(backbone.parameters())
    deviation = STD if backbone.std == IMAGENET_STD else backbone.std
    mean, std = (torch.tensor(values)[:, None, None].to(weight) for values in (backbone.mean, deviation))
    pixels = torch.from_numpy(resize_bilinear(np.asarray(frame), *size)).permute(2, 0, 1)
    images = (pixels[None].to(weight) / 255 - mean) / std
    tokens = backbone.patch_tokens(images)[0].permute(1, 2, 0)
    if not bool(torch.isfinite(tokens).all()):
        raise UnusableFeatures("failed", "patch features of the network are not finite: no mask can be propagated")
    return normalize(tokens.contiguous(), dim=2)


def one_hot(mask: Mask, rows: int, columns: int) -> Tensor:
    """(rows, columns, highest value + 1) float32: the mask at the patches' centers (nearest, as Pillow does it).

    An object that no patch's center meets is lost here, as in the released script.
    """
    small = np.array(Image.fromarray(mask).resize((columns, rows), Image.Resampling.NEAREST))
    return torch.nn.functional.one_hot(torch.from_numpy(small).long(), int(mask.max()) + 1).float()
