"""Evaluation during training: every network at the end of every N-th epoch, and training as without it."""

from __future__ import annotations

import json
import os
import signal
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file

from ssl_bench.recipes.request import Request
from ssl_bench.recipes.resolve import Resolved, resolve
from ssl_bench.records.curves import Curves, read_curves, write_curves
from ssl_bench.records.reading import read_record
from ssl_bench.records.record import RunRecord
from ssl_bench.runs import runner
from ssl_bench.runs.folder import Start
from ssl_bench.runs.reevaluate import reevaluate
from ssl_bench.training.loop import StepReport, Stopped
from tests.conftest import Command
from tests.toy import write_image_folder

VALUES: dict[str, Any] = {
    "backbone.width": 0.125, "training.precision": "fp32", "training.batch_size": 8, "training.epochs": 4,
    "method.local_views": 0, "method.out_dim": 16, "method.hidden_dim": 16, "method.bottleneck_dim": 8,
    "evaluators.knn.neighbors": [3], "evaluators.knn.reported": 3, "machine.workers": 0,
}  # fmt: skip


class Display:
    """Stops the run after the given step."""

    def __init__(self, stop_after: int | None = None) -> None:
        self.stop_after, self.said = stop_after, list[str]()

    def line(self, label: str, text: str) -> None:
        pass

    def say(self, text: str) -> None:
        self.said.append(text)

    def step(self, report: StepReport) -> None:
        if report.step == self.stop_after:
            os.kill(os.getpid(), signal.SIGINT)


@pytest.fixture(scope="module")
def images(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_image_folder(tmp_path_factory.mktemp("data") / "tints", train=8, test=4, px=16)


def recipe(images: Path, **changes: Any) -> Resolved:
    return resolve(
        Request(method="dino", arch="resnet18", data=str(images), evaluators=("knn",), values=VALUES | changes)
    )


def run(resolved: Resolved, folder: Path, *, stop_after: int | None = None, resume: bool = False) -> RunRecord:
    return runner.run(resolved, Start(folder, resume, "test"), Display(stop_after))


@pytest.fixture(scope="module")
def whole(images: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("whole") / "run"
    run(recipe(images, **{"training.eval_every": 2}), folder)
    return folder


def test_every_network_is_measured_at_the_end_of_every_second_epoch(whole: Path) -> None:
    record, curves = read_record(whole / "record.json"), read_curves(whole)
    assert curves.evaluated_steps == (4, 8)
    assert [(one.network, one.metric, one.steps, one.epochs, one.n) for one in curves.series] == [
        ("teacher", "top1_k3", (4, 8), (2, 4), 8),
        ("student", "top1_k3", (4, 8), (2, 4), 8),
    ]
    (end,) = [one for one in record.evaluations if one.subject == "trained"]
    assert (end.network, end.step) == ("teacher", 8)
    assert end.measurements[0].value == curves.series[0].values[-1], "the last point is the evaluated network"
    assert [(one.network, one.step) for one in record.evaluations if one.subject == "untrained"] == [("teacher", 0)]
    assert record.curves is not None
    assert [(one.network, one.points, one.last) for one in record.curves.summaries] == [
        (one.network, 2, one.values[-1]) for one in curves.series
    ]


def test_training_is_bitwise_the_one_without(images: Path, whole: Path, tmp_path: Path) -> None:
    plain = recipe(images)
    record = run(plain, tmp_path / "plain")
    assert record.curves is None
    assert not (tmp_path / "plain" / "curves.json").exists()
    ours, theirs = (load_file(folder / "weights.safetensors") for folder in (whole, tmp_path / "plain"))
    assert all(torch.equal(ours[name], theirs[name]) for name in theirs)
    assert (whole / "metrics.jsonl").read_text() == (tmp_path / "plain" / "metrics.jsonl").read_text()


@pytest.mark.parametrize("stop_after", [3, 4, 5])
def test_a_resumed_run_has_the_same_curve(images: Path, whole: Path, tmp_path: Path, stop_after: int) -> None:
    resolved = recipe(images, **{"training.eval_every": 2})
    with pytest.raises(Stopped):
        run(resolved, tmp_path / "run", stop_after=stop_after)
    run(resolved, tmp_path / "run", resume=True)
    assert read_curves(tmp_path / "run") == read_curves(whole)


@pytest.mark.parametrize("lost", ["the point of the checkpoint", "the checkpoints"])
def test_no_gap_and_no_double_after_a_crash(images: Path, whole: Path, tmp_path: Path, lost: str) -> None:
    """A process can die between a checkpoint and its point, or with points that no checkpoint reaches."""
    resolved, folder = recipe(images, **{"training.eval_every": 2}), tmp_path / "run"
    with pytest.raises(Stopped):
        run(resolved, folder, stop_after=4)
    if lost == "the checkpoints":
        for path in (folder / "checkpoints").rglob("*"):
            if path.is_file():
                path.unlink()
        for path in (folder / "checkpoints").iterdir():
            path.rmdir()
    else:
        write_curves(folder, Curves())
    run(resolved, folder, resume=True)
    assert read_curves(folder) == read_curves(whole)


def test_the_setting_changes_no_digest_of_recipes_without_it(images: Path) -> None:
    plain, with_curve = recipe(images).recipe, recipe(images, **{"training.eval_every": 2}).recipe
    content = plain.model_dump(mode="json")
    del content["training"]["eval_every"]
    assert type(plain).model_validate(content).digest == plain.digest != with_curve.digest


def test_show_and_eval_know_the_curve(sslbench: Command, whole: Path, tmp_path: Path) -> None:
    status, out, _ = sslbench("show", str(whole))
    curves = read_curves(whole)
    assert status == 0
    for one in curves.series:
        assert f"{one.network:<18}knn top1_k3, % by epoch  2: {one.values[0]:.1f}  4: {one.values[1]:.1f}  (best" in out
    path = whole / "curves.json"
    kept = path.read_bytes()
    path.write_bytes(kept.replace(b'"student"', b'"pupil"'))
    status, out, err = sslbench("show", str(whole))
    path.write_bytes(kept)
    assert status == 1
    assert "curves.json is damaged or was edited" in err
    assert "knn top1_k3" in out


def test_an_evaluation_afterwards_names_network_and_step(whole: Path) -> None:
    _, results = reevaluate(whole, ["knn"], None, {"evaluators.knn.temperature": 0.1})
    assert [(one.subject, one.network, one.step) for one in results] == [
        ("untrained", "teacher", 0),
        ("trained", "teacher", 8),
    ]


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (("--eval-every", "0"), "'training.eval_every' = 0: input should be greater than or equal to 1"),
        (("--eval-every", "3"), "training.eval_every = 3 is beyond the run of 2 epochs"),
        (("--eval-every", "1", "--epochs", "0"), "the run trains nothing (0 epochs)"),
        (("--eval-every", "1", "--with", "linear-probe"), "add knn to --with"),
    ],
)
def test_an_interval_that_never_comes_is_one_message(
    sslbench: Command, images: Path, arguments: tuple[str, ...], said: str
) -> None:
    epochs = () if "--epochs" in arguments else ("--epochs", "2")
    status, _, err = sslbench(
        "run", "dino", "--arch", "resnet18", "--data", str(images), "--batch-size", "8", *epochs, *arguments
    )
    assert status == 2
    assert said in err
    assert err.count("error:") == 1


def test_the_file_is_compact_and_its_columns_fit(whole: Path, tmp_path: Path) -> None:
    content = json.loads((whole / "curves.json").read_text())
    assert (whole / "curves.json").read_text().count("\n") == 1
    content["series"][0]["values"].append(1.0)
    with pytest.raises(ValueError, match="differ in length"):
        Curves.model_validate({key: value for key, value in content.items() if key != "fingerprint"})
