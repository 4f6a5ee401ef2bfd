"""A sheet of `shapes`: every class at two sizes with its mask, and frames of a clip with the masks of its objects.

    python benchmarks/pictures/shapes_sheet.py docs/shapes.png

The first training images of seed 0, in order; only the clip is picked by hand. A mask is painted in its class's typical
hue, those of the clip in any.
"""

from __future__ import annotations

import colorsys
import sys
from collections.abc import Sequence
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageDraw, ImageFont

from ssl_bench.datasets.shapes.render import CLASSES, CLIP_FRAMES, render, render_clip

SEED = 0
TILE_PX, NATIVE_PX, GAP_PX, LABELS_PX = 96, 32, 8, 84
EXAMPLES = 3
CLIP = 5
"""Of the first ten, a bright one in which two objects meet."""
SHOWN_FRAMES = 8
OBJECT_HUES = (0.04, 0.36, 0.60)
WHITE, GRAY, BLACK = (255, 255, 255), (110, 110, 110), (30, 30, 30)


def main(path: Path) -> None:
    images = [[render(SEED, "train", k + 10 * row, TILE_PX).image for k in range(10)] for row in range(EXAMPLES)]
    last = 10 * (EXAMPLES - 1)
    native = [render(SEED, "train", last + k, NATIVE_PX).image for k in range(10)]
    masks = [render(SEED, "train", last + k, TILE_PX).mask for k in range(10)]

    step = TILE_PX + GAP_PX
    width = LABELS_PX + 10 * step
    frame_width = (10 * step - GAP_PX - (SHOWN_FRAMES - 1) * GAP_PX) // SHOWN_FRAMES
    frame_height = frame_width * 7 // 10  # as the clips of the dataset, 224 x 320
    clip_top = GAP_PX + (EXAMPLES + 2) * step + 36
    sheet = Image.new("RGB", (width, clip_top + 2 * (frame_height + GAP_PX)), WHITE)
    draw, font = ImageDraw.Draw(sheet), ImageFont.load_default(size=12)

    def label(top: int, height: int, words: str) -> None:
        place = (LABELS_PX - GAP_PX, top + height // 2)
        draw.multiline_text(place, words, fill=GRAY, font=font, anchor="rm", align="right", spacing=3)

    rows = [[Image.fromarray(image) for image in row] for row in images]
    rows.append([Image.fromarray(image).resize((TILE_PX, TILE_PX), Image.Resampling.NEAREST) for image in native])
    # `shapes_render` counts its hues from red over blue to green, colorsys the other way.
    rows.append([colored(mask, [1.0 - k / 10]) for k, mask in enumerate(masks)])
    words = ["drawn at\n96 px"] * EXAMPLES + ["same scene\nat 32 px, as\ntrained on", "its mask"]
    for number, (row, what) in enumerate(zip(rows, words, strict=True)):
        top = GAP_PX + number * step
        if number == 0 or what != words[number - 1]:
            label(top, TILE_PX, what)
        for k, picture in enumerate(row):
            sheet.paste(picture, (LABELS_PX + k * step, top))
    for k, name in enumerate(CLASSES):
        place = (LABELS_PX + k * step + TILE_PX // 2, GAP_PX + len(rows) * step)
        draw.text(place, name, fill=BLACK, font=font, anchor="ma")

    frames, objects = render_clip(SEED, CLIP, (frame_height, frame_width))
    label(clip_top, frame_height, "frames\nof a clip")
    label(clip_top + frame_height + GAP_PX, frame_height, "masks of\nits objects")
    for column in range(SHOWN_FRAMES):
        frame = column * CLIP_FRAMES // SHOWN_FRAMES
        left = LABELS_PX + column * (frame_width + GAP_PX)
        sheet.paste(Image.fromarray(frames[frame]), (left, clip_top))
        sheet.paste(colored(objects[frame], OBJECT_HUES), (left, clip_top + frame_height + GAP_PX))
    path.parent.mkdir(parents=True, exist_ok=True)
    shades = np.asarray(sheet) >> 3  # 32 shades a channel: hardly to be seen, and half the file size
    Image.fromarray(shades << 3 | shades >> 2).save(path, optimize=True)
    print(f"{path}: {sheet.width} x {sheet.height} px, {path.stat().st_size / 1000:.0f} kB")


def colored(mask: NDArray[np.uint8], hues: Sequence[float]) -> Image.Image:
    """Object i of `mask` (h, w) in the i-th hue on light gray."""
    picture = np.full((*mask.shape, 3), 236, np.uint8)
    for number, hue in enumerate(hues, start=1):
        picture[mask == number] = np.array(colorsys.hsv_to_rgb(hue, 0.65, 0.88)) * 255.0
    return Image.fromarray(picture)


if __name__ == "__main__":
    main(Path(sys.argv[1]))
