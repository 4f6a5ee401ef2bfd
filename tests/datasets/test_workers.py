"""How worker processes end. The thread that pins batches for a card is torch's, on an emulated accelerator."""

from __future__ import annotations

import threading
import time
from collections.abc import Iterator
from typing import Any

import pytest
import torch
from torch.utils.data import DataLoader, Dataset
from torch.utils.data._utils import pin_memory

from ssl_bench.datasets.workers import from_workers, quiet_worker
from ssl_bench.errors import UserError


class Numbers(Dataset[tuple[torch.Tensor, ...]]):
    def __len__(self) -> int:
        return 400

    def __getitem__(self, index: int) -> tuple[torch.Tensor, ...]:
        return tuple(torch.full((3, 32, 32), float(index)) for _ in range(10))


def make_loader(skipped: int, workers: int) -> DataLoader[Any]:
    return DataLoader(Numbers(), batch_size=4, num_workers=workers, worker_init_fn=quiet_worker, pin_memory=True)


def test_the_thread_that_pins_ends_before_the_workers_it_reads_from(monkeypatch: pytest.MonkeyPatch) -> None:
    """Stopped while the thread still pins: it raised EOFError or ConnectionResetError, and Python printed that."""

    def pin(data: object, device: object = None) -> object:
        time.sleep(0.05)
        return data

    failed = list[object]()
    monkeypatch.setattr(threading, "excepthook", lambda given: failed.append(given.exc_value))
    monkeypatch.setattr(torch.accelerator, "is_available", lambda *_, **__: True)
    monkeypatch.setattr(torch.accelerator, "current_accelerator", lambda *_, **__: torch.device("cuda"))
    monkeypatch.setattr(torch.accelerator, "current_device_index", lambda: 0)
    monkeypatch.setattr(torch.accelerator, "set_device_index", lambda *_: None)
    monkeypatch.setattr(pin_memory, "pin_memory", pin)
    for _ in range(2):
        batches = from_workers(make_loader, 2)
        assert [float(next(batches)[0][0, 0, 0, 0]) for _ in range(3)] == [0, 4, 8]
        batches.close()  # type: ignore[attr-defined]
    assert not failed


def test_a_thread_that_pins_and_lost_a_worker_is_told_as_the_worker_s_end() -> None:
    def broken(skipped: int, workers: int) -> Any:
        def batches() -> Iterator[int]:
            yield 1
            raise RuntimeError("Pin memory thread exited unexpectedly")

        return batches()

    found = from_workers(broken, 2)
    assert next(found) == 1
    with pytest.raises(UserError, match=r"one of the 2 worker processes .* was killed"):
        next(found)
