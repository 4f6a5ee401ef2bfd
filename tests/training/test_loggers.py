"""`--log`: what loggers get of a run, loggers that fail at any moment, and names that are wrong."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pytest

from ssl_bench.errors import UserError
from ssl_bench.logger import LoggedRun, Logger
from ssl_bench.records.steps import read_step_curves
from ssl_bench.runs import runner, session
from ssl_bench.runs.folder import Start
from ssl_bench.training.loggers import Loggers, load_loggers
from tests.conftest import Command
from tests.runs.test_during_training import Display, images, recipe

__all__ = ["images"]


class Kept(Logger):
    """Keeps what it gets; fails at the moment that `fails` names."""

    fails = ""
    got: list[tuple[int, dict[str, float]]]
    runs: list[LoggedRun]

    def __init__(self, run: LoggedRun) -> None:
        super().__init__(run)
        self.runs.append(run)
        self.fail("start")

    def log(self, step: int, values: Mapping[str, float]) -> None:
        self.fail("log")
        self.got.append((step, dict(values)))

    def close(self) -> None:
        self.fail("close")

    def fail(self, moment: str) -> None:
        if self.fails == moment:
            raise ConnectionError("no network\nsecond line")


@pytest.fixture
def kept() -> type[Kept]:
    return type("Fresh", (Kept,), {"got": [], "runs": []})


class Lines(Display):
    """Keeps the lines."""

    def __init__(self) -> None:
        super().__init__()
        self.lines: list[tuple[str, str]] = []

    def line(self, label: str, text: str) -> None:
        self.lines.append((label, text))


def test_a_run_hands_over_every_step_every_evaluation_and_its_settings(
    images: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, kept: type[Kept]
) -> None:
    monkeypatch.setattr(session, "load_loggers", lambda names: {"kept": kept} if list(names) == ["kept"] else {})
    resolved = recipe(images, **{"training.eval_every": 2, "training.epochs": 2, "machine.log": ["kept"]})
    runner.run(resolved, Start(tmp_path / "run", False, "test"), Lines())
    steps = [(step, values) for step, values in kept.got if "loss" in values]
    assert [step for step, _ in steps] == [1, 2, 3, 4]
    curves = read_step_curves(tmp_path / "run")
    assert [values["kl"] for _, values in steps] == pytest.approx(list(curves.values["kl"]), rel=1e-7)
    measured = [(step, sorted(values)) for step, values in kept.got if "loss" not in values]
    assert measured == [
        (4, ["student/knn/top1_k3", "teacher/knn/top1_k3"]),
        (4, ["teacher/knn/top1_k3"]),
    ]
    (run,) = kept.runs
    assert (run.name, run.folder, run.first_step) == ("run", tmp_path / "run", 0)
    assert run.settings["method.out_dim"] == 16
    assert run.settings["training.batch_size"] == 8


@pytest.mark.parametrize(("moment", "logged"), [("start", 0), ("log", 0), ("close", 2)])
def test_a_logger_that_fails_is_left_out_with_one_warning(
    tmp_path: Path, kept: type[Kept], moment: str, logged: int
) -> None:
    kept.fails = moment
    works = type("Works", (Kept,), {"got": [], "runs": []})
    warnings: list[str] = []
    run = LoggedRun("a", tmp_path, {}, 0, warnings.append)
    with Loggers({"bad": kept, "good": works}, run, warnings.append) as loggers:
        loggers.log(1, {"loss": 1.0})
        loggers.log(2, {"loss": 0.5})
    assert len(kept.got) == logged
    assert works.got == [(1, {"loss": 1.0}), (2, {"loss": 0.5})]
    assert warnings == [
        "the logger bad fails and is left out from here on (ConnectionError: no network). The run continues"
    ]


def test_names_are_checked_before_anything_is_trained(sslbench: Command, images: Path, tmp_path: Path) -> None:
    with pytest.raises(UserError, match=r"no logger is called 'tensorbord'. Did you mean 'tensorboard'"):
        load_loggers(["tensorbord"])
    run: tuple[Any, ...] = ("run", "dino", "--arch", "resnet18", "--data", str(images), "--results", str(tmp_path))
    status, _, err = sslbench(*run, "--log", "nothing", "--batch-size", "8")
    assert status == 2
    assert "no logger is called 'nothing'" in err
    status, _, err = sslbench(*run, "--log", ",")
    assert status == 2
    assert "--log names no logger" in err
    assert not list(tmp_path.iterdir())
