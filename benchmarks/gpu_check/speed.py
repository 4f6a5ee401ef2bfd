"""Rates: DINO's step against lightly's on the same card, the views that feed it, neighbors on the card."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator, Sequence
from functools import partial
from statistics import median

import torch

from benchmarks.gpu_check.checks import Bench, Check, attempt
from benchmarks.gpu_check.noise import low_precisions
from ssl_bench.doctor.faiss_build import examine_faiss
from ssl_bench.doctor.images import examine_images
from ssl_bench.evaluators.knn.nearest import nearest

PART = "speed"
CROPS_PX = (224,) * 2 + (96,) * 8
LIGHTLY_GOAL = 1.0
"""Of the rate of lightly's blocks: the authors' own step is not here, as the script downloads nothing."""


def checks(bench: Bench) -> Iterator[Check]:
    """Step in each precision, data, search, FAISS."""
    steps = []
    for precision, dtype in {"fp32": torch.float32, **low_precisions(bench.device)}.items():
        steps.append(attempt(PART, f"DINO step, {precision}", partial(compare_steps, bench, precision, dtype)))
        yield steps[-1]
        bench.clear()
    yield attempt(PART, "views", partial(compare_views, steps))
    yield attempt(PART, "neighbors on the device", partial(compare_search, bench))
    bench.clear()
    yield attempt(PART, "FAISS", faiss)


def compare_steps(bench: Bench, precision: str, dtype: torch.dtype) -> Check:
    """The step of deit_s16 at 2 x 224 + 8 x 96 px, both under the same autocast, by turns."""
    from benchmarks.performance.dino_step import lightly_step, our_step

    torch.manual_seed(0)
    views = tuple(torch.randn(bench.sizes.batch, 3, px, px, device=bench.device) for px in CROPS_PX)
    steps = {"lightly": lightly_step(views, dtype), "ours": our_step(views, dtype)}
    for step in steps.values():
        step()
    seconds: dict[str, list[float]] = {name: [] for name in steps}
    for turn in range(bench.sizes.turns):
        for name, step in list(steps.items())[:: 1 if turn % 2 == 0 else -1]:
            seconds[name].append(_timed(step, bench.device))
    ratio = median(theirs / ours for theirs, ours in zip(seconds["lightly"], seconds["ours"], strict=True))
    rate = {name: bench.sizes.batch / median(values) for name, values in seconds.items()}
    words = f"{rate['ours']:.1f} images/s, lightly {rate['lightly']:.1f}, both in {precision}: ratio {ratio:.2f}"
    figures = {f"{name}_images_per_second": value for name, value in rate.items()} | {"ratio": ratio}
    return Check(PART, f"DINO step, {precision}", ratio >= LIGHTLY_GOAL, words, figures=figures)


def compare_views(steps: Sequence[Check]) -> Check:
    """How many images the cores can feed, beside the fastest step."""
    fed = next(fact.value for fact in examine_images().facts if fact.label == "all cores")
    assert isinstance(fed, float)
    used = max((step.figures.get("ours_images_per_second", 0.0) for step in steps), default=0.0)
    words = f"the cores can make views of {fed:.0f} images/s" + (": they are the bottleneck" if fed < used else "")
    return Check(PART, "views", None, words, figures={"views_images_per_second": fed})


def compare_search(bench: Bench) -> Check:
    """The same neighbors as on the CPU, and how long both take."""
    generator = torch.Generator().manual_seed(0)
    queries = torch.randn(bench.sizes.queries, 384, generator=generator)
    bank = torch.randn(bench.sizes.bank, 384, generator=generator)
    nearest(queries[:8], bank[:64], 5, "torch", bench.device)  # loads kernels
    begun = time.perf_counter()
    there = nearest(queries, bank, 20, "torch", bench.device, cosine=True)
    between = time.perf_counter()
    few = max(1, len(queries) // 10)
    here = nearest(queries[:few], bank, 20, device="cpu", cosine=True)
    took, on_cpu = between - begun, (time.perf_counter() - between) * len(queries) / few
    same = torch.equal(here.indices, there.indices[:few])
    words = (
        f"{len(queries):,} queries in {len(bank):,} x 384: {took:.2f} s on the device, about {on_cpu:.1f} s on the CPU"
    )
    words += "; the same neighbors" if same else "; other neighbors"
    return Check(PART, "neighbors on the device", same, words, figures={"device_s": took, "cpu_s": on_cpu})


def faiss() -> Check:
    """Whether the installed build works, on the card too where it has one."""
    found = examine_faiss()
    return Check(PART, "FAISS", not found.problems, "; ".join(fact.text for fact in found.facts))


def _timed(step: Callable[[], None], device: torch.device) -> float:
    begun = time.perf_counter()
    step()
    if device.type == "cuda":
        torch.cuda.synchronize(device)
    return time.perf_counter() - begun
