"""A sequence with its masks, to look at: a strip of frames beside target and prediction, and an animation.

Objects have the colors of DAVIS's palette at twice their brightness, as DAVIS's own toolkit shows them, half
transparent over the frame, with an outline.
"""

from __future__ import annotations

import io
from collections.abc import Sequence
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageDraw, ImageFont

from ssl_bench.datasets.davis import DavisSequence
from ssl_bench.datasets.indexed_png import PALETTE, VOID, Mask
from ssl_bench.errors import UserError
from ssl_bench.evaluators.davis.results import read_result
from ssl_bench.evaluators.davis.scores import ObjectScores, mean_measures
from ssl_bench.system.files import write_atomically

INK, FAINT, PAPER = (20, 20, 20), (110, 110, 110), (255, 255, 255)
Color = tuple[int, int, int]
OPACITY = 0.5
STRIP_TILE_PX = 400
"""Longer side of each picture of a strip; of an animation 320."""
GIF_TILE_PX = 320
GIF_FRAMES = 30
"""At most; frames are left out evenly."""
GIF_SECONDS = 4.0
COLORS = np.minimum(2 * PALETTE.astype(np.int16), 255)
LEGEND = 8
"""At most so many objects have a legend of their own; the others are in the mean alone."""


def write_pictures(
    folder: Path, sequence: DavisSequence, masks: Path, scores: Sequence[ObjectScores], by: str = "", frames: int = 5
) -> tuple[Path, Path]:
    """Write `folder`/SEQUENCE.png, a strip, and SEQUENCE.gif; `masks`/SEQUENCE/FRAME.png are the predictions.

    `scores` are those of the sequence's objects, `by` names who made the masks. Raises `UserError` where a file cannot
    be read or written.
    """
    strip_path, gif_path = folder / f"{sequence.name}.png", folder / f"{sequence.name}.gif"
    try:
        folder.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise UserError(f"cannot make the folder {folder}: {error.strerror}") from None
    content = io.BytesIO()
    strip(sequence, masks, scores, by, frames).save(content, format="PNG", optimize=True)
    write_atomically(strip_path, content.getvalue())
    write_atomically(gif_path, animation(sequence, masks, scores, by))
    return strip_path, gif_path


def strip(
    sequence: DavisSequence, masks: Path, scores: Sequence[ObjectScores], by: str = "", frames: int = 5
) -> Image.Image:
    """Evenly spaced frames, one row each: the frame, the target and the prediction, with the frame's own J&F."""
    size = _fitted(sequence.size, STRIP_TILE_PX)
    font, gap, line, head = ImageFont.load_default(18), 12, 28, 110 if len(scores) > 1 else 80
    chosen = evenly(len(sequence) - 1, frames)  # the last frame is not scored
    sheet = Image.new("RGB", (gap + 3 * (size[0] + gap), head + len(chosen) * (size[1] + line + gap)), PAPER)
    draw = ImageDraw.Draw(sheet)
    _heading(draw, gap, sequence, scores, by, text_px=24)
    lefts = [gap + column * (size[0] + gap) for column in range(3)]
    for left, caption in zip(lefts, ("image", "target", "prediction"), strict=True):
        draw.text((left, head - line), caption, INK, font)
    for row, index in enumerate(chosen):
        top = head + row * (size[1] + line + gap)
        frame, truth, found = _frame(sequence, masks, index, size)
        for left, picture in zip(lefts, (frame, overlay(frame, truth), overlay(frame, found)), strict=True):
            sheet.paste(picture, (left, top))
        number = int(sequence.frame_names[index]) if sequence.frame_names[index].isdecimal() else index
        draw.text((lefts[0], top + size[1] + 3), f"frame {number}", FAINT, font)
        words = "given" if index == 0 else f"J&F {100 * _reached(scores, index):.1f}"
        draw.text((lefts[2], top + size[1] + 3), words, FAINT, font)
    return sheet


def animation(sequence: DavisSequence, masks: Path, scores: Sequence[ObjectScores], by: str = "") -> bytes:
    """An endless GIF of target and prediction side by side."""
    size, chosen = _fitted(sequence.size, GIF_TILE_PX), evenly(len(sequence), GIF_FRAMES)
    font, gap, head = ImageFont.load_default(15), 8, 78 if len(scores) > 1 else 58
    pictures = []
    for index in chosen:
        frame, truth, found = _frame(sequence, masks, index, size)
        sheet = Image.new("RGB", (3 * gap + 2 * size[0], head + size[1] + gap), PAPER)
        draw = ImageDraw.Draw(sheet)
        _heading(draw, gap, sequence, scores, by, text_px=17)
        for column, (caption, mask) in enumerate((("target", truth), ("prediction", found))):
            left = gap + column * (size[0] + gap)
            draw.text((left, head - 20), caption, INK, font)
            sheet.paste(overlay(frame, mask), (left, head))
        pictures.append(sheet.quantize(128, dither=Image.Dither.NONE))
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
    colors = COLORS[objects].astype(np.float32)
    opacity = np.where(objects > 0, OPACITY, 0.0)[..., None].astype(np.float32)
    mixed = pixels * (1 - opacity) + colors * opacity
    inner = outline(objects)
    mixed[inner] = colors[inner]
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


def _heading(
    draw: ImageDraw.ImageDraw, gap: int, sequence: DavisSequence, scores: Sequence[ObjectScores], by: str, text_px: int
) -> None:
    """The sequence with its scores and who made the masks, and under it each object's color and score."""
    means = mean_measures(scores)
    words = ", ".join(f"{name} {100 * means[f'{name}-Mean']:.1f}" for name in ("J&F", "J", "F"))
    title, small = ImageFont.load_default(text_px), ImageFont.load_default(round(0.75 * text_px))
    draw.text((gap, gap), f"{sequence.name}: {words}", INK, title)
    if by:
        right = draw.im.size[0] - gap - draw.textlength(by, small)
        after = gap + draw.textlength(f"{sequence.name}: {words}   ", title)
        draw.text((max(after, right), gap + text_px // 4), by, FAINT, small)
    if len(scores) == 1:
        return
    side, top, words = round(0.7 * text_px), gap + round(1.5 * text_px), "J&F of each object"
    draw.text((gap, top), words, FAINT, small)
    left = gap + side + draw.textlength(words, small)
    for number, one in enumerate(scores[:LEGEND], start=1):
        draw.rectangle((left, top + 2, left + side, top + 2 + side), _color(number), INK)
        label = f"{100 * one.measures()['J&F-Mean']:.1f}"
        draw.text((left + 1.3 * side, top), label, FAINT, small)
        left += 2.4 * side + draw.textlength(label, small)


def _frame(sequence: DavisSequence, masks: Path, index: int, size: tuple[int, int]) -> tuple[Image.Image, Mask, Mask]:
    """Frame, target and prediction at `size` (width, height)."""
    found = read_result(masks, sequence, sequence.objects(), index)
    small = [
        np.asarray(Image.fromarray(mask).resize(size, Image.Resampling.NEAREST))
        for mask in (sequence.mask(index), found)
    ]
    return sequence.frame(index).resize(size, Image.Resampling.LANCZOS), small[0], small[1]


def _reached(scores: Sequence[ObjectScores], index: int) -> float:
    """Mean J&F over the objects in one scored frame."""
    return float(np.mean([(one.j[index - 1] + one.f[index - 1]) / 2 for one in scores]))


def _color(value: int) -> Color:
    red, green, blue = COLORS[value]
    return int(red), int(green), int(blue)


def _fitted(size: tuple[int, int], side_px: int) -> tuple[int, int]:
    """(width, height) whose longer side is `side_px`, of a frame of `size` (height, width)."""
    scale = side_px / max(size)
    return max(1, round(size[1] * scale)), max(1, round(size[0] * scale))
