"""The contract of a logger: where a run's values go, while it trains, beside the files that it leaves in any case."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, ClassVar

from ssl_bench.settings import Settings


@dataclass(frozen=True)
class LoggedRun:
    """The run whose values are logged."""

    name: str
    """E.g. dino-deit_s16-shapes-s0-3f9c."""
    folder: Path
    """Its own folder; files of a logger lie in a folder below it."""
    settings: Mapping[str, Any]
    """Every value of its recipe under the name that --set takes."""
    first_step: int
    """Steps done before; not 0 where the run resumes. What was logged after it is logged again."""
    say: Callable[[str], None]
    """One line for the user, e.g. where the values can be seen."""


class Logger(ABC):
    """Base class of a logger plugin. Any error in it is a warning, and the run continues without it."""

    Config: ClassVar[type[Settings]] = Settings

    def __init__(self, run: LoggedRun) -> None:
        """Begin, or continue where the run resumes."""
        self.run = run

    @abstractmethod
    def log(self, step: int, values: Mapping[str, float]) -> None:
        """Values after `step` optimizer steps, e.g. {"loss": 5.1} or {"teacher/knn/top1_k20": 41.5}; not always finite.

        Called after every step, on the training's time: what takes long is collected and sent now and then.
        """

    def close(self) -> None:  # noqa: B027 (optional)
        """The run ended or was stopped: write what is left."""
