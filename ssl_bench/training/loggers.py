"""The loggers that a run was asked for: opened, fed and closed so that none of them can end a training."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from functools import partial

from ssl_bench import registry
from ssl_bench.errors import UserError
from ssl_bench.logger import LoggedRun, Logger


def load_loggers(names: Iterable[str]) -> dict[str, type[Logger]]:
    """The logger classes of these names. Raises `UserError` for an unknown one and for packages that are missing."""
    return {name: registry.logger(name) for name in dict.fromkeys(names)}


class Loggers:
    """Loggers of one run; one that fails is left out from then on, with one warning."""

    def __init__(self, kinds: Mapping[str, type[Logger]], run: LoggedRun, warn: Callable[[str], None]) -> None:
        self._warn, self._open = warn, dict[str, Logger]()
        for name, kind in kinds.items():
            self._try(name, partial(self._start, name, kind, run))

    def __enter__(self) -> Loggers:
        return self

    def __exit__(self, *_: object) -> None:
        for name, logger in list(self._open.items()):
            self._try(name, logger.close)
        self._open.clear()

    def log(self, step: int, values: Mapping[str, float]) -> None:
        """Hand the values to every logger that works."""
        for name, logger in list(self._open.items()):
            self._try(name, partial(logger.log, step, values))

    def _start(self, name: str, kind: type[Logger], run: LoggedRun) -> None:
        self._open[name] = kind(run)

    def _try(self, name: str, act: Callable[[], None]) -> None:
        try:
            act()
        except Exception as error:
            self._open.pop(name, None)
            reason = str(error) if isinstance(error, UserError) else f"{type(error).__name__}: {error}"
            first_line = next((line for line in reason.splitlines() if line.strip()), type(error).__name__)
            self._warn(f"the logger {name} fails and is left out from here on ({first_line}). The run continues")
