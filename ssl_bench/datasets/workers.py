"""Worker processes that read images or make views: quiet, and replaceable by this process."""

from __future__ import annotations

import signal
import threading
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from multiprocessing import active_children
from multiprocessing.process import BaseProcess
from typing import Any

import torch
from torch.utils.data import DataLoader

from ssl_bench.errors import UserError
from ssl_bench.system.signals import ignore_signals, signals_blocked

PINNING_SECONDS = 10.0
"""For the thread that pins to end; a worker that was killed while it wrote a batch leaves it waiting for the rest."""


def from_workers(
    make_loader: Callable[[int, int], DataLoader[Any]],
    workers: int,
    note: Callable[[str], None] = lambda line: None,
) -> Iterator[Any]:
    """The batches of `make_loader(batches to skip, worker processes)`, the same whatever happens to the workers.

    Where shared memory is too small for them (64 MB in a container by default) the rest is made in this process, and
    `note` is told. Raises `UserError` when a worker was killed, and for a mistake of the user that a worker reports.
    """
    done, others = 0, set(active_children())
    with signals_blocked():
        iterator = iter(make_loader(0, workers))
    started = [process for process in active_children() if process not in others]
    try:
        while (batch := next(iterator, None)) is not None:
            done += 1
            yield batch
        return
    except UserError as error:
        raise _as_in_the_worker(error) from None
    except (RuntimeError, OSError) as error:
        if not workers:
            raise
        words = str(error)
        if not any(sign in words for sign in ("shared memory", "shm", "Bus error", "No space left on device")):
            raise _worker_died(error, workers) from error
    finally:
        try:
            _end_pinning(iterator)
        finally:
            _end(started)
    note(
        "the worker processes run out of shared memory (/dev/shm); continuing without them, with the same result. "
        "Give more shared memory (docker run --shm-size=1g), or --set machine.workers=0"
    )
    yield from make_loader(done, 0)


def _end_pinning(iterator: Iterator[Any]) -> None:
    """End the thread that reads from the workers and pins, where there is one: it fails where they are gone first.

    In the order and by the means of torch's own `_shutdown_workers`, which would wait for the workers as well.
    """
    thread: threading.Thread | None = getattr(iterator, "_pin_memory_thread", None)
    if thread is None or not thread.is_alive():
        return
    iterator._pin_memory_thread_done_event.set()  # type: ignore[attr-defined]
    iterator._worker_result_queue.put((None, None))  # type: ignore[attr-defined]  # it waits for something to read
    thread.join(PINNING_SECONDS)


def _end(workers: Sequence[BaseProcess]) -> None:
    """Kill what is left of the workers: they answer no other signal, and Python would wait for them at its end.

    torch's handler would raise an error for a worker that dies: it does not hear of these.
    """
    with _unheard_children():
        for process in workers:
            process.kill()
        for process in workers:
            process.join()


@contextmanager
def _unheard_children() -> Iterator[None]:
    """Inside, no handler runs when a child process ends."""
    before = None
    if hasattr(signal, "SIGCHLD") and threading.current_thread() is threading.main_thread():
        before = signal.signal(signal.SIGCHLD, signal.SIG_DFL)
    try:
        yield
    finally:
        if before is not None:
            signal.signal(signal.SIGCHLD, before)


def _as_in_the_worker(error: UserError) -> UserError:
    """torch lays the worker's traceback around the message."""
    kind = type(error)
    _, raised, message = str(error).rpartition(f"{kind.__module__}.{kind.__qualname__}: ")
    return UserError(message.strip()) if raised and str(error).startswith("Caught ") else error


def _worker_died(error: Exception, workers: int) -> Exception:
    if not any(sign in str(error) for sign in ("DataLoader worker", "Pin memory thread exited")):  # it reads from one
        return error
    return UserError(
        f"one of the {workers} worker processes that make views was killed ({str(error).strip()}). The "
        "usual reason is too little memory: give --set machine.workers=0 or fewer, or a smaller --batch-size."
    )


def quiet_worker(_: int) -> None:
    """For `DataLoader(worker_init_fn=...)`: the main process stops the run and saves; one thread each."""
    ignore_signals()
    torch.set_num_threads(1)
