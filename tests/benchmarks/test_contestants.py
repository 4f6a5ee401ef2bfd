"""Contestants of a benchmark: each allocates in its own way, and they take turns."""

from __future__ import annotations

import multiprocessing
import threading
from collections.abc import Callable

import pytest
import torch

from benchmarks.performance import contestants as module
from benchmarks.performance.contestants import Contestant, Entry, _serve, by_turns
from ssl_bench.evaluation.speed import Timing


def product(side: int) -> Callable[[], None]:
    left = torch.ones(side, side)
    return lambda: done.append(int((left @ left)[0, 0]))


done = list[int]()


class Counter:
    """In place of torch's, whose import takes seconds."""

    def __init__(self, *, display: bool) -> None:
        self.before = len(done)

    def __enter__(self) -> Counter:
        return self

    def __exit__(self, *_: object) -> None:
        self.total = len(done) - self.before

    def get_total_flops(self) -> int:
        return self.total


def test_a_contestant_counts_its_operations_and_does_a_step_when_told(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "FlopCounterMode", Counter)
    ours, theirs = multiprocessing.Pipe()
    serving = threading.Thread(target=_serve, args=(theirs, Entry(product, (8,), ours=False), torch.get_num_threads()))
    done.clear()
    serving.start()
    assert ours.recv() == 1
    assert done == [8]
    ours.send(True)
    timing = ours.recv()
    assert timing.wall > 0
    assert done == [8, 8]
    ours.send(False)
    serving.join()


class Told(Contestant):
    def __init__(self, name: str, order: list[str]) -> None:
        self.name, self.order = name, order

    def step(self) -> Timing:
        self.order.append(self.name)
        return Timing(len(self.order), 0.0)


def test_who_begins_alternates() -> None:
    order = list[str]()
    ready = {name: Told(name, order) for name in ("a", "b")}
    turns = by_turns(ready, 3, after=lambda: order.append("-"))
    assert "".join(order) == "ab-ba-ab-"
    assert [(turn["a"].wall, turn["b"].wall) for turn in turns] == [(1, 2), (5, 4), (7, 8)]
