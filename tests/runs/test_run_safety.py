"""A run is never lost: stops, crashes, full disks, damaged files, replaced runs, changed data and odd names."""

from __future__ import annotations

import errno
import json
import os
import shutil
import signal
from multiprocessing import active_children
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file
from torch import Tensor

from ssl_bench.cli.output import SurvivingStream
from ssl_bench.errors import UserError
from ssl_bench.runs import beginning, session
from ssl_bench.runs.display import TerminalDisplay
from ssl_bench.runs.folder import hold
from ssl_bench.system.hints import resume_command
from ssl_bench.training.batches import EpochOrder, batches
from ssl_bench.training.loop import StepReport
from ssl_bench.training.metrics_log import MetricsLog
from tests.conftest import Command
from tests.end_to_end.test_end_to_end import SMALL
from tests.toy import ToyDataset, ToyMethod, write_image_folder

STEPS = 5


@pytest.fixture
def data(tmp_path: Path) -> Path:
    return write_image_folder(tmp_path / "tints", train=20, test=10, px=16)


@pytest.fixture
def arguments(data: Path) -> list[str]:
    return ["run", "dino", *SMALL, "--data", str(data), "--epochs", "1", "--with", "knn", "--run-id", "mine"]


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    return tmp_path / "results" / "runs" / "mine"


def stop_at(step: int, patch: pytest.MonkeyPatch) -> None:
    def signalled(self: TerminalDisplay, report: StepReport) -> None:
        if report.step == step:
            os.kill(os.getpid(), signal.SIGUSR1)

    patch.setattr(TerminalDisplay, "step", signalled)


def stopped(sslbench: Command, arguments: list[str], step: int = 3) -> str:
    with pytest.MonkeyPatch.context() as patch:
        stop_at(step, patch)
        status, out, err = sslbench(*arguments)
    assert status == 130, err
    return out


def contents(folder: Path) -> dict[str, bytes]:
    files = (file for file in folder.rglob("*") if file.is_file() and file.name != ".lock")
    return {str(file.relative_to(folder)): file.read_bytes() for file in files}


def lines(folder: Path) -> list[str]:
    return (folder / "metrics.jsonl").read_text().splitlines()


@pytest.mark.parametrize("crash", [KeyboardInterrupt(), RuntimeError("a bug"), UserError("an image is cut")])
def test_what_was_trained_survives_a_crash_of_the_trained_evaluation(
    sslbench: Command, arguments: list[str], folder: Path, monkeypatch: pytest.MonkeyPatch, crash: BaseException
) -> None:  # fmt: skip
    real = session.evaluate_network

    def crashing(backbone: Any, subject: str, *rest: Any, **more: Any) -> Any:
        if subject == "trained":
            raise crash
        return real(backbone, subject, *rest, **more)

    with monkeypatch.context() as patch:
        patch.setattr(session, "evaluate_network", crashing)
        if isinstance(crash, RuntimeError):
            with pytest.raises(RuntimeError, match="a bug"):
                sslbench(*arguments)
        else:
            status, out, err = sslbench(*arguments)
            assert status == (2 if isinstance(crash, UserError) else 130)
            assert "resume with: sslbench run --resume results/runs/mine" in (out + err).replace("Resume", "resume")
    weights = load_file(folder / "weights.safetensors")
    status, out, err = sslbench("run", "--resume", str(folder))
    assert status == 0, err
    assert f"at step {STEPS}; the result" in out
    again = load_file(folder / "weights.safetensors")
    assert [name for name in weights if not torch.equal(weights[name], again[name])] == []
    assert len(lines(folder)) == STEPS
    assert json.loads((folder / "record.json").read_text())["training"]["steps"] == STEPS


@pytest.mark.parametrize("left", ["nothing", "a cut save"])
def test_a_run_killed_in_its_first_save_resumes_at_step_0(
    sslbench: Command, arguments: list[str], folder: Path, left: str
) -> None:  # fmt: skip
    stopped(sslbench, arguments)
    for checkpoint in (folder / "checkpoints").iterdir():
        target = checkpoint.with_name(f".{checkpoint.name}.part")
        checkpoint.rename(target) if left == "a cut save" else shutil.rmtree(checkpoint)
    status, out, err = sslbench("run", "--resume", str(folder))
    assert status == 0, err
    assert "at step 0: no checkpoint was completed before the stop" in out
    assert len(lines(folder)) == STEPS


def test_damaged_checkpoints_and_a_damaged_log_are_answered(
    sslbench: Command, arguments: list[str], folder: Path
) -> None:  # fmt: skip
    stopped(sslbench, arguments)
    (state,) = (folder / "checkpoints").glob("*/state.json")
    whole = state.read_bytes()
    state.write_bytes(whole[:-9])
    status, _, err = sslbench("run", "--resume", str(folder))
    assert status == 2
    assert "no usable checkpoint" in err
    assert "state.json does not match its SHA-256" in err
    state.write_bytes(whole)
    log = folder / "metrics.jsonl"
    log.write_bytes(log.read_bytes().replace(b'"loss"', b'"l\xffss"', 1))
    status, _, err = sslbench("run", "--resume", str(folder))
    assert status == 0, err
    assert [json.loads(line)["step"] for line in lines(folder)] == [1, 2, 3, 4]


def test_a_restart_that_is_refused_or_stopped_costs_nothing(
    sslbench: Command, arguments: list[str], folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:  # fmt: skip
    assert sslbench(*arguments)[0] == 0
    before = contents(folder)
    restart = [*arguments, "--restart"]
    assert sslbench(*restart, "--set", "machine.device=cuda:99")[0] == 2
    assert contents(folder) == before
    with hold(folder):
        status, _, err = sslbench(*restart)
    assert status == 2
    assert "another process is doing the run" in err
    for error, status in ((KeyboardInterrupt(), 130), (UserError("the trial fails"), 2)):
        with monkeypatch.context() as patch:
            patch.setattr(beginning, "measure_speed", raising(error))
            assert sslbench(*restart)[0] == status
        assert contents(folder) == before
    assert [path.name for path in folder.parent.iterdir()] == ["mine"]
    assert sslbench(*restart, "--seed", "1")[0] == 0
    assert json.loads((folder / "record.json").read_text())["seed"] == 1
    assert [path.name for path in folder.parent.iterdir()] == ["mine"]


def raising(error: BaseException) -> Any:
    def fail(*_: Any, **__: Any) -> None:
        raise error

    return fail


def test_a_refused_run_leaves_no_folder(
    sslbench: Command, arguments: list[str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:  # fmt: skip
    assert sslbench(*arguments, "--set", "machine.device=cuda:99")[0] == 2
    monkeypatch.setattr(beginning, "measure_speed", raising(UserError("no")))
    assert sslbench(*arguments)[0] == 2
    assert not (tmp_path / "results").exists()


def test_changed_data_are_named_and_can_be_accepted(
    sslbench: Command, arguments: list[str], folder: Path, data: Path
) -> None:  # fmt: skip
    stopped(sslbench, arguments)
    image = data / "train" / "a" / "0.png"
    shutil.copy(image, image.with_name("another.png"))
    status, _, err = sslbench("run", "--resume", str(folder))
    assert status == 2
    assert "the data of the run mine changed since it was started: 40 training images before, 41 now" in err
    assert "--accept-changed-data" in err
    status, _, err = sslbench("run", "--resume", str(folder), "--accept-changed-data")
    assert status == 0, err
    record = json.loads((folder / "record.json").read_text())
    assert record["notes"] == ["resumed on changed data: 40 training images before, 41 now"]
    assert record["data"]["train_images"] == 41


def test_names_that_are_not_utf8_are_refused_before_training_or_kept_out_of_the_record(
    sslbench: Command, arguments: list[str], tmp_path: Path, data: Path
) -> None:  # fmt: skip
    odd = os.fsdecode(b"r\xe9sultats")
    stopped(sslbench, [*arguments, "--results", odd])
    status, _, err = sslbench("run", "--resume", f"{odd}/runs/mine")
    assert status == 0, err
    assert json.loads((tmp_path / odd / "runs" / "mine" / "record.json").read_text())["status"] == "finished"
    assert resume_command(Path(odd)) == r"sslbench run --resume $'./r\xe9sultats'"
    shutil.copytree(data, tmp_path / odd / "data")
    for given in (["--run-id", odd], ["--data", f"{odd}/data"]):
        status, _, err = sslbench(*arguments, *given)
        assert status == 2
        assert "not UTF-8" in err
        assert r"\xe9" in err


def test_checkpoints_that_exist_are_not_counted_twice(
    sslbench: Command, arguments: list[str], folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:  # fmt: skip
    stopped(sslbench, arguments)
    one = sum(file.stat().st_size for file in (folder / "checkpoints").rglob("*"))
    usage = shutil.disk_usage(folder)
    with monkeypatch.context() as patch:
        patch.setattr(shutil, "disk_usage", lambda _: usage._replace(free=one // 2))
        status, _, err = sslbench("run", "--resume", str(folder))
        assert status == 2
        assert "MB free" in err
        patch.setattr(shutil, "disk_usage", lambda _: usage._replace(free=int(2.2 * one)))
        assert sslbench("run", "--resume", str(folder))[0] == 0


def test_values_are_logged_as_they_are(tmp_path: Path) -> None:
    with MetricsLog(tmp_path, 0) as log:
        log.write({"step": 0, "lr": 1.5625e-08, "kl": 0.1 + 0.2, "norm": float("nan")})
    assert json.loads(lines(tmp_path)[0]) == {"step": 0, "lr": 1.5625e-08, "kl": 0.1 + 0.2, "norm": "NaN"}


def test_a_log_that_a_full_disk_refuses_is_written_later(tmp_path: Path) -> None:
    with MetricsLog(tmp_path, 0) as log:
        disk, log._stream = log._stream, open("/dev/full", "wb", buffering=0)  # noqa: SIM115
        log.write({"step": 0})
        with pytest.raises(UserError, match=r"metrics.jsonl: No space left"):
            log.flush()
        log._stream.close()
        log._stream = disk
        log.write({"step": 1})
    assert [json.loads(line) for line in lines(tmp_path)] == [{"step": 0}, {"step": 1}]


def test_output_that_cannot_be_written_is_dropped() -> None:
    class Broken:
        calls = 0

        def write(self, text: str) -> int:
            self.calls += 1
            raise OSError(errno.EPIPE, "Broken pipe")

        def fileno(self) -> int:
            raise OSError

    broken = Broken()
    stream = SurvivingStream(broken)  # type: ignore[arg-type]
    assert [stream.write("epoch 1\n") for _ in range(3)] == [8, 8, 8]
    assert broken.calls == 1


def test_worker_processes_that_fail_cost_nothing(monkeypatch: pytest.MonkeyPatch) -> None:
    split, order = ToyDataset().train, EpochOrder(48, 8, 1, 0)
    plain, parent = ToyMethod.make_views(ToyMethod.Config()), os.getpid()

    def run(fail: Any) -> tuple[list[Tensor], list[str]]:
        def views(image: Any, rng: Any) -> Any:
            made = plain(image, rng)
            if os.getpid() != parent and fail is not None:
                fail()
            return made

        notes: list[str] = []
        made = batches(split, views, order, needs_labels=False, workers=2, note=notes.append)
        return [batch.views[0] for batch in made], notes

    def no_room() -> None:
        raise RuntimeError("unable to write to file </torch_1_2>: No space left on device (28)")

    whole, notes = run(None)
    assert notes == []
    without_workers, notes = run(no_room)
    assert len(notes) == 1
    assert "shared memory" in notes[0]
    assert "machine.workers=0" in notes[0]
    assert all(torch.equal(one, other) for one, other in zip(whole, without_workers, strict=True))
    with pytest.raises(UserError, match=r"one of the 2 worker processes.*machine.workers=0"):
        run(lambda: os.kill(os.getpid(), signal.SIGKILL))
    with pytest.raises(UserError, match=r"^a.png is cut$"):
        run(raising(UserError("a.png is cut")))
    assert active_children() == [], "Python would wait for them at its end"
