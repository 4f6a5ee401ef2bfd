"""Images in WebDataset shards against the same images as files: views per second, opening time, memory.

    python -m benchmarks.performance.shards [--images 5000] [--repeats 9] [--sample 1000]

Photos (scikit-learn's two, cropped at random to 256 px) are written as JPEG files and as shards of 10,000. Both are
read in one random order, one view of 224 px each, image by image in alternating order on one thread; the printed
figure is the median over repetitions of the ratio of views per second. Memory is this process's resident set before
opening the shards and after reading `--sample` images `--repeats` times.
"""

from __future__ import annotations

import argparse
import io
import itertools
import os
import random
import resource
import statistics
import tarfile
import tempfile
import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from PIL import Image
from sklearn.datasets import load_sample_images

from benchmarks.performance.ratios import Goal, Ratio, faster
from ssl_bench.blocks.views import Crop, MultiCrop
from ssl_bench.dataset import Split
from ssl_bench.datasets.images import UnlabeledImages
from ssl_bench.datasets.webdataset import WebDataset
from ssl_bench.evaluation.speed import Timing

PER_SHARD = 10_000


@dataclass(frozen=True)
class Result:
    pairs: tuple[tuple[Timing, Timing], ...]
    """Shards and files, of all sampled images in each repetition."""
    first_open_seconds: float
    second_open_seconds: float
    grown_mb: float
    """Resident memory after reading over that before opening."""
    images: int

    @property
    def ratios(self) -> list[float]:
        """Shards' / files' views per second."""
        return [files.wall / shards.wall for shards, files in self.pairs]


def photos(count: int) -> Iterator[bytes]:
    rng = np.random.default_rng(0)
    sources = [Image.fromarray(pixels) for pixels in load_sample_images().images]
    for index in range(count):
        source = sources[index % len(sources)]
        left, top = rng.integers(0, source.width - 256), rng.integers(0, source.height - 256)
        stream = io.BytesIO()
        source.crop((left, top, left + 256, top + 256)).save(stream, "JPEG", quality=85)
        yield stream.getvalue()


def write(folder: Path, count: int) -> None:
    (folder / "files").mkdir()
    (folder / "shards").mkdir()
    made = enumerate(photos(count))
    for shard in range(-(-count // PER_SHARD)):
        with tarfile.open(folder / "shards" / f"photos-{shard:04}.tar", "w") as tar:
            for index, content in itertools.islice(made, PER_SHARD):
                (folder / "files" / f"{index:07}.jpg").write_bytes(content)
                member = tarfile.TarInfo(f"{index:07}.jpg")
                member.size = len(content)
                tar.addfile(member, io.BytesIO(content))


def resident_mb() -> float:
    with open("/proc/self/statm") as file:
        return int(file.read().split()[1]) * resource.getpagesize() / 1e6


def timed_open(path: Path) -> tuple[WebDataset, float]:
    start = time.perf_counter()
    return WebDataset(WebDataset.Config(image_px=224), path), time.perf_counter() - start


def measure(folder: Path, images: int, repeats: int, sample: int) -> Result:
    files = UnlabeledImages(UnlabeledImages.Config(image_px=224), folder / "files").train
    before = resident_mb()
    data, first = timed_open(folder / "shards")
    _, second = timed_open(folder / "shards")
    sides: list[Split] = [data.train, files]
    views, rng = MultiCrop([(Crop(crop_px=224, scale=(0.2, 1.0)), 1)]), random.Random(0)
    pairs = []
    for repetition in range(-1, repeats):  # the first, unmeasured one warms caches up
        spent = [Timing(0.0, 0.0)] * 2
        for number, index in enumerate(random.Random(repetition).sample(range(images), min(sample, images))):
            for side in (0, 1) if number % 2 else (1, 0):
                wall, cpu = time.perf_counter(), time.process_time()
                views(sides[side].image(index), rng)
                took = Timing(time.perf_counter() - wall, time.process_time() - cpu)
                spent[side] = Timing(spent[side].wall + took.wall, spent[side].cpu + took.cpu)
        if repetition >= 0:
            pairs.append((spent[0], spent[1]))
    return Result(tuple(pairs), first, second, resident_mb() - before, images)


def ratios(*, quick: bool = False) -> list[Ratio]:
    """Photos of 256 px, one view of 224 px each."""
    images = 50 if quick else 2000
    with tempfile.TemporaryDirectory() as temporary:
        os.environ["SSLBENCH_CACHE"] = str(Path(temporary, "cache"))
        write(Path(temporary), images)
        result = measure(Path(temporary), images, 2 if quick else 5, 20 if quick else 400)
    name, goal, work = "views of photos in WebDataset shards", Goal(at_least=0.9), 20 if quick else 400
    return [faster(name, "the same as files", result.pairs, 1, goal, work=work)]


def main(arguments: Sequence[str] | None = None) -> Result:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--images", type=int, default=5000, help="photos that are written (default: 5000)")
    parser.add_argument("--repeats", type=int, default=9, help="passes over the sample (default: 9)")
    parser.add_argument("--sample", type=int, default=1000, help="photos that are read in each pass (default: 1000)")
    options = parser.parse_args(arguments)
    with tempfile.TemporaryDirectory() as temporary:
        os.environ["SSLBENCH_CACHE"] = str(Path(temporary, "cache"))
        write(Path(temporary), options.images)
        result = measure(Path(temporary), options.images, options.repeats, options.sample)
    ratio = statistics.median(result.ratios)
    print(
        f"shards / files {ratio:.2f} views per second (median of {len(result.ratios)} repetitions, "
        f"{min(result.ratios):.2f} to {max(result.ratios):.2f}; {result.images:,} photos of 256 px); opened in "
        f"{result.first_open_seconds:.1f} s, again in {result.second_open_seconds:.1f} s; memory grew by "
        f"{result.grown_mb:.0f} MB"
    )
    return result


if __name__ == "__main__":
    main()
