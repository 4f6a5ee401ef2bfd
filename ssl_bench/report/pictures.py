"""Pictures that runs keep (attention maps, propagated masks, clips), made small enough for the page."""

from __future__ import annotations

import io
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from ssl_bench.records.record import RunRecord
from ssl_bench.report.embedding import data_uri
from ssl_bench.report.runs import run_anchor

if TYPE_CHECKING:
    from PIL.ImageFile import ImageFile

Shrunk = tuple[bytes, tuple[int, int]]
"""A WebP file, and its width and height."""

LONGEST_SIDE = 1000
"""Pixels of an embedded picture."""
LONGEST_SIDE_OF_CLIP = 480
MOST_FRAMES = 40
OF_EACH_EVALUATION = 2
"""Pictures of one evaluator and network of a run that are shown."""
MOST_BYTES = 2_500_000
"""Of all embedded pictures before base64, which adds a third."""
LARGEST_FILE = 50_000_000
ADDED_BY_HAND = "pictures"
"""Folder of a run where `davis-video` writes, and where any picture can be put."""
ENDINGS = (".png", ".gif", ".webp", ".jpg", ".jpeg")


@dataclass(frozen=True)
class PictureView:
    """An embedded picture."""

    caption: str
    alt: str
    run: str
    href: str
    """Place of the run in the page."""
    address: str
    width: int
    height: int
    clip: str = ""
    """Address of the animation that it is a strip or a frame of; it plays only where a reader opens it."""


@dataclass(frozen=True)
class Pictures:
    """Those that are shown, and what is said of the others."""

    shown: tuple[PictureView, ...]
    left_out: str
    problems: tuple[str, ...]


@dataclass(frozen=True)
class _Chosen:
    """A picture of a run, as paths below its folder."""

    still: str
    clip: str
    words: str


def pictures_of(runs: Sequence[tuple[Path, RunRecord]]) -> Pictures:
    """The first pictures of each evaluation and each run's `pictures/`, as long as they fit; `runs` in page order."""
    shown: list[PictureView] = []
    problems: list[str] = []
    total = left_out = 0
    for path, record in runs:
        chosen, further = _chosen(record, path.parent)
        left_out += further
        for one in chosen:
            if total >= MOST_BYTES:
                left_out += 1
                continue
            try:
                view, size = _embedded(path.parent, one, record.run_id)
            except (OSError, ValueError, SyntaxError) as error:  # SyntaxError: Pillow's for a broken PNG
                problems.append(f"the picture {path.parent / one.still} is left out: {error}")
                continue
            if total + size > MOST_BYTES:
                left_out += 1
                continue
            total += size
            shown.append(view)
    more = f"Further pictures in the folders of the runs: {left_out:,}." if left_out else ""
    return Pictures(tuple(shown), more, tuple(problems))


def _chosen(record: RunRecord, folder: Path) -> tuple[list[_Chosen], int]:
    """The pictures of a run to show, of those that are there, and how many more there are."""
    found: list[_Chosen] = []
    further = 0
    known: set[str] = set()
    for evaluation in sorted(record.evaluations, key=lambda one: (one.before_training, one.made_utc)):
        there = [place for place in evaluation.pictures if (folder / place).is_file() and place not in known]
        known |= set(there)
        words = f"{evaluation.evaluator} on {evaluation.data}, {evaluation.subject} network"
        of_evaluation = _with_clips(there, words)
        found += of_evaluation[:OF_EACH_EVALUATION]
        further += len(of_evaluation[OF_EACH_EVALUATION:])
    by_hand = folder / ADDED_BY_HAND
    added = sorted(by_hand.iterdir()) if by_hand.is_dir() else []
    places = [f"{ADDED_BY_HAND}/{one.name}" for one in added if one.suffix.lower() in ENDINGS]
    return [*found, *_with_clips(places, "added to the run")], further


def _with_clips(places: Sequence[str], words: str) -> list[_Chosen]:
    """A strip of frames and the clip of the same name are one picture."""
    stills = {place.removesuffix(".png"): place for place in places if place.endswith(".png")}
    clips = {place.removesuffix(".gif"): place for place in places if place.endswith(".gif")}
    others = {place: place for place in places if not place.endswith((".png", ".gif"))}
    names = dict.fromkeys([*stills, *clips, *others])
    return [_Chosen(stills.get(name) or others.get(name) or clips[name], clips.get(name, ""), words) for name in names]


def _embedded(folder: Path, one: _Chosen, run: str) -> tuple[PictureView, int]:
    """The view, and the bytes in it. Raises `OSError` or `ValueError` for what is no picture of the run."""
    still, (width, height) = _read(folder, one.still, _still)
    clip = _read(folder, one.clip, _clip)[0] if one.clip else b""
    name = Path(one.still).stem
    view = PictureView(
        caption=f"{name}: {one.words}",
        alt=f"{name}, {one.words} of {run}",
        run=run,
        href=f"#{run_anchor(run)}",
        address=data_uri("image/webp", still),
        width=width,
        height=height,
        clip=data_uri("image/webp", clip) if clip else "",
    )
    return view, len(still) + len(clip)


def _read(folder: Path, place: str, shrink: Callable[[ImageFile], Shrunk]) -> Shrunk:
    from PIL import Image

    path = (folder / place).resolve()
    if not path.is_relative_to(folder.resolve()):
        raise ValueError("it lies outside the run's folder")
    if path.stat().st_size > LARGEST_FILE:
        raise ValueError(f"it has more than {LARGEST_FILE:,} bytes")
    try:
        with Image.open(path, formats=("PNG", "GIF", "WEBP", "JPEG")) as picture:
            return shrink(picture)
    except Image.DecompressionBombError as error:
        raise ValueError(str(error)) from None


def _still(picture: ImageFile) -> Shrunk:
    small = picture.convert("RGB")
    small.thumbnail((LONGEST_SIDE, LONGEST_SIDE))
    content = io.BytesIO()
    small.save(content, format="WEBP", quality=80, method=6)
    return content.getvalue(), small.size


def _clip(picture: ImageFile) -> Shrunk:
    """An animation of at most `MOST_FRAMES` frames that takes as long."""
    count = getattr(picture, "n_frames", 1)
    step = -(-count // MOST_FRAMES)
    frames = []
    duration = 0
    for number in range(count):
        picture.seek(number)
        duration += int(picture.info.get("duration", 100))
        if number % step == 0:
            frame = picture.convert("RGB")
            frame.thumbnail((LONGEST_SIDE_OF_CLIP, LONGEST_SIDE_OF_CLIP))
            frames.append(frame)
    content = io.BytesIO()
    frames[0].save(
        content, format="WEBP", quality=60, save_all=True, append_images=frames[1:], loop=0,
        duration=max(20, duration // len(frames)),
    )  # fmt: skip
    return content.getvalue(), frames[0].size
