"""`sslbench run` as it is typed: under a cap, in micro-batches, with worker processes, stopped and resumed."""

from __future__ import annotations

import json
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator, Sequence
from functools import partial
from pathlib import Path
from typing import Any

from benchmarks.gpu_check.checks import GB, Bench, Check, attempt
from ssl_bench.errors import UserError
from ssl_bench.runs.device_name import device_name

PART = "run"
NAME = "sslbench run --memory 4GB, stopped and resumed"
CAP = 4 * GB
SSLBENCH = (sys.executable, "-m", "ssl_bench.cli.main")
MICRO_BATCH = 32
SETTINGS = {
    "data.train_images": 640,
    "data.test_images": 100,
    "machine.workers": 2,
    "machine.micro_batch": MICRO_BATCH,
}
RUN = (
    *("run", "simclr", "--arch", "resnet18", "--batch-size", "64", "--epochs", "10", "--with", "knn"),
    *("--memory", "4GB", "--run-id", "checked"),
    *(word for key, value in SETTINGS.items() for word in ("--set", f"{key}={value}")),
)
STOPPED_AT = 3
"""Steps after which the run is interrupted, as by Ctrl-C."""
SECONDS = 30.0
"""That one of the two processes may take."""


def checks(bench: Bench) -> Iterator[Check]:
    """One run."""
    yield attempt(PART, NAME, partial(stopped_and_resumed, bench))


def stopped_and_resumed(bench: Bench, sslbench: Sequence[str] = SSLBENCH) -> Check:
    """Passes where the record says what was asked for, and nothing printed a traceback."""
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        device = () if bench.device.type == "cuda" else ("--set", f"machine.device={bench.device}")
        stop_after = folder / "results" / "runs" / "checked" / "metrics.jsonl"
        _do([*sslbench, *RUN, *device], folder, 130, stop_after)
        _do([*sslbench, "run", "--resume", "checked"], folder, 0)
        record = json.loads(stop_after.with_name("record.json").read_text())
    wrong = "; ".join(differences(record, device_name(bench.device)))
    training = record["training"]
    words = f"{training['steps']} steps in {training['seconds']:.1f} s, {training['peak_memory_mb']:,.0f} MiB"
    return Check(PART, NAME, not wrong, wrong or words, figures={"peak_mib": training["peak_memory_mb"]})


def differences(record: dict[str, Any], device: str) -> Iterator[str]:
    """What the record says of the run and should not."""
    training = record["training"]
    expected = {
        "status": ("finished", record["status"]),
        "device": (device, record["machine"]["device"]),
        "times resumed": (1, training["resumed"]),
        "MB of memory": (CAP / 2**20, training["memory"]["memory_mb"]),
        "micro-batches": ([MICRO_BATCH], [one["images"] for one in training["micro_batches"]]),
    }
    for what, (asked, found) in expected.items():
        if asked != found:
            yield f"{what}: {found}, not {asked}"
    if training["peak_memory_mb"] > CAP / 2**20:
        yield f"{training['peak_memory_mb']:,.0f} MB were used"


def _do(command: list[str], folder: Path, expected: int, stop_after: Path | None = None) -> None:
    """Run it, interrupted once `stop_after` has lines; raises `UserError` with its last line for another status."""
    with (folder / "output").open("w+") as output:
        process = subprocess.Popen(command, cwd=folder, stdout=output, stderr=subprocess.STDOUT)
        late = time.monotonic() + SECONDS
        while stop_after is not None and process.poll() is None and time.monotonic() < late:
            if stop_after.exists() and len(stop_after.read_bytes().splitlines()) >= STOPPED_AT:
                process.send_signal(signal.SIGINT)
                break
            time.sleep(0.02)
        try:
            status = process.wait(max(0.0, late - time.monotonic()))
        except subprocess.TimeoutExpired:
            process.kill()
            process.wait()
            raise UserError(f"not done after {SECONDS:.0f} s: {' '.join(command[3:])}") from None
        output.seek(0)
        said = output.read()
    if "Traceback" in said or status != expected:
        last = (said.strip().splitlines() or ["nothing was printed"])[-1]
        raise UserError(f"ended with {status}, not {expected}: {last}")
