"""Whatever signal ends a run, whenever: exit status 130, a command to resume with, and nothing trained is lost.

CI sends three; SSLBENCH_SIGNALS=all sends every signal to the process and to its group, in every phase.
"""

from __future__ import annotations

import itertools
import json
import os
import re
import shlex
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file

from tests.toy import write_image_folder

PHASES = {
    "precision": r"trying one batch",
    "untrained": r"linear-probe of the untrained",
    "training": r"epoch \d+/\d+ +step",
    "trained": r"linear-probe of the trained",
}
SIGNALS = ("SIGTERM", "SIGINT", "SIGHUP", "SIGUSR1")
CASES = list(itertools.product(SIGNALS, ("process", "group"), (0, 2), PHASES))
EVERY = [
    case for index, case in enumerate(CASES) if (index.bit_count() + index // 32) % 2 == 0
]  # 32 of the 64, every pair of choices among them
SOME = [("SIGTERM", "group", 2, "training"), ("SIGHUP", "process", 0, "trained")]
SETTINGS = (
    *("backbone.depth=1", "backbone.dim=32", "backbone.heads=2", "backbone.patch_px=8", "training.precision=fp32"),
    *("evaluators.linear-probe.epochs=600", "evaluators.knn.neighbors=[1]", "evaluators.knn.reported=1"),
)
ARGUMENTS = ["run", "simclr", "--arch", "deit_ti16", "--batch-size", "8", "--epochs", "24"]
ARGUMENTS += [word for value in SETTINGS for word in ("--set", value)]
STEPS = 24 * 40 // 8
ENVIRONMENT = {**os.environ, "PYTHONUNBUFFERED": "1", "OMP_NUM_THREADS": "1"}


@pytest.fixture(scope="module")
def data(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_image_folder(tmp_path_factory.mktemp("data") / "tints", train=20, test=4, px=16)


def sslbench(folder: Path, *arguments: str) -> subprocess.Popen[str]:
    return subprocess.Popen(
        [sys.executable, "-m", "ssl_bench.cli.main", *arguments],
        cwd=folder, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, env=ENVIRONMENT, start_new_session=True,
        preexec_fn=lambda: signal.signal(signal.SIGHUP, signal.SIG_DFL),  # the tests may run under nohup
    )  # fmt: skip


@pytest.fixture(scope="module")
def whole(data: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The folder of the same run without a signal."""
    folder = tmp_path_factory.mktemp("whole")
    process = sslbench(folder, *ARGUMENTS, "--data", str(data), "--run-id", "whole")
    assert process.communicate(timeout=300)[1] == ""
    return folder / "results" / "runs" / "whole"


@pytest.mark.parametrize(
    ("name", "target", "workers", "phase"), EVERY if os.environ.get("SSLBENCH_SIGNALS") == "all" else SOME
)
def test_a_signal_ends_a_run_saved_and_the_printed_command_finishes_it(
    data: Path, whole: Path, tmp_path: Path, name: str, target: str, workers: int, phase: str
) -> None:
    process = sslbench(
        tmp_path, *ARGUMENTS, "--data", str(data), "--results", "my results", "--run-id", "cut",
        "--set", f"machine.workers={workers}",
    )  # fmt: skip
    assert process.stdout is not None
    shown = list(itertools.takewhile(lambda line: not re.search(PHASES[phase], line), process.stdout))
    time.sleep(0.05)
    number = getattr(signal, name)
    os.killpg(process.pid, number) if target == "group" else process.send_signal(number)
    out, err = process.communicate(timeout=120)
    assert process.returncode == 130, (shown, out, err)
    assert "Traceback" not in err
    printed = re.search(r"Resume with: sslbench (.*)", out)
    assert printed is not None, out
    folder = tmp_path / "my results" / "runs" / "cut"
    logged = len((folder / "metrics.jsonl").read_bytes().splitlines()) if phase in ("training", "trained") else 0
    if phase == "trained":
        assert (folder / "weights.safetensors").exists()
        assert f"saved up to step {STEPS}" in out

    again = sslbench(tmp_path, *shlex.split(printed[1]))
    out, err = again.communicate(timeout=300)
    assert again.returncode == 0, err
    if logged:
        assert f"at step {logged:,}; the result will be bitwise" in out
    assert json.loads((folder / "record.json").read_text())["training"]["steps"] == STEPS
    assert (folder / "metrics.jsonl").read_bytes() == (whole / "metrics.jsonl").read_bytes()
    one, other = load_file(folder / "weights.safetensors"), load_file(whole / "weights.safetensors")
    assert [tensor for tensor in one if not torch.equal(one[tensor], other[tensor])] == []
