"""Speed of a method's views against lightly's transform for the same method with the same settings.

    python -m benchmarks.performance.views [--method dino] [--images FOLDER] [--repeats 9] [--small] [--crops-only]

Both sides open every JPEG from disk with Pillow, convert it to RGB and make its views, on one thread. Each repetition
times both sides on the same images, image by image in alternating order, so that what else runs on the machine meets
both; the printed figure is the median over repetitions of the ratio of views per second. ``--small`` takes 32 px
images and CIFAR-sized crops (2 x 32, for DINO and SwAV also 6 x 16) instead, where the price is the call and not the
pixel. Strengths and probabilities are those of the papers, which are lightly's defaults. ``--crops-only`` compares what
a worker does with machine.augment_on = device with the whole views that it makes otherwise, in place of lightly's.
"""

from __future__ import annotations

import argparse
import random
import statistics
import tempfile
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from lightly.transforms import (
    BYOLTransform,
    BYOLView1Transform,
    BYOLView2Transform,
    DINOTransform,
    MoCoV2Transform,
    SimCLRTransform,
    SwaVTransform,
)
from PIL import Image

from benchmarks.performance.ratios import Goal, Ratio, faster
from ssl_bench import registry
from ssl_bench.blocks.device_views import DeviceViews
from ssl_bench.evaluation.speed import Timing
from ssl_bench.method import MakeViews
from ssl_bench.settings import parse_settings

JPEG_SUFFIXES = {".jpg", ".jpeg"}


@dataclass(frozen=True)
class Result:
    pairs: tuple[tuple[Timing, Timing], ...]  # ours and lightly's, of all images in each repetition
    images: int
    views_per_image: int

    @property
    def ratios(self) -> list[float]:
        """Ours / lightly's views per second."""
        return [lightly.wall / ours.wall for ours, lightly in self.pairs]

    @property
    def milliseconds_per_view(self) -> float:
        """Ours, decoding included."""
        seconds = statistics.median(ours.wall for ours, _ in self.pairs)
        return 1000 * seconds / (self.images * self.views_per_image)


@dataclass(frozen=True)
class Sizes:
    """Sides of the views in pixels, and how many are local."""

    global_px: int
    local_px: int
    local_views: int


PHOTO, SMALL = Sizes(224, 96, 8), Sizes(32, 16, 6)
MULTI_CROP = ("dino", "swav")
METHODS = ("dino", "swav", "simclr", "byol", "mocov2")
BLUR_SIGMA_PX = (0.1, 2.0)


def our_views(method: str, sizes: Sizes) -> MakeViews:
    """The method's views with its default settings."""
    given: dict[str, Any] = {"blur_sigma_px": BLUR_SIGMA_PX}
    if method in MULTI_CROP:
        given |= {"global_crop_px": sizes.global_px, "local_crop_px": sizes.local_px, "local_views": sizes.local_views}
    else:
        given |= {"crop_px": sizes.global_px}
    if method == "dino":
        given |= {"global_scale": (0.4, 1.0), "local_scale": (0.05, 0.4)}
    kind = registry.method(method)
    return kind.make_views(parse_settings(kind.Config, given, "method", method))


def lightly_views(method: str, sizes: Sizes) -> Callable[[Image.Image], Any]:
    """lightly's transform of the method with its default settings."""
    px = sizes.global_px
    if method == "dino":
        return DINOTransform(global_crop_size=px, local_crop_size=sizes.local_px, n_local_views=sizes.local_views)
    if method == "swav":
        return SwaVTransform(crop_sizes=(px, sizes.local_px), crop_counts=(2, sizes.local_views))
    if method == "simclr":
        return SimCLRTransform(input_size=px)
    if method == "byol":
        return BYOLTransform(BYOLView1Transform(input_size=px), BYOLView2Transform(input_size=px))
    return MoCoV2Transform(input_size=px)


def sample_photos(folder: Path) -> None:
    """scikit-learn's two photos as JPEG of 500 x 375 px, for when no folder is given."""
    from sklearn.datasets import load_sample_images

    for number, pixels in enumerate(load_sample_images().images):
        photo = Image.fromarray(pixels).resize((500, 375), Image.Resampling.BICUBIC)
        photo.save(folder / f"{number}.jpg", quality=90)


def shrink(paths: Sequence[Path], folder: Path) -> list[Path]:
    """The images at 32 x 32 px, as PNG."""
    small = [folder / f"{number}.png" for number in range(len(paths))]
    for path, target in zip(paths, small, strict=True):
        Image.open(path).convert("RGB").resize((32, 32), Image.Resampling.BICUBIC).save(target)
    return small


def timed(make_views: Callable[[Image.Image], Any], path: Path) -> Timing:
    wall, cpu = time.perf_counter(), time.process_time()
    with Image.open(path) as image:
        make_views(image.convert("RGB"))
    return Timing(time.perf_counter() - wall, time.process_time() - cpu)


def measure(method: str, sizes: Sizes, paths: Sequence[Path], repeats: int, *, crops_only: bool = False) -> Result:
    """Time both sides in interleaved pairs; the first, unmeasured pass over the images warms caches up."""
    ours = our_views(method, sizes)
    rng = random.Random(0)
    random.seed(0)
    np.random.seed(0)
    torch.manual_seed(0)
    sides: list[Callable[[Image.Image], Any]] = [lambda image: ours(image, rng), lightly_views(method, sizes)]
    other = "lightly"
    if crops_only:
        crops, drawn = DeviceViews(ours), random.Random(0)
        sides, other = [lambda image: crops(image, drawn), sides[0]], "whole views"
    views = 2 + (sizes.local_views if method in MULTI_CROP else 0)
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    pairs = []
    try:
        for repetition in range(-1, repeats):
            spent = [Timing(0.0, 0.0)] * 2
            for number, path in enumerate(paths):
                for side in (0, 1) if (number + repetition) % 2 else (1, 0):
                    took = timed(sides[side], path)
                    spent[side] = Timing(spent[side].wall + took.wall, spent[side].cpu + took.cpu)
            if repetition < 0:
                continue
            pairs.append((spent[0], spent[1]))
            rates = [len(paths) * views / total.wall for total in spent]
            ratio = rates[0] / rates[1]
            print(f"{repetition + 1}: ours {rates[0]:.0f}, {other} {rates[1]:.0f} views/s, ratio {ratio:.2f}")
    finally:
        torch.set_num_threads(threads)
    return Result(tuple(pairs), len(paths), views)


def ratios(*, quick: bool = False) -> list[Ratio]:
    """DINO's views of full-size photos, and every method's of 32 px images, on one thread."""
    found = []
    with tempfile.TemporaryDirectory() as temporary:
        photos = Path(temporary, "photos")
        photos.mkdir()
        sample_photos(photos)
        paths = sorted(photos.iterdir())
        small = shrink(paths, Path(temporary))
        for method, sizes, images, repeats, goal in (
            ("dino", PHOTO, paths, 15, Goal(at_least=3.5)),
            *((method, SMALL, small, 60, Goal(at_least=3)) for method in METHODS),
        ):
            result = measure(method, sizes, images, 2 if quick else repeats)
            work = result.images * result.views_per_image
            found.append(faster(words(method, sizes), "lightly's transform", result.pairs, 1, goal, work=work))
    return found


def words(method: str, sizes: Sizes) -> str:
    """E.g. "dino views of photos of 500 x 375 px: 2 x 224 + 8 x 96 px"."""
    images = "images of 32 px" if sizes is SMALL else "photos of 500 x 375 px"
    local = f" + {sizes.local_views} x {sizes.local_px}" if method in MULTI_CROP else ""
    return f"{method} views of {images}: 2 x {sizes.global_px}{local} px"


def main(arguments: Sequence[str] | None = None) -> Result:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--method", choices=METHODS, default="dino", help="default: dino")
    parser.add_argument("--images", type=Path, help="folder of JPEG files; default: two photos from scikit-learn")
    parser.add_argument("--repeats", type=int, default=9, help="passes over the images (default: 9)")
    parser.add_argument("--small", action="store_true", help="32 px images, with views of 32 and 16 px")
    parser.add_argument("--crops-only", action="store_true", help="a worker's part, against whole views")
    options = parser.parse_args(arguments)
    if options.repeats < 1:
        parser.error(f"--repeats {options.repeats}: give 1 or more")
    with tempfile.TemporaryDirectory() as temporary:
        folder = options.images or Path(temporary)
        if options.images is None:
            sample_photos(folder)
        paths = sorted(path for path in folder.rglob("*") if path.suffix.lower() in JPEG_SUFFIXES)
        if not paths:
            parser.error(f"--images {folder}: no .jpg or .jpeg file below it")
        if options.small:
            paths = shrink(paths, Path(temporary))
        sizes = SMALL if options.small else PHOTO
        result = measure(options.method, sizes, paths, options.repeats, crops_only=options.crops_only)
    ratio = statistics.median(result.ratios)
    compared = "crops / whole" if options.crops_only else "ours / lightly"
    print(
        f"{compared} {ratio:.2f} views per second per core (median of {len(result.ratios)} repetitions, "
        f"{min(result.ratios):.2f} to {max(result.ratios):.2f}; {result.images} images, {result.views_per_image} views "
        f"each; ours {result.milliseconds_per_view:.2f} ms a view, decoding included); by CPU time "
        f"{statistics.median(lightly.cpu / ours.cpu for ours, lightly in result.pairs):.2f}"
    )
    return result


if __name__ == "__main__":
    main()
