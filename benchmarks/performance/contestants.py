"""Contestants of a benchmark: each in a process of its own, and only one at a time works.

Ours allocates as `sslbench run` does (`ssl_bench.system.allocator`), the peer as its users' scripts do. In one process
both would have the same allocator, and one's freed blocks would be the other's fragments.
"""

from __future__ import annotations

import multiprocessing
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from multiprocessing.connection import Connection
from typing import Any

import torch
from torch.utils.flop_counter import FlopCounterMode

from ssl_bench.evaluation.speed import Timing
from ssl_bench.system.allocator import keep_freed_memory

Step = Callable[[], object]


@dataclass(frozen=True)
class Entry:
    """`build(*arguments)`, in a process of its own, returns what is timed."""

    build: Callable[..., Step]
    arguments: tuple[Any, ...]
    ours: bool
    """Whether the process allocates as a run does."""


class Contestant:
    """A process that has built its step, done it once and waits for its turn."""

    def __init__(self, entry: Entry, threads: int) -> None:
        processes = multiprocessing.get_context("spawn")
        self._pipe, theirs = processes.Pipe()
        self._process = processes.Process(target=_serve, args=(theirs, entry, threads), daemon=True)
        self._process.start()
        theirs.close()
        self.flops: int = self._answer()
        """Floating-point operations of a step, as torch counts them."""

    def step(self) -> Timing:
        """Do one step now."""
        self._pipe.send(True)
        return self._answer()  # type: ignore[no-any-return]

    def stop(self) -> None:
        """End the process."""
        self._process.kill()
        self._process.join()
        self._pipe.close()

    def _answer(self) -> Any:
        try:
            return self._pipe.recv()
        except EOFError:
            raise RuntimeError("a contestant's process ended; its error stands above") from None


@contextmanager
def contestants(entries: Mapping[str, Entry], threads: int) -> Iterator[dict[str, Contestant]]:
    """The entries' processes, all ready."""
    ready: dict[str, Contestant] = {}
    try:
        for name, entry in entries.items():
            ready[name] = Contestant(entry, threads)
        yield ready
    finally:
        for one in ready.values():
            one.stop()


def by_turns(
    ready: Mapping[str, Contestant], repeats: int, after: Callable[[], object] = lambda: None
) -> list[dict[str, Timing]]:
    """What each one's step took in every turn, in alternating order; `after` each turn something else is measured."""
    turns = []
    for turn in range(repeats):
        turns.append({name: one.step() for name, one in list(ready.items())[:: 1 if turn % 2 == 0 else -1]})
        after()
    return turns


def _serve(pipe: Connection, entry: Entry, threads: int) -> None:
    if entry.ours:
        keep_freed_memory()
    torch.set_num_threads(threads)
    torch.manual_seed(0)
    step = entry.build(*entry.arguments)
    with FlopCounterMode(display=False) as counter:
        step()
    pipe.send(counter.get_total_flops())
    while pipe.recv():
        wall, cpu = time.perf_counter(), time.process_time()
        step()
        pipe.send(Timing(time.perf_counter() - wall, time.process_time() - cpu))
