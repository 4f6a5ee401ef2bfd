"""The checks of a logger: it takes every value, at once, and leaves the run and its files as they are."""

from __future__ import annotations

import json
import math
import random
import tempfile
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from statistics import median
from typing import Any

import numpy as np
import torch

from ssl_bench.logger import LoggedRun, Logger
from ssl_bench.settings import Settings, parse_settings
from ssl_bench.testing import common
from ssl_bench.testing.outcomes import require

SETTINGS = {"method.out_dim": 512, "training.epochs": 3, "method.scale": [0.2, 1.0], "backbone.depth": None}
"""Of the run that is logged."""
VALUES = {"loss": 5.25, "lr": 1e-4, "teacher/knn/top1_k20": 41.5}
MOST_SECONDS = 0.05
"""Of a call of `log`, which every training step waits for; half of the calls may take longer, to write now and then."""
CALLS = 11
OF_THE_RUN = "steps.csv"
"""A file that the run writes itself."""


class Subject:
    """A logger class, with the runs that its checks let it log."""

    def __init__(self, plugin: type[Logger], settings: Mapping[str, Any], path: Path | None = None) -> None:
        self.plugin, self.settings = plugin, dict(settings)

    def configs(self) -> list[Settings]:
        """What goes through JSON."""
        return [parse_settings(self.plugin.Config, self.settings, "logger", self.plugin.__name__)]

    @contextmanager
    def folder(self) -> Iterator[Path]:
        """A run's folder, with a file of the run in it, in a temporary folder of its own."""
        with tempfile.TemporaryDirectory(ignore_cleanup_errors=True) as temporary:
            run = Path(temporary) / "dino-deit_s16-shapes-s0-3f9c"
            run.mkdir()
            (run / OF_THE_RUN).write_text("step,loss\n")
            yield run

    def start(self, folder: Path, first_step: int = 0) -> Logger:
        """The logger of a run that begins, or resumes after `first_step` steps."""
        return self.plugin(LoggedRun(folder.name, folder, dict(SETTINGS), first_step, say=lambda text: None))


def it_logs_a_run(subject: Subject) -> None:
    """`Kind(run)`, `log` after every step and `close` work; `run` is kept as the base class does."""
    with subject.folder() as folder:
        logger = subject.start(folder)
        require(
            isinstance(getattr(logger, "run", None), LoggedRun),
            "self.run is missing: begin __init__ with super().__init__(run)",
        )
        for step in (1, 2, 3):
            logger.log(step, dict(VALUES))
        logger.close()


def any_values_are_taken(subject: Subject) -> None:
    """A step may have other names than the one before, no value at all, or values that are not finite."""
    with subject.folder() as folder:
        logger = subject.start(folder)
        steps: list[dict[str, float]] = [{}, {"loss": math.nan}, {"loss": math.inf, "kl": -math.inf}, {"other": 0.0}]
        for step, values in enumerate(steps, start=1):
            logger.log(step, values)
        logger.close()


def it_changes_no_value(subject: Subject) -> None:
    """The mapping that `log` gets is the run's: it is read, never changed."""
    with subject.folder() as folder:
        logger, given = subject.start(folder), dict(VALUES)
        logger.log(1, given)
        logger.close()
        require(given == VALUES, "log() changes the values that it is given, which others get as well: copy them")


def its_files_lie_in_a_folder_of_their_own(subject: Subject) -> None:
    """What it writes into the run's folder lies in a folder below it, and the run's own files stay as they are."""
    with subject.folder() as folder:
        before = (folder / OF_THE_RUN).read_bytes()
        logger = subject.start(folder)
        logger.log(1, dict(VALUES))
        logger.close()
        require((folder / OF_THE_RUN).read_bytes() == before, f"it changes {OF_THE_RUN}, which the run writes")
        beside = sorted(path.name for path in folder.iterdir() if path.is_file() and path.name != OF_THE_RUN)
        require(
            not beside,
            f"it writes {', '.join(beside)} beside the run's files: write into a folder of its own, "
            'e.g. run.folder / "my_logger"',
        )


def a_resumed_run_continues(subject: Subject) -> None:
    """A second logger of the same folder begins at `first_step` and is given the steps after it again."""
    with subject.folder() as folder:
        stopped = subject.start(folder)
        for step in (1, 2, 3):
            stopped.log(step, dict(VALUES))
        stopped.close()
        resumed = subject.start(folder, first_step=1)
        for step in (2, 3, 4):
            resumed.log(step, dict(VALUES))
        resumed.close()


def random_numbers_stay_as_they_are(subject: Subject) -> None:
    """No random number of torch, NumPy or Python is drawn: the run is the same with and without the logger."""
    for draw in (torch.rand, np.random.rand):  # a logger that seeds anew would else find the state it leaves
        draw(1)
    random.random()
    with subject.folder() as folder:
        before = _random_states()
        logger = subject.start(folder)
        logger.log(1, dict(VALUES))
        logger.close()
        changed = [name for name, state in _random_states().items() if state != before[name]]
        require(
            not changed,
            f"it draws random numbers of {' and '.join(changed)}, so that a logged run is another one: use a generator "
            "of its own, e.g. random.Random()",
        )


def training_does_not_wait_for_it(subject: Subject) -> None:
    """`log` returns at once: what takes long, e.g. sending, is collected and done now and then."""
    with subject.folder() as folder:
        logger, seconds = subject.start(folder), []
        for step in range(1, CALLS + 1):
            begun = time.perf_counter()
            logger.log(step, dict(VALUES))
            seconds.append(time.perf_counter() - begun)
        logger.close()
    require(
        median(seconds) <= MOST_SECONDS,
        f"log() takes {1000 * median(seconds):.0f} ms, and every training step waits for it: collect values and write "
        "them now and then, and the rest in close()",
    )


def _random_states() -> dict[str, str]:
    numpy_state = np.random.get_state(legacy=False)
    return {
        "torch": torch.get_rng_state().numpy().tobytes().hex(),
        "NumPy": json.dumps(numpy_state, default=lambda value: value.tolist()),
        "Python": repr(random.getstate()),
    }


CHECKS = (
    common.docstring_present,
    common.settings_are_described,
    common.functions_take_what_they_are_given,
    common.settings_round_trip_through_json,
    it_logs_a_run,
    any_values_are_taken,
    it_changes_no_value,
    its_files_lie_in_a_folder_of_their_own,
    a_resumed_run_continues,
    random_numbers_stay_as_they_are,
    training_does_not_wait_for_it,
)
