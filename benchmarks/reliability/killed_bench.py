"""Kill `sslbench bench` at random moments and call it again: no finished run may be lost, and none repeated.

    python benchmarks/reliability/killed_bench.py [--kills 20] [--seed 0] [--signal KILL|TERM|INT] [--jobs 1]

The study has runs of seconds on a few images of `shapes`, about as many as kills. The first call is killed as its first
record appears. Of the later ones every second is killed after a random time of at most 1.2 times that, the others after
a random time from the moment on at which a run goes on, at most as long as two runs take; the last call is not killed.
Between two calls the records are compared byte for byte and by the time they were written, and no worker may be left.
Prints one line per call; exit status 1 when something was lost, repeated or left behind.
"""

from __future__ import annotations

import argparse
import json
import math
import os
import random
import signal
import subprocess
import sys
import tempfile
import time
from pathlib import Path

from ssl_bench.runs.folder import in_use

TABLE = """
id = "killed"
title = "Runs that are killed"
row = [{ id = "method", from = "method" }]
column = [{ id = "knn", title = "k-NN", unit = "%", from = "measurement:knn.primary:trained" }]

[runs.size.laptop]
data = "shapes"
seeds = SEEDS
preset = "small-data"
with = ["knn"]
arch.deit_ti16.set = { "backbone.depth" = 1, "backbone.dim" = 32, "backbone.heads" = 2 }
[runs.size.laptop.set]
"data.train_images" = 256
"data.test_images" = 128
"training.epochs" = 8
"training.batch_size" = 32
"training.precision" = "fp32"
"evaluators.knn.neighbors" = [1]
"evaluators.knn.reported" = 1

[[runs.variant]]
name = "simclr"
method = "simclr"
arch = "deit_ti16"
[[runs.variant]]
name = "byol"
method = "byol"
arch = "deit_ti16"
[[runs.variant]]
name = "mocov2"
method = "mocov2"
arch = "deit_ti16"
"""
METHODS = 3
SAVED_WITHIN_SECONDS = 60


def records(results: Path) -> dict[str, tuple[int, bytes]]:
    """Run -> when its record was written, and its bytes."""
    return {
        path.parent.name: (path.stat().st_mtime_ns, path.read_bytes()) for path in results.glob("runs/*/record.json")
    }


def left_behind(results: Path) -> list[str]:
    """Runs that a process still holds although `bench` is gone, after the time it takes to save."""
    end = time.monotonic() + SAVED_WITHIN_SECONDS
    while held := [folder.name for folder in results.glob("runs/*") if in_use(folder)]:
        if time.monotonic() > end:
            return held
        time.sleep(0.2)
    return []


def wait_for_a_record(results: Path) -> tuple[float, float]:
    """Seconds until the first run has ended, and those that it took."""
    begun = time.monotonic()
    working = wait_for_a_run(results)
    while not records(results):
        time.sleep(0.05)
    return time.monotonic() - begun, time.monotonic() - begun - working


def wait_for_a_run(results: Path) -> float:
    """Seconds until a run goes on."""
    begun = time.monotonic()
    while not any(in_use(folder) for folder in results.glob("runs/*")):
        time.sleep(0.05)
    return time.monotonic() - begun


def start(folder: Path, jobs: int) -> subprocess.Popen[bytes]:
    words = ["bench", "killed.toml", "--jobs", str(jobs)]
    log = (folder / "out.log").open("ab")
    command = [sys.executable, "-m", "ssl_bench.cli.main", *words]
    return subprocess.Popen(command, cwd=folder, stdout=log, stderr=log, start_new_session=True)


def main() -> int:
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("--kills", type=int, default=20)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--signal", default="KILL", choices=["KILL", "TERM", "INT", "HUP"])
    parser.add_argument("--jobs", type=int, default=1)
    asked = parser.parse_args()
    draw = random.Random(asked.seed)
    faults = 0
    seeds = max(2, math.ceil(asked.kills / METHODS))
    runs = METHODS * seeds
    with tempfile.TemporaryDirectory() as temporary:
        folder = Path(temporary)
        results = folder / "results"
        (folder / "killed.toml").write_text(TABLE.replace("SEEDS", str(seeds)))
        done: dict[str, tuple[int, bytes]] = {}
        first_record = of_a_run = 0.0
        for number in range(1, asked.kills + 2):
            process = start(folder, asked.jobs)
            seconds: float | None = None
            if number == 1:
                first_record, of_a_run = wait_for_a_record(results)
                print(f"the first run is recorded after {first_record:.1f} s, of which it took {of_a_run:.1f} s")
                seconds = 0.0
            elif number <= asked.kills and number % 2:
                seconds = draw.uniform(0, 1.2 * first_record)
            elif number <= asked.kills:
                wait_for_a_run(results)
                seconds = draw.uniform(0, 2 * of_a_run)
            try:
                status = process.wait(seconds)
                how = f"ended by itself with {status}"
            except subprocess.TimeoutExpired:
                os.kill(process.pid, getattr(signal, f"SIG{asked.signal}"))
                how = f"SIG{asked.signal} after {seconds:.1f} s, exit status {process.wait(SAVED_WITHIN_SECONDS)}"
            held = left_behind(results)
            now = records(results)
            lost = [name for name, record in done.items() if now.get(name) != record]
            faults += len(held) + len(lost)
            trouble = f"  LEFT BEHIND {held}" * bool(held) + f"  LOST OR REPEATED {lost}" * bool(lost)
            faults += number > asked.kills and process.returncode != 0
            print(f"call {number:2}: {how}; {len(now)} of {runs} runs recorded{trouble}", flush=True)
            done = now
        resumed = [json.loads(content)["training"]["resumed"] for _, content in done.values()]
        folders = len(list(results.glob("runs/[!.]*")))
        faults += (len(done) != runs) + (folders != runs)
        print(f"{len(done)} runs in {folders} folders, resumed {sum(resumed)} times in all; {faults} faults")
        if faults:
            print((folder / "out.log").read_text(errors="replace")[-4000:])
    return int(faults > 0)


if __name__ == "__main__":
    sys.exit(main())
