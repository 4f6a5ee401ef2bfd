"""Images per second of a network's forward pass, with the evidence that nothing else slowed it down.

The rule: after a warm-up pass of 128 images, rounds of at least 0.2 s are timed until the last five differ by at most
5 % of their median, for at most 25 rounds or 30 seconds; their median counts. It is left out where they still differ by
more than 10 %, or where, on a CPU, the process got less than 70 % of the time of its threads: then something else used
the machine. A single pass that takes over 20 s is accepted or refused by its share of CPU time alone.
"""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, replace
from statistics import median

import torch

from ssl_bench.backbone import Backbone
from ssl_bench.records.cost import SpeedRecord
from ssl_bench.training.out_of_memory import out_of_memory_in_words

THROUGHPUT_BATCH = 128
"""Images per forward pass of the throughput column (DINO, table 1; thesis, table 4.1)."""
ROUNDS, MOST_ROUNDS = 5, 25
ROUND_SECONDS, MOST_SECONDS, LONG_PASS_SECONDS = 0.2, 30.0, 20.0
STEADY, DISTURBED = 0.05, 0.10
"""Spread of the rounds at which measuring ends, and above which the rate does not count."""
PAUSE_SECONDS = 5.0
"""Before a busy machine is looked at again."""
BUSY = 0.7
"""Share of CPU time below which the machine was busy; threads that wait for each other take some of it, too."""


@dataclass(frozen=True)
class Timing:
    """One piece of work: wall clock time and CPU time of all threads of this process, in seconds."""

    wall: float
    cpu: float


@dataclass(frozen=True)
class Speed:
    """The rate with its evidence; `images_per_second` is None where the evidence speaks against it."""

    images_per_second: float | None
    spread: float | None
    """(Longest - shortest) / median of the rounds that count; None for a single one."""
    cpu_share: float
    """CPU time / (wall clock time x threads): near 1 where the process had its cores for itself."""
    note: str
    """Why the rate is left out; empty where it is not."""
    batch: int = THROUGHPUT_BATCH
    """Images per forward pass."""

    def as_record(self) -> SpeedRecord:
        """As a record holds it."""
        rate, spread = self.images_per_second, self.spread
        return SpeedRecord(
            inference_images_per_second=None if rate is None else round(rate, 2),
            inference_batch=self.batch,
            inference_spread=None if spread is None else round(spread, 4),
            inference_cpu_share=round(self.cpu_share, 4),
            inference_note=self.note,
        )


class Stopwatch:
    """Times a `with` block; `timing` holds what it took once the device is done."""

    timing: Timing

    def __init__(self, device: torch.device) -> None:
        self.device = device

    def __enter__(self) -> Stopwatch:
        self._begun = time.perf_counter(), time.process_time()
        return self

    def __exit__(self, *_: object) -> None:
        if self.device.type == "cuda":
            torch.cuda.synchronize(self.device)
        wall, cpu = self._begun
        self.timing = Timing(time.perf_counter() - wall, time.process_time() - cpu)


def patient_speed(
    backbone: Backbone,
    image_px: int,
    device: torch.device,
    *,
    batch: int = THROUGHPUT_BATCH,
    wait_seconds: float = 0.0,
    say: Callable[[str], None] = lambda line: None,
) -> Speed:
    """`measure_speed`, again and again for `wait_seconds` while the machine is busy; the last measurement."""
    begun = time.monotonic()
    while True:
        found = measure_speed(backbone, image_px, device, batch)
        left = wait_seconds - (time.monotonic() - begun)
        if not found.note or left <= 0:
            return found
        say(f"{found.note}; trying again for {left:.0f} s")
        time.sleep(min(PAUSE_SECONDS, left))


def measure_speed(backbone: Backbone, image_px: int, device: torch.device, batch: int = THROUGHPUT_BATCH) -> Speed:
    """Forward passes of `batch` images of `image_px` in fp32 and eval mode, by the rule above.

    Raises `UserError` where memory runs out.
    """
    training = backbone.training
    backbone.eval()
    rounds: list[Timing] = []
    with out_of_memory_in_words(f"with {batch} images of {image_px} px per forward pass"), torch.inference_mode():
        images = torch.zeros(batch, 3, image_px, image_px, device=device)
        with Stopwatch(device) as warm_up:
            backbone(images)
        passes = max(1, math.ceil(ROUND_SECONDS / max(1e-9, warm_up.timing.wall)))
        if warm_up.timing.wall > LONG_PASS_SECONDS:
            rounds.append(warm_up.timing)
        while not _enough(rounds):
            with Stopwatch(device) as watch:
                for _ in range(passes):
                    backbone(images)
            rounds.append(watch.timing)
    backbone.train(training)
    found = speed_of(rounds[-ROUNDS:], passes * batch, torch.get_num_threads(), device.type)
    return replace(found, batch=batch)


def speed_of(rounds: Sequence[Timing], images: int, threads: int, device_type: str) -> Speed:
    """The rate of rounds of so many images, or why it does not count."""
    walls = [one.wall for one in rounds]
    spread = (max(walls) - min(walls)) / median(walls) if len(walls) > 1 else None
    share = cpu_share(rounds, threads)
    notes = []
    if device_type == "cpu" and share < BUSY:
        notes.append(f"the process got {share:.0%} of the CPU time of its threads")
    if spread is not None and spread > DISTURBED:
        notes.append(f"measurements differ by {spread:.0%}")
    if notes:
        return Speed(None, spread, share, f"left out, the machine was busy: {' and '.join(notes)}")
    return Speed(images / median(walls), spread, share, "")


def cpu_share(timings: Iterable[Timing], threads: int) -> float:
    """CPU time / (wall clock time x threads) over all timings."""
    timings = list(timings)
    return sum(one.cpu for one in timings) / max(1e-9, sum(one.wall for one in timings) * threads)


def _enough(rounds: Sequence[Timing]) -> bool:
    """Whether the rounds so far are enough by the rule."""
    walls = [one.wall for one in rounds]
    if len(walls) >= MOST_ROUNDS or sum(walls) > MOST_SECONDS or max(walls, default=0.0) > LONG_PASS_SECONDS:
        return True
    last = walls[-ROUNDS:]
    return len(last) == ROUNDS and max(last) - min(last) <= STEADY * median(last)
