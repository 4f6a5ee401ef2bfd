"""Values as lines of JSON: replace the file by whatever shows your values."""

import json
from collections.abc import Mapping

from ssl_bench.logger import LoggedRun, Logger

FLUSH_EVERY = 100
"""Steps between two writes: training waits for `log`."""


class MyPlugin(Logger):
    """my_plugin: one line of JSON a step, in the folder `my_plugin/` of the run."""

    def __init__(self, run: LoggedRun) -> None:
        super().__init__(run)
        folder = run.folder / "my_plugin"
        folder.mkdir(exist_ok=True)
        path = folder / "values.jsonl"
        self._lines: list[str] = []
        kept = path.read_text(encoding="utf-8").splitlines() if run.first_step and path.exists() else []
        # what a stopped run logged after its last checkpoint is logged again
        self._lines += [line for line in kept if json.loads(line)["step"] <= run.first_step]
        self._file = path.open("w", encoding="utf-8")
        run.say(f"values are written to {path}")

    def log(self, step: int, values: Mapping[str, float]) -> None:
        """Values that are not finite are written as NaN and Infinity, which Python's json reads."""
        self._lines.append(json.dumps({"step": step, **values}))
        if step % FLUSH_EVERY == 0:
            self._write()

    def close(self) -> None:
        """Write what is left."""
        self._write()
        self._file.close()

    def _write(self) -> None:
        self._file.writelines(f"{line}\n" for line in self._lines)
        self._file.flush()
        self._lines.clear()
