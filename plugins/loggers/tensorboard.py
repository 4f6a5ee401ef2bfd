"""TensorBoard: event files in the run's folder."""

from __future__ import annotations

from collections.abc import Mapping

from ssl_bench.logger import LoggedRun, Logger


class TensorBoard(Logger):
    """TensorBoard's event files in the run's folder, `tensorboard/`."""

    def __init__(self, run: LoggedRun) -> None:
        super().__init__(run)
        from torch.utils.tensorboard import SummaryWriter

        folder = run.folder / "tensorboard"
        purged = run.first_step + 1 if run.first_step else None  # what a stopped run wrote after its checkpoint
        self._writer = SummaryWriter(folder, purge_step=purged)
        run.say(f"tensorboard --logdir {folder}")

    def log(self, step: int, values: Mapping[str, float]) -> None:
        """One scalar a value."""
        for name, value in values.items():
            self._writer.add_scalar(name, value, step)

    def close(self) -> None:
        """Write what is left."""
        self._writer.close()
