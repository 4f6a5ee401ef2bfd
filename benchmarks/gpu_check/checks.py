"""One thing that was tried on a device, and what it is tried on."""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field

import torch

from ssl_bench.errors import UserError

GB = 2**30


@dataclass(frozen=True)
class Check:
    """One line of the table."""

    part: str
    name: str
    passed: bool | None
    """None: nothing to pass or fail here, e.g. a rate, or something that is not installed."""
    words: str
    seconds: float = 0.0
    figures: Mapping[str, float] = field(default_factory=dict)


@dataclass(frozen=True)
class Architecture:
    """A backbone with the settings that make it as small as a test wants it."""

    name: str
    values: Mapping[str, object] = field(default_factory=dict)


@dataclass(frozen=True)
class Sizes:
    """How much is done: `FULL` on a card, less in tests."""

    architectures: tuple[Architecture, ...] = (Architecture("deit_s16"), Architecture("resnet50"))
    image_px: int = 224
    batch: int = 8
    planned_batch: int = 256
    """Of the one that is planned for 4 GB."""
    steps: int = 20
    seconds_each: float = 3.0
    """A method on a network does fewer steps rather than take longer."""
    methods: tuple[str, ...] = ()
    """Empty: all that are registered."""
    evaluators: tuple[str, ...] = ()
    test_images: int = 200
    bank: int = 200_000
    queries: int = 5_000
    turns: int = 5
    """Of what is timed."""


FULL = Sizes()


@dataclass(frozen=True)
class Bench:
    """The device under test with the sizes."""

    device: torch.device
    sizes: Sizes = FULL

    def clear(self) -> None:
        """Let the next check begin with an empty device."""
        if self.device.type == "cuda":
            torch.cuda.empty_cache()
            torch.cuda.reset_peak_memory_stats(self.device)


def attempt(part: str, name: str, work: Callable[[], Check]) -> Check:
    """The check that `work` returns, with the time it took; a failing one where it raises."""
    begun = time.monotonic()
    try:
        found = work()
    except torch.OutOfMemoryError as error:
        found = Check(part, name, False, f"out of memory: {str(error).splitlines()[0]}")
    except Exception as error:  # one failing check must not stop the others
        words = str(error) if isinstance(error, UserError) else f"{type(error).__name__}: {error}"
        found = Check(part, name, False, (words.strip().splitlines() or ["?"])[0])
    return Check(found.part, found.name, found.passed, found.words, time.monotonic() - begun, found.figures)
