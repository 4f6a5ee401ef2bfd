"""Every logger whose package is here: values of a run and of its resumption arrive, offline and below its folder."""

from __future__ import annotations

import math
from collections.abc import Callable
from pathlib import Path

import pytest

from ssl_bench import registry
from ssl_bench.logger import LoggedRun

INSTALLED = [name for name in registry.names("logger") if not registry.find("logger", name).lacking()]


def of_tensorboard(folder: Path) -> dict[int, float]:
    from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

    events = EventAccumulator(str(folder / "tensorboard"))
    events.Reload()
    return {event.step: event.value for event in events.Scalars("loss")}


def of_mlflow(folder: Path) -> dict[int, float]:
    from mlflow.tracking import MlflowClient

    client = MlflowClient(tracking_uri=f"sqlite:///{folder}/mlflow/mlflow.db")
    (run,) = client.search_runs([client.get_experiment_by_name("sslbench").experiment_id])
    assert run.data.params["method.out_dim"] == "8"
    return {metric.step: metric.value for metric in client.get_metric_history(run.info.run_id, "loss")}


def of_wandb(folder: Path) -> dict[int, float] | None:
    """Its file format is its own: only that there is one a session."""
    assert len(list(folder.glob("wandb/offline-run-*/run-*.wandb"))) == 2
    return None


READ: dict[str, Callable[[Path], dict[int, float] | None]] = {
    "tensorboard": of_tensorboard,
    "wandb": of_wandb,
    "mlflow": of_mlflow,
}


def test_every_logger_of_sslbench_is_read_here() -> None:
    official = {one.name for one in registry.plugins("logger") if one.distribution == registry.HOME}
    assert official == {*READ}


@pytest.mark.parametrize("name", INSTALLED)
def test_values_arrive_and_a_resumed_run_continues(name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for variable in ("WANDB_API_KEY", "WANDB_MODE", "MLFLOW_TRACKING_URI"):
        monkeypatch.delenv(variable, raising=False)
    monkeypatch.setenv("HOME", str(tmp_path))  # no login of whoever runs this
    monkeypatch.setenv("WANDB_MODE", "offline") if name == "wandb" else None
    said: list[str] = []
    folder = tmp_path / "a run"
    folder.mkdir()
    for first, values in ((0, [5.0, 4.0, 3.0]), (2, [2.5, math.nan])):
        logger = registry.logger(name)(LoggedRun("a run", folder, {"method.out_dim": 8}, first, said.append))
        for step, value in enumerate(values, first + 1):
            logger.log(step, {"loss": value, "teacher/knn/top1_k20": 40.0})
        logger.close()
    found = READ[name](folder)
    if found is not None:
        assert {step: found[step] for step in (1, 2, 3)} == {1: 5.0, 2: 4.0, 3: 2.5}
    assert said or name == "wandb"
