"""The training log: values from the device, one line of JSON a step."""

from __future__ import annotations

import json
import math
from collections.abc import Callable, Iterator, Mapping
from contextlib import suppress
from pathlib import Path
from typing import TYPE_CHECKING

from ssl_bench.errors import UserError
from ssl_bench.system.files import write_atomically

if TYPE_CHECKING:
    from torch import Tensor

METRICS_FILE = "metrics.jsonl"


class MetricsLog:
    """`metrics.jsonl`, one line a step.

    Values that are not finite are written as "NaN" or "Infinity". Opened at step n, it drops the lines from step n on,
    which a stopped run may have written after its last checkpoint, and lines that cannot be read; `repaired` is then
    a message about them.
    """

    def __init__(self, run_dir: Path, first_step: int) -> None:
        self._path = run_dir / METRICS_FILE
        self.repaired = ""
        try:
            written = self._path.read_bytes() if self._path.exists() else b""
            kept = _lines_before(written, first_step)
            if len(kept) < first_step:
                self.repaired = (
                    f"metrics.jsonl: {first_step - len(kept):,} of the first {first_step:,} lines are missing or could "
                    "not be read and are left out; the training itself is not affected"
                )
            content = b"".join(line + b"\n" for line in kept)
            if content != written or not self._path.exists():
                write_atomically(self._path, content)
            self._stream = self._path.open("ab", buffering=0)
        except OSError as error:
            raise self._cannot_write(error) from error
        self._unwritten = b""

    def __enter__(self) -> MetricsLog:
        return self

    def __exit__(self, *_: object) -> None:
        self._stream.close()

    def write(self, values: Mapping[str, float]) -> None:
        """Append one step's values. What does not fit on a full disk is kept and written with the next step."""
        plain = {name: value if math.isfinite(value) else _word(value) for name, value in values.items()}
        self._unwritten += json.dumps(plain).encode() + b"\n"
        with suppress(OSError):
            self._hand_over()

    def flush(self) -> None:
        """Write everything to disk, before a checkpoint that relies on it. Raises `UserError` if it is full."""
        try:
            self._hand_over()
        except OSError as error:
            raise self._cannot_write(error) from error

    def _hand_over(self) -> None:
        while self._unwritten:
            self._unwritten = self._unwritten[self._stream.write(self._unwritten) :]

    def _cannot_write(self, error: OSError) -> UserError:
        return UserError(f"cannot write {self._path}: {error.strerror or error}.")


def logged_steps(run_dir: Path) -> Iterator[dict[str, float]]:
    """The rows of a run's `metrics.jsonl`, one a step, in order; none where it has no such file.

    Lines that cannot be read, and steps that were written before, are left out.
    """
    last = -1.0
    try:
        stream = (run_dir / METRICS_FILE).open("rb")
    except OSError:
        return
    with stream:
        for line in stream:
            try:
                row = {str(name): float(value) for name, value in json.loads(line).items()}
                step, _ = row["step"], row["epoch"]
            except (ValueError, KeyError, TypeError, AttributeError, RecursionError):
                continue
            if step > last:
                last = step
                yield row


def _lines_before(written: bytes, first_step: int) -> list[bytes]:
    """The readable lines of steps before `first_step`, one a step, in order."""
    kept: list[bytes] = []
    last = -1
    for line in written.split(b"\n"):
        try:
            step = json.loads(line)["step"]
        except (ValueError, KeyError, TypeError, RecursionError):
            continue
        if isinstance(step, int) and last < step < first_step:
            kept.append(line)
            last = step
    return kept


def _word(value: float) -> str:
    return "NaN" if math.isnan(value) else "Infinity" if value > 0 else "-Infinity"


def sent_to_host(values: Mapping[str, Tensor]) -> Callable[[], dict[str, float]]:
    """Scalars () on their way to the host, all of a device together.

    The result gives them as numbers. It waits for what was launched before, on a card not for what was launched since.
    """
    import torch  # figures read logs without it

    sent: list[tuple[list[str], Tensor]] = []
    events: list[torch.cuda.Event] = []
    for device in {value.device for value in values.values()}:
        names = [name for name, value in values.items() if value.device == device]
        exact = torch.float32 if device.type == "mps" else torch.float64  # which mps does not have
        together = torch.stack([values[name].to(exact) for name in names])
        if device.type == "cuda":
            together = together.to("cpu", non_blocking=True)
            events.append(torch.cuda.Event())  # type: ignore[no-untyped-call]
            events[-1].record(torch.cuda.current_stream(device))
        sent.append((names, together))

    def read() -> dict[str, float]:
        for event in events:
            event.synchronize()
        numbers: dict[str, float] = {}
        for names, together in sent:
            numbers |= dict(zip(names, together.tolist(), strict=True))
        return {name: numbers[name] for name in values}

    return read
