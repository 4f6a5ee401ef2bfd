"""A sequence with its masks, to look at: a strip of frames beside target and prediction, and an animation.

Objects have the colours of DAVIS's palette at twice their brightness, as DAVIS's own toolkit shows them, half
transparent over the frame, with an outline.
"""

from __future__ import annotations

import io
from collections.abc import Iterator, Sequence
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageDraw, ImageFont

from ssl_bench.datasets.davis import DavisSequence
from ssl_bench.datasets.indexed_png import PALETTE, VOID, Mask
from ssl_bench.evaluators.davis_results import read_result
from ssl_bench.evaluators.davis_scores import ObjectScores, mean_measures
from ssl_bench.record import write_atomically

INK, FAINT, PAPER = (20, 20, 20), (110, 110, 110), (255, 255, 255)
STRIP_FRAMES = 5
STRIP_TILE_PX = 400
"""Longer side of each picture of a strip."""
GIF_TILE_PX = 360
GIF_FRAMES = 40
"""At most; frames are left out evenly."""
GIF_SECONDS = 4.0
COLOURS = np.minimum(2 * PALETTE.astype(np.int16), 255)
OPACITY = 0.5


def write_pictures(
    folder: Path, sequence: DavisSequence, masks: Path, scores: Sequence[ObjectScores], frames: int = STRIP_FRAMES
) -> tuple[Path, Path]:
    """Write `folder`/SEQUENCE.png, a strip, and SEQUENCE.gif; `masks`/SEQUENCE/FRAME.png are the predictions.

    `scores` are those of the sequence's objects. Raises `UserError` where a file cannot be read or written.
    """
    strip_path, gif_path = folder / f"{sequence.name}.png", folder / f"{sequence.name}.gif"
    reached = mean_measures(scores)
    objects = f"{len(scores)} object{'s' * (len(scores) > 1)}"
    title = f"{sequence.name}, {objects}: " + ", ".join(
        f"{name} {100 * reached[f'{name}-Mean']:.1f}" for name in ("J&F", "J", "F")
    )
    content = io.BytesIO()
    strip(sequence, masks, scores, title, frames).save(content, format="PNG", optimize=True)
    write_atomically(strip_path, content.getvalue())
    write_atomically(gif_path, animation(sequence, masks, title))
    return strip_path, gif_path


def strip(
    sequence: DavisSequence, masks: Path, scores: Sequence[ObjectScores], title: str, frames: int = STRIP_FRAMES
) -> Image.Image:
    """Evenly spaced frames, a row each: the frame, the target and the prediction, with the frame's own J&F."""
    size = _fitted(sequence.size, STRIP_TILE_PX)
    font, large = ImageFont.load_default(17), ImageFont.load_default(24)
    gap, line, head = 10, 26, 82
    chosen = evenly(len(sequence) - 1, frames)  # the last frame is not scored
    sheet = Image.new("RGB", (gap + 3 * (size[0] + gap), head + len(chosen) * (size[1] + line + gap)), PAPER)
    draw = ImageDraw.Draw(sheet)
    draw.text((gap, gap), title, INK, large)
    lefts = [gap + column * (size[0] + gap) for column in range(3)]
    for left, caption in zip(lefts, ("image", "target", "prediction"), strict=True):
        draw.text((left, head - line - 4), caption, INK, font)
    for row, index in enumerate(chosen):
        top = head + row * (size[1] + line + gap)
        frame, truth, found = _frame(sequence, masks, index, size)
        for left, picture in zip(lefts, (frame, overlay(frame, truth), overlay(frame, found)), strict=True):
            sheet.paste(picture, (left, top))
        draw.text((lefts[0], top + size[1] + 3), f"frame {index}", FAINT, font)
        draw.text((lefts[2], top + size[1] + 3), _words(scores, index), FAINT, font)
    return sheet


def animation(sequence: DavisSequence, masks: Path, title: str) -> bytes:
    """An endless GIF of target and prediction side by side."""
    size = _fitted(sequence.size, GIF_TILE_PX)
    chosen = evenly(len(sequence), GIF_FRAMES)
    pictures = list(_animated(sequence, masks, title, size, chosen))
    content = io.BytesIO()
    pictures[0].save(
        content, format="GIF", save_all=True, append_images=pictures[1:], loop=0,
        duration=max(60, round(1000 * GIF_SECONDS / len(chosen))),
    )  # fmt: skip
    return content.getvalue()


def overlay(image: Image.Image, mask: Mask) -> Image.Image:
    """`image` with the objects of `mask` (height, width) of the same size tinted and outlined; void is left out."""
    pixels = np.asarray(image).astype(np.float32)
    objects = np.where(mask == VOID, 0, mask)
    colours = COLOURS[objects].astype(np.float32)
    opacity = np.where(objects > 0, OPACITY, 0.0)[..., None].astype(np.float32)
    mixed = pixels * (1 - opacity) + colours * opacity
    inner = outline(objects)
    mixed[inner] = colours[inner]
    return Image.fromarray(mixed.round().astype(np.uint8))


def outline(mask: NDArray[np.uint8]) -> NDArray[np.bool_]:
    """Pixels of an object that have another value within two pixels up, down, left or right."""
    padded = np.pad(mask, 2, mode="edge")
    height, width = mask.shape
    edge = np.zeros(mask.shape, dtype=bool)
    for step in (0, 1, 3, 4):
        edge |= padded[step : step + height, 2 : 2 + width] != mask
        edge |= padded[2 : 2 + height, step : step + width] != mask
    return edge & (mask > 0)


def evenly(count: int, wanted: int) -> list[int]:
    """At most `wanted` of the indices 0 .. count - 1, from the first to the last, evenly spaced."""
    if wanted >= count:
        return list(range(count))
    return [round(index * (count - 1) / max(1, wanted - 1)) for index in range(wanted)]


def _animated(
    sequence: DavisSequence, masks: Path, title: str, size: tuple[int, int], chosen: Sequence[int]
) -> Iterator[Image.Image]:
    font, gap, head = ImageFont.load_default(15), 6, 50
    for index in chosen:
        frame, truth, found = _frame(sequence, masks, index, size)
        sheet = Image.new("RGB", (3 * gap + 2 * size[0], head + size[1] + gap), PAPER)
        draw = ImageDraw.Draw(sheet)
        draw.text((gap, 4), title, INK, font)
        for column, (caption, mask) in enumerate((("target", truth), ("prediction", found))):
            left = gap + column * (size[0] + gap)
            draw.text((left, 26), caption, FAINT, font)
            sheet.paste(overlay(frame, mask), (left, head))
        yield sheet.quantize(128, dither=Image.Dither.NONE)


def _frame(sequence: DavisSequence, masks: Path, index: int, size: tuple[int, int]) -> tuple[Image.Image, Mask, Mask]:
    """Frame, target and prediction at `size` (width, height)."""
    found = read_result(masks, sequence, sequence.objects(), index)
    small = [
        np.asarray(Image.fromarray(mask).resize(size, Image.Resampling.NEAREST))
        for mask in (sequence.mask(index), found)
    ]
    return sequence.frame(index).resize(size, Image.Resampling.LANCZOS), small[0], small[1]


def _words(scores: Sequence[ObjectScores], index: int) -> str:
    if index == 0:
        return "given"
    return f"J&F {100 * float(np.mean([(one.j[index - 1] + one.f[index - 1]) / 2 for one in scores])):.1f}"


def _fitted(size: tuple[int, int], side_px: int) -> tuple[int, int]:
    """(width, height) whose longer side is `side_px`, of a frame of `size` (height, width)."""
    scale = side_px / max(size)
    return max(1, round(size[1] * scale)), max(1, round(size[0] * scale))
