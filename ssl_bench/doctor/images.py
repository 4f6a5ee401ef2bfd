"""Speed of decoding and of DINO's views on one core: whether data can keep up with a device."""

from __future__ import annotations

import io
from collections.abc import Callable
from random import Random

import numpy as np
import torch
from PIL import Image, features

from ssl_bench.datasets.reading import decode_image
from ssl_bench.doctor.findings import Fact, Findings, Problem
from ssl_bench.doctor.rates import Rate, rate_of
from ssl_bench.evaluation.speed import Stopwatch
from ssl_bench.planning.stand_in import open_stand_in
from ssl_bench.recipes.request import Request
from ssl_bench.recipes.resolve import resolve
from ssl_bench.system.limits import cores

WIDTH, HEIGHT = 500, 375
"""Of a usual ImageNet photo."""
METHOD, ARCH = "dino", "deit_s16"
ROUNDS, DECODED_PER_ROUND, VIEWED_PER_ROUND = 5, 20, 3


def examine_images() -> Findings:
    """Images per second and core, decoded and cropped as a run does."""
    content = photo()
    resolved = resolve(Request(method=METHOD, arch=ARCH), open_stand_in)
    make_views = resolved.method.make_views(resolved.method_config)
    image, rng = decode_image(content, "a photo made here"), Random(0)
    views = len(make_views(image, rng))
    decoding = one_core_speed(lambda: decode_image(content, "a photo made here"), DECODED_PER_ROUND)
    viewing = one_core_speed(lambda: make_views(decode_image(content, "a photo made here"), rng), VIEWED_PER_ROUND)
    together = Rate(viewing.per_second * cores(), viewing.by_cpu_time)
    facts = (
        _fact("decoding", decoding, f"on one core: JPEG of {WIDTH} x {HEIGHT} px"),
        _fact("views", viewing, f"on one core: decoded and made into {METHOD}'s {views} views"),
        _fact("all cores", together, f"at most, with a worker on each of {cores()} cores"),
    )
    problems = []
    if not features.check_feature("libjpeg_turbo"):
        problems.append(
            Problem("slow", "this Pillow was built without libjpeg-turbo, decoding is slower: pip install "
                    "--force-reinstall --only-binary :all: pillow")
        )  # fmt: skip
    return Findings(facts, tuple(problems))


def photo() -> bytes:
    """A JPEG that costs about as much to decode as a photo: smooth shapes, some noise."""
    generator = np.random.default_rng(0)
    coarse = Image.fromarray(generator.integers(0, 256, (24, 32, 3), dtype=np.uint8))
    pixels = np.asarray(coarse.resize((WIDTH, HEIGHT), Image.Resampling.BICUBIC), dtype=np.float32)
    noisy = (pixels + generator.normal(0, 8, pixels.shape)).clip(0, 255).astype(np.uint8)
    stream = io.BytesIO()
    Image.fromarray(noisy).save(stream, "JPEG", quality=90)
    return stream.getvalue()


def one_core_speed(work: Callable[[], object], images: int) -> Rate:
    """Images per second of `work`, which takes one, on one thread; the first round is a warm-up."""
    threads, rounds = torch.get_num_threads(), []
    torch.set_num_threads(1)
    try:
        for _ in range(ROUNDS + 1):
            with Stopwatch(torch.device("cpu")) as watch:
                for _ in range(images):
                    work()
            rounds.append(watch.timing)
    finally:
        torch.set_num_threads(threads)
    return rate_of(rounds[1:], images, 1, "cpu")


def _fact(label: str, rate: Rate, what: str) -> Fact:
    return Fact(label, f"{rate.per_second:,.0f} images/s {what}{rate.reservation}", rate.per_second)
