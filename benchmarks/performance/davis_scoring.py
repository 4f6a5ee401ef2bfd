"""Speed of J and F on 480p masks against the plain formula, measured in one run with interleaved repetitions.

The plain formula works on the whole frame, as the released scorer davis2017-evaluation does: outlines by comparing with
three neighbors, dilated by a disk with OpenCV where it is installed (the released scorer's own call), else the pixels
within the radius by SciPy's exact distance transform, which is the quickest that SciPy has. Both sides read the same
indexed PNGs with the same reader, and their scores are checked against each other in every repetition. Seconds are of
one core's time (process time, one thread), so that what else runs on the machine counts little.

    python -m benchmarks.performance.davis_scoring --objects 1 3 --frames 40 --repeats 5
    python -m benchmarks.performance.davis_scoring --davis DAVIS --masks RESULTS
"""

from __future__ import annotations

import argparse
import os
import platform
import tempfile
import time
from collections.abc import Callable, Iterable, Sequence
from importlib.util import find_spec
from math import ceil, hypot
from pathlib import Path
from statistics import median

import numpy as np
from numpy.typing import NDArray
from PIL import Image
from scipy import ndimage

from benchmarks.performance.ratios import Goal, Ratio, by_turns, faster
from ssl_bench.datasets.davis import DavisSequence, open_davis
from ssl_bench.datasets.indexed_png import Mask, write_mask
from ssl_bench.evaluators.davis.results import read_result, score_results

HEIGHT, WIDTH = 480, 854
Dilate = Callable[[NDArray[np.bool_], int], NDArray[np.bool_]]


def scipy_dilate(points: NDArray[np.bool_], radius: int) -> NDArray[np.bool_]:
    """Pixels within the radius; nothing where there is no point."""
    return ndimage.distance_transform_edt(~points) <= radius if points.any() else points


def opencv_dilate(points: NDArray[np.bool_], radius: int) -> NDArray[np.bool_]:
    """The released scorer's call."""
    import cv2

    cv2.setNumThreads(1)
    rows, columns = np.mgrid[-radius : radius + 1, -radius : radius + 1]
    disk = (rows**2 + columns**2 <= radius**2).astype(np.uint8)
    return cv2.dilate(points.astype(np.uint8), disk).astype(bool)


def plain_outline(mask: NDArray[np.bool_]) -> NDArray[np.bool_]:
    """Where a pixel differs from its right, lower or lower right neighbor, over the whole frame."""
    outline = np.zeros_like(mask)
    outline[:, :-1] |= mask[:, :-1] ^ mask[:, 1:]
    outline[:-1] |= mask[:-1] ^ mask[1:]
    outline[:-1, :-1] |= mask[:-1, :-1] ^ mask[1:, 1:]
    return outline


def plain_scores(truth: Mask, result: Mask, objects: int, dilate: Dilate) -> list[tuple[float, float]]:
    """J and F of each object in one frame."""
    radius, scores = ceil(0.008 * hypot(*truth.shape)), []
    for k in range(1, objects + 1):
        ours, theirs = truth == k, result == k
        union = (ours | theirs).sum()
        of_truth, of_result = plain_outline(ours), plain_outline(theirs)
        precision = (of_result & dilate(of_truth, radius)).sum() / max(of_result.sum(), 1)
        recall = (of_truth & dilate(of_result, radius)).sum() / max(of_truth.sum(), 1)
        f = 2 * precision * recall / (precision + recall) if precision + recall else 0.0
        if not of_truth.any() and not of_result.any():
            f = 1.0
        scores.append(((ours & theirs).sum() / union if union else 1.0, f))
    return scores


def plain(masks: Path, sequences: Iterable[DavisSequence], dilate: Dilate) -> list[NDArray[np.float64]]:
    """(frames, 2) of every object of every sequence."""
    scores = []
    for sequence in sequences:
        objects = sequence.objects()
        frames = [
            plain_scores(sequence.mask(frame), read_result(masks, sequence, objects, frame), objects, dilate)
            for frame in range(1, len(sequence) - 1)
        ]
        scores += list(np.array(frames).transpose(1, 0, 2))
    return scores


def ours(masks: Path, sequences: Sequence[DavisSequence]) -> list[NDArray[np.float64]]:
    """The same from ssl_bench."""
    return [np.stack([one.j, one.f], axis=1) for one in score_results(masks, sequences)]


def write_clip(root: Path, frames: int, objects: int) -> tuple[Path, Path]:
    """A DAVIS folder with one 480p clip of ellipses that drift, and a result a few px off; the paths of both."""
    davis, masks = root / "DAVIS", root / "masks"
    folders = davis / "JPEGImages/480p/drift", davis / "Annotations/480p/drift", masks / "drift"
    for folder in (*folders, davis / "ImageSets/2017"):
        folder.mkdir(parents=True)
    (davis / "ImageSets/2017/val.txt").write_text("drift\n")
    for frame in range(frames):
        Image.new("RGB", (WIDTH, HEIGHT)).save(folders[0] / f"{frame:05d}.jpg")
        write_mask(folders[1] / f"{frame:05d}.png", ellipses(frame, objects, 0))
        write_mask(folders[2] / f"{frame:05d}.png", ellipses(frame, objects, 6))
    return davis, masks


def ellipses(frame: int, objects: int, off_px: int) -> Mask:
    """One frame: axes of about 110 x 70 px, as the objects of DAVIS, with a wavy outline."""
    mask = np.zeros((HEIGHT, WIDTH), np.uint8)
    rows, columns = np.mgrid[:HEIGHT, :WIDTH].astype(np.float32)
    for k in range(objects):
        y = rows - 160 - 160 * (k % 2) - off_px * np.sin(frame)
        x = columns - 150 - 540 * k / max(objects - 1, 1) - frame - off_px
        angle = np.arctan2(y, x)
        mask[np.hypot(y / 70, x / 110) < 1 + 0.08 * np.sin(9 * angle + frame / 5)] = k + 1
    return mask


def ratios(*, quick: bool = False) -> list[Ratio]:
    """One and three objects a frame, on one thread; both PNGs are read by both sides."""
    found = []
    dilate, library = (opencv_dilate, "OpenCV") if find_spec("cv2") is not None else (scipy_dilate, "SciPy")
    for objects in (1, 3):
        with tempfile.TemporaryDirectory() as folder:
            davis, masks = write_clip(Path(folder), 4 if quick else 20, objects)
            sequences = open_davis(davis).sequences
            frames = sum(len(sequence) - 2 for sequence in sequences)
            wanted, scores = plain(masks, sequences, dilate), ours(masks, sequences)
            assert all(np.allclose(a, b, rtol=0, atol=1e-12) for a, b in zip(wanted, scores, strict=True))
            pairs = by_turns(
                lambda masks=masks, sequences=sequences: ours(masks, sequences),  # type: ignore[misc]
                lambda masks=masks, sequences=sequences: plain(masks, sequences, dilate),  # type: ignore[misc]
                2 if quick else 5, warm_up=False,
            )  # fmt: skip
        name = f"J and F of a 480p frame, {objects} object{'s' * (objects > 1)}"
        found.append(faster(name, f"the whole frame, by {library}", pairs, 1, Goal(), work=frames))
    return found


def compare(davis: Path, masks: Path, repeats: int) -> float:
    """Print times, frames a second and ratios; the median ratio."""
    sequences = open_davis(davis).sequences
    frames = sum(len(sequence) - 2 for sequence in sequences)
    objects = sum(sequence.objects() for sequence in sequences)
    with_opencv = find_spec("cv2") is not None
    dilate, name = (opencv_dilate, "OpenCV") if with_opencv else (scipy_dilate, "SciPy")
    print(
        f"{frames} scored frames of {len(sequences)} sequences, {objects} objects, {HEIGHT}p; plain formula by {name}"
    )
    seconds: dict[str, list[float]] = {"plain": [], "ours": []}
    for repeat in range(repeats):
        begun = time.process_time()
        wanted = plain(masks, sequences, dilate)
        between = time.process_time()
        found = ours(masks, sequences)
        seconds["plain"].append(between - begun)
        seconds["ours"].append(time.process_time() - between)
        assert all(np.allclose(a, b, rtol=0, atol=1e-12) for a, b in zip(wanted, found, strict=True))
        print(
            f"  repetition {repeat + 1}: plain {seconds['plain'][-1]:.2f} s, ours {seconds['ours'][-1]:.2f} s",
            flush=True,
        )
    ratios = [plain / own for plain, own in zip(*seconds.values(), strict=True)]
    rate = {side: frames / median(times) for side, times in seconds.items()}
    print(
        f"  ours {rate['ours']:.0f} frames a second and core, plain {rate['plain']:.0f}, reading both PNGs included: "
        f"{median(ratios):.2f} times as fast (median of {repeats}, {min(ratios):.2f} to {max(ratios):.2f})"
    )
    return median(ratios)


def main(arguments: Sequence[str] | None = None) -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--objects", type=int, nargs="+", default=[1, 3], help="of the drawn clips (default: 1 3)")
    parser.add_argument("--frames", type=int, default=30, help="of a drawn clip (default: %(default)s)")
    parser.add_argument("--repeats", type=int, default=3, help="interleaved repetitions (default: %(default)s)")
    parser.add_argument("--davis", type=Path, help="real truth instead of drawn clips")
    parser.add_argument("--masks", type=Path, help="the result to score with --davis")
    given = parser.parse_args(arguments)
    if (given.davis is None) != (given.masks is None):
        parser.error("--davis and --masks go together")
    print(f"{platform.processor() or platform.machine()}, {os.cpu_count()} cores, one used, numpy {np.__version__}")
    if given.davis is not None:
        compare(given.davis, given.masks, given.repeats)
        return 0
    for objects in given.objects:
        with tempfile.TemporaryDirectory() as folder:
            compare(*write_clip(Path(folder), given.frames, objects), given.repeats)
    return 0


if __name__ == "__main__":
    raise SystemExit(main())
