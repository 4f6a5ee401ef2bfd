"""What training logs: one line of JSON a step, and TensorBoard's event file where TensorBoard is installed."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any, TextIO

from ssl_bench.errors import UserError


class MetricsLog:
    """`metrics.jsonl`, one line a step, and TensorBoard's event file where TensorBoard is installed.

    Opened at step n it drops the lines from n on, which a stopped run may have written after its last checkpoint.
    """

    def __init__(self, run_dir: Path, first_step: int) -> None:
        self._path = run_dir / "metrics.jsonl"
        kept = self._path.read_text().splitlines(keepends=True)[:first_step] if self._path.exists() else []
        try:
            self._path.write_text("".join(kept))
            self._stream: TextIO = self._path.open("a")
        except OSError as error:
            raise UserError(f"cannot write {self._path}: {error.strerror}") from error
        self._board = _tensorboard(run_dir, first_step)

    def __enter__(self) -> MetricsLog:
        return self

    def __exit__(self, *_: object) -> None:
        try:
            self._stream.close()
        except OSError as error:
            raise UserError(f"cannot write {self._path}: {error.strerror}") from error
        if self._board is not None:
            self._board.close()

    def write(self, values: dict[str, float]) -> None:
        """Append one step's values."""
        try:
            self._stream.write(json.dumps({k: round(v, 7) if isinstance(v, float) else v for k, v in values.items()}))
            self._stream.write("\n")
        except OSError as error:
            raise UserError(f"cannot write {self._path}: {error.strerror}") from error
        if self._board is not None:
            for name, value in values.items():
                if name != "step":
                    self._board.add_scalar(name, value, int(values["step"]))

    def flush(self) -> None:
        """Hand everything to the disk, before a checkpoint that counts on it."""
        self._stream.flush()


def _tensorboard(run_dir: Path, first_step: int) -> Any:
    try:
        from torch.utils.tensorboard import SummaryWriter
    except ImportError:
        return None
    return SummaryWriter(run_dir / "tensorboard", purge_step=first_step or None)
