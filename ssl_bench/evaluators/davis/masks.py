"""Masks of a sequence on the disk, as DAVIS takes results, and what proves that they need not be made again.

FOLDER/SEQUENCE/00000.png, .. with `made_by.json` beside them: a digest of the weights, the options, the frames and the
first mask. It is written last, so masks of an interrupted sequence are made anew, and so are those of other weights.
"""

from __future__ import annotations

import hashlib
import json
import time
from collections.abc import Callable
from dataclasses import asdict
from pathlib import Path

import torch

from ssl_bench.backbone import Backbone
from ssl_bench.blocks.views import IMAGENET_MEAN, IMAGENET_STD
from ssl_bench.datasets.davis import DavisSequence
from ssl_bench.datasets.indexed_png import write_mask
from ssl_bench.errors import UserError
from ssl_bench.evaluators.davis.video_masks import VERSION, Propagation, propagate_masks
from ssl_bench.system.files import write_atomically

MADE_BY = "made_by.json"
SAY_SECONDS = 20.0
"""Between two lines of progress within a sequence."""


def network_digest(backbone: Backbone) -> str:
    """Of the names and values of all weights and buffers, the side of a patch and how positions are resampled."""
    digest = hashlib.sha256(f"{type(backbone).__qualname__} {backbone.patch_px}".encode())
    earlier_rule = backbone.settings_before.get("positions")  # masks from before there was a choice stay valid
    if backbone.positions not in (None, earlier_rule):
        digest.update(f"positions {backbone.positions}".encode())
    if (backbone.mean, backbone.std) != (IMAGENET_MEAN, IMAGENET_STD):
        digest.update(f"mean {backbone.mean}, std {backbone.std}".encode())
    for name, tensor in backbone.state_dict().items():
        digest.update(f"{name} {tuple(tensor.shape)} {tensor.dtype}".encode())
        digest.update(tensor.detach().cpu().contiguous().flatten().view(torch.uint8).numpy())
    return digest.hexdigest()


def masks_digest(network: str, sequence: DavisSequence, options: Propagation) -> str:
    """Of all that decides the masks of `sequence`: `network` is a `network_digest`."""
    frames = [[path.name, path.stat().st_size] for path in sequence.frames]
    first = hashlib.sha256(sequence.mask(0).tobytes()).hexdigest()
    content = [VERSION, network, asdict(options), sequence.name, frames, sequence.size, first]
    return hashlib.sha256(json.dumps(content, sort_keys=True).encode()).hexdigest()


def kept_masks(folder: Path, sequence: DavisSequence, digest: str) -> float | None:
    """Seconds a frame took when all masks of this digest were made into `folder`; None where it does not hold them."""
    try:
        made = json.loads((folder / MADE_BY).read_text())
        whole = all((folder / f"{name}.png").is_file() for name in sequence.frame_names)
        return float(made["seconds_per_frame"]) if whole and made["digest"] == digest else None
    except (OSError, ValueError, KeyError, TypeError):
        return None


def write_masks(
    folder: Path,
    backbone: Backbone,
    sequence: DavisSequence,
    options: Propagation,
    digest: str,
    say: Callable[[str], None] = lambda line: None,
) -> float:
    """Propagate the first mask of `sequence` and write `folder`/FRAME.png for every frame; seconds a frame.

    Raises `UserError` for a frame that cannot be read, a first mask without an object, or a folder that cannot be
    written, and `UnusableFeatures` where the network gives NaN.
    """
    sequence.objects()
    try:
        folder.mkdir(parents=True, exist_ok=True)
        (folder / MADE_BY).unlink(missing_ok=True)
    except OSError as error:
        raise UserError(f"cannot write masks into {folder}: {error.strerror}. Choose another --results DIR.") from None
    begun = reported = time.monotonic()
    frames = (sequence.frame(index) for index in range(len(sequence)))
    masks = propagate_masks(backbone, frames, sequence.mask(0), options)
    for done, (name, mask) in enumerate(zip(sequence.frame_names, masks, strict=True), start=1):
        write_mask(folder / f"{name}.png", mask)
        if time.monotonic() - reported > SAY_SECONDS:
            reported = time.monotonic()
            say(f"{sequence.name}: {done} of {len(sequence)} frames, {(reported - begun) / done:.1f} s per frame")
    seconds = round((time.monotonic() - begun) / len(sequence), 4)
    content = {"digest": digest, "seconds_per_frame": seconds}
    write_atomically(folder / MADE_BY, (json.dumps(content) + "\n").encode())
    return seconds
