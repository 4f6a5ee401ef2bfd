"""Each check of a logger: a sound one passes all of them, and each breach of the contract fails the one it breaks."""

from __future__ import annotations

import random
import time
from collections.abc import Callable, Mapping
from typing import Any

import pytest
import torch

from ssl_bench import registry
from ssl_bench.logger import LoggedRun, Logger
from ssl_bench.testing import run_checks


class Sound(Logger):
    """Keeps the last values."""

    def __init__(self, run: LoggedRun) -> None:
        super().__init__(run)
        (run.folder / "sound").mkdir(exist_ok=True)
        self.seen: list[Mapping[str, float]] = []

    def log(self, step: int, values: Mapping[str, float]) -> None:
        self.seen.append(dict(values))
        if step % 100 == 0:
            time.sleep(0.2)  # sent now and then


def breach(name: str, written: Callable[..., Any]) -> type[Logger]:
    return type("Broken", (Sound,), {"__doc__": "A breach.", name: written})


def no_base(self: Logger, run: LoggedRun) -> None:
    self.seen = []  # type: ignore[attr-defined]


def begins(act: Callable[[LoggedRun], object]) -> Callable[[Logger, LoggedRun], None]:
    def begin(self: Logger, run: LoggedRun) -> None:
        Sound.__init__(self, run)  # type: ignore[arg-type]
        act(run)

    return begin


def only_from_the_start(run: LoggedRun) -> None:
    (run.folder / "sound" / "values.txt").open("x").close()


BREACHES: dict[str, tuple[str, Callable[..., Any]]] = {
    "docstring present": ("__doc__", str),
    "functions take what they are given": ("log", lambda self, values: None),
    "it logs a run": ("__init__", no_base),
    "any values are taken": ("log", lambda self, step, values: int(values.get("loss", 0.0))),
    "it changes no value": ("log", lambda self, step, values: values.pop("loss", None)),
    "its files lie in a folder of their own": (
        "__init__",
        begins(lambda run: (run.folder / "steps.csv").write_text("")),
    ),
    "a resumed run continues": ("__init__", begins(only_from_the_start)),
    "random numbers stay as they are": ("__init__", begins(lambda run: torch.rand(1))),
    "training does not wait for it": ("log", lambda self, step, values: time.sleep(0.06)),
}


def failing(plugin: type[Logger]) -> list[str]:
    return [result.name for result in run_checks("logger", plugin) if result.outcome == "failed"]


def test_a_sound_logger_passes() -> None:
    assert failing(Sound) == []


@pytest.mark.parametrize("check", BREACHES)
def test_a_breach_fails_the_check_of_what_it_breaks(check: str) -> None:
    name, written = BREACHES[check]
    plugin = breach(name, written) if name != "__doc__" else type("Bare", (Sound,), {"__doc__": ""})
    assert check in failing(plugin)


@pytest.mark.parametrize("state", [lambda run: random.random(), lambda run: torch.manual_seed(0)])
def test_random_numbers_of_python_and_seeds_count_as_well(state: Callable[[LoggedRun], object]) -> None:
    torch.rand(1)
    assert failing(breach("__init__", begins(state))) == ["random numbers stay as they are"]


def test_the_official_logger_that_needs_no_server_passes() -> None:
    plugin = registry.find("logger", "tensorboard")
    if plugin.lacking():
        pytest.skip("tensorboard is not installed")
    assert failing(plugin.load()) == []
