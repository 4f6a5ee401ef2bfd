"""Predicted against measured memory of a training step on a CPU, for methods x backbones x settings.

    python -m benchmarks.performance.memory [--methods dino,simclr] [--arch deit_s16,resnet50] [--batch 8] [--write]

Measured is what the resident set of a process grows by (VmHWM of /proc, so Linux only) during one training step on
images of zeros, beyond what it held before, weights included: the step is done on a copy of the method. Every row has
a process of its own that returns freed memory at once (MALLOC_MMAP_THRESHOLD_), so that the figure is of tensors and
not of the C library's habits. A trial of two images before the measurement loads kernels and starts threads. Beside
it stands what `LiveMemory` counts during that same step: where the two agree, the count misses no memory, and where the
prediction agrees with the count, tensors without numbers take what real ones do.
`--write` also writes the table to results/planning/.
"""

from __future__ import annotations

import argparse
import json
import os
import shlex
import subprocess
import sys
import time
import traceback
from dataclasses import dataclass
from pathlib import Path
from statistics import median

from benchmarks.performance.ratios import Goal, Ratio, share

SETTINGS = {
    "whole batch": {},
    "checkpointing": {"machine.activation_checkpointing": True},
    "micro-batches of 2": {"machine.micro_batch": 2},
}
MB = 2**20
QUIET_ALLOCATOR = {"MALLOC_MMAP_THRESHOLD_": "65536", "MALLOC_TRIM_THRESHOLD_": "65536"}
WRITTEN = Path(__file__).parents[2] / "results" / "planning" / "step_memory.md"


@dataclass(frozen=True)
class Row:
    """Bytes of one step."""

    predicted: int
    counted: int
    """By `LiveMemory` during the real step."""
    grown: int
    """Of the resident set."""
    seconds: float
    """CPU time of the prediction."""

    @property
    def ratio(self) -> float:
        return self.predicted / self.grown


def resident(field: str) -> int:
    lines = Path("/proc/self/status").read_text().splitlines()
    return next(int(line.split()[1]) * 1024 for line in lines if line.startswith(field + ":"))


def one(values: dict[str, object], method_name: str, arch: str) -> Row:
    """The prediction, then the step itself."""
    import torch

    from ssl_bench.blocks.optimizers import OptimizerSettings
    from ssl_bench.planning.stand_in import open_stand_in
    from ssl_bench.planning.step_memory import HowToStep, measure_step, predict_step, view_shapes
    from ssl_bench.recipes.request import Request
    from ssl_bench.recipes.resolve import resolve
    from ssl_bench.runs.building import build_method

    resolved = resolve(Request(method=method_name, arch=arch, values=values), open_stand_in)
    method, optimizer = build_method(resolved), OptimizerSettings(**resolved.recipe.optimizer)
    batch, image_px = resolved.recipe.training.batch_size, resolved.dataset.image_px
    views = view_shapes(method, method.make_views(resolved.method_config), batch, image_px)
    how = HowToStep(micro_batch=resolved.machine.micro_batch)
    begun = time.process_time()
    predicted = predict_step(method, optimizer, views, how)
    seconds = time.process_time() - begun
    measure_step(method, optimizer, [(torch.Size((2, *shape[1:])), dtype) for shape, dtype in views])  # loads kernels
    before = resident("VmRSS")
    Path("/proc/self/clear_refs").write_text("5")  # the high-water mark begins anew
    counted = measure_step(method, optimizer, views, how)
    return Row(predicted.peak, counted.peak, resident("VmHWM") - before, seconds)


def in_child(values: dict[str, object], method: str, arch: str) -> Row:
    """`one` in a forked process: torch is imported once for all rows."""
    reader, writer = os.pipe()
    child = os.fork()
    if child == 0:
        status = 1
        try:
            os.write(writer, json.dumps(vars(one(values, method, arch))).encode())
            status = 0
        except Exception:
            traceback.print_exc()
        finally:
            os._exit(status)
    os.close(writer)
    with os.fdopen(reader, "rb") as answers:
        answer = answers.read()
    os.waitpid(child, 0)
    if not answer:
        raise SystemExit(f"{method} on {arch} failed")
    return Row(**json.loads(answer))


def ratios(*, quick: bool = False) -> list[Ratio]:
    """Predicted against resident memory over methods and networks, in a process with the quiet allocator."""
    code = f"from benchmarks.performance.memory import print_rows; print_rows(quick={quick})"
    done = subprocess.run(
        [sys.executable, "-c", code], cwd=Path(__file__).parents[2], env=os.environ | QUIET_ALLOCATOR,
        stdout=subprocess.PIPE, text=True, check=True,
    )  # fmt: skip
    sizes = [(row["predicted"] / MB, row["grown"] / MB) for row in json.loads(done.stdout.splitlines()[-1])]
    name = "memory of a training step, five methods on deit_s16 and resnet50"
    found = share(name, "the resident set's growth", sizes, "MiB", Goal())
    worst = max(sizes, key=lambda pair: abs(pair[0] / pair[1] - 1))
    return [found, share("the same, where the prediction is worst", found.against, [worst], "MiB", Goal(0.9, 1.1))]


def print_rows(*, quick: bool) -> None:
    """One JSON list of rows, printed last."""
    import timm  # noqa: F401  (imported here, once for all children)
    import torch

    torch.set_num_threads(1)
    values: dict[str, object] = {"training.batch_size": 2 if quick else 8, "data.image_px": 32 if quick else 96}
    methods = ("simclr",) if quick else ("dino", "byol", "mocov2", "swav", "simclr")
    archs = ("deit_s16",) if quick else ("deit_s16", "resnet50")
    print(json.dumps([vars(in_child(dict(values), method, arch)) for arch in archs for method in methods]))


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--methods", default="dino,byol,mocov2,swav,simclr")
    parser.add_argument("--arch", default="deit_s16,resnet50,timm:convnext_atto")
    parser.add_argument("--batch", type=int, default=8)
    parser.add_argument("--image-px", type=int, default=96)
    parser.add_argument("--write", action="store_true", help=f"also write {WRITTEN.parent.name}/{WRITTEN.name}")
    arguments = parser.parse_args()
    if not QUIET_ALLOCATOR.items() <= os.environ.items():  # read when a process starts
        words = [sys.executable, "-m", "benchmarks.performance.memory", *sys.argv[1:]]
        os.execve(sys.executable, words, os.environ | QUIET_ALLOCATOR)
    import timm  # noqa: F401  (imported here, once for all children)
    import torch

    torch.set_num_threads(1)
    lines = [
        "| method | network | setting | predicted MB | counted MB | resident MB | predicted / resident | CPU s |",
        "|---|---|---|--:|--:|--:|--:|--:|",
    ]
    print("\n".join(lines))
    rows = []
    for arch in arguments.arch.split(","):
        for method in arguments.methods.split(","):
            for name, setting in SETTINGS.items():
                given = {"training.batch_size": arguments.batch, "data.image_px": arguments.image_px, **setting}
                row = in_child(given, method, arch)
                rows.append(row)
                sizes = " | ".join(f"{size / MB:,.0f}" for size in (row.predicted, row.counted, row.grown))
                lines.append(f"| {method} | {arch} | {name} | {sizes} | {row.ratio:.3f} | {row.seconds:.1f} |")
                print(lines[-1], flush=True)
    ratios, seconds = [row.ratio for row in rows], [row.seconds for row in rows]
    summary = (
        f"predicted / resident: median {median(ratios):.3f}, {min(ratios):.3f} to {max(ratios):.3f}, n {len(rows)}; a "
        f"prediction takes {median(seconds):.1f} s of CPU time on one thread, at most {max(seconds):.1f}"
    )
    print(summary)
    if arguments.write:
        typed = shlex.join(["python", "-m", "benchmarks.performance.memory", *sys.argv[1:]])
        about = (
            f"Written by `{typed}` (images of {arguments.image_px} px, batch {arguments.batch}, torch "
            f"{torch.__version__} on a CPU). Predicted: tensors without numbers. Counted: live storages of the real "
            "step. Resident: growth of the process's resident set during that step."
        )
        WRITTEN.parent.mkdir(parents=True, exist_ok=True)
        text = "\n\n".join(["# Predicted and measured memory of a training step", about, "\n".join(lines), summary])
        WRITTEN.write_text(text + "\n")


if __name__ == "__main__":
    main()
