"""Predicted against measured memory of a training step on a CPU, for methods x backbones x settings.

    python benchmarks/performance/memory.py [--methods dino,simclr] [--arch deit_s16,resnet50] [--batch 8]

Measured is what the resident set of a fresh process grows by (VmHWM of /proc, so Linux only) during one training step,
beyond the weights that it held before, plus these weights; the process returns freed memory at once
(MALLOC_MMAP_THRESHOLD_), so that the figure is of tensors and not of the C library's habits. Kernels and thread pools
that the first operation loads come with it: a trial of one image before the measurement takes them out. The printed
figure is predicted / measured.
"""

from __future__ import annotations

import argparse
import json
import os
import subprocess
import sys
import time
from pathlib import Path
from statistics import median

SETTINGS = {
    "fp32": (),
    "checkpointing": ("machine.activation_checkpointing=true",),
    "half the batch": ("half",),
}
MB = 2**20


def resident(field: str) -> int:
    lines = Path("/proc/self/status").read_text().splitlines()
    return next(int(line.split()[1]) * 1024 for line in lines if line.startswith(field + ":"))


def one(method_name: str, arch: str, batch: int, assignments: list[str], image_px: int) -> dict[str, float]:
    """In a fresh process: the prediction, then the step itself."""
    import torch

    from ssl_bench.blocks.optimizers import OptimizerSettings
    from ssl_bench.planning.stand_in import open_stand_in
    from ssl_bench.planning.step_memory import measure_step, predict_step, view_shapes
    from ssl_bench.recipes.resolve import Request, resolve
    from ssl_bench.runs.building import build_method
    from ssl_bench.settings import parse_assignments

    values = {"training.batch_size": batch, "data.image_px": image_px} | parse_assignments(assignments)
    resolved = resolve(Request(method=method_name, arch=arch, values=values), open_stand_in)
    method, optimizer = build_method(resolved), OptimizerSettings(**resolved.recipe.optimizer)
    views = view_shapes(method, method.make_views(resolved.method_config), batch, image_px)
    begun = time.process_time()
    predicted = predict_step(method, optimizer, views)
    seconds = time.process_time() - begun
    measure_step(method, optimizer, [(torch.Size((2, *shape[1:])), dtype) for shape, dtype in views])  # loads kernels
    weights = sum(tensor.untyped_storage().nbytes() for tensor in [*method.parameters(), *method.buffers()])
    before = resident("VmRSS")
    Path("/proc/self/clear_refs").write_text("5")  # the high-water mark begins anew
    measure_step(method, optimizer, views)  # on a copy, so that the weights come again
    grown = resident("VmHWM") - before
    return {
        "predicted": predicted.peak,
        "measured": grown,
        "ratio": predicted.peak / grown,
        "seconds": seconds,
        "weights": weights,
    }


def in_fresh_process(words: list[str]) -> dict[str, float]:
    environment = os.environ | {"MALLOC_MMAP_THRESHOLD_": "65536", "MALLOC_TRIM_THRESHOLD_": "65536"}
    done = subprocess.run(
        [sys.executable, __file__, "--one", *words], capture_output=True, text=True, env=environment, check=False
    )
    if done.returncode:
        raise SystemExit(done.stderr)
    result: dict[str, float] = json.loads(done.stdout.splitlines()[-1])
    return result


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--methods", default="dino,byol,mocov2,swav,simclr")
    parser.add_argument("--arch", default="deit_ti16,deit_s16,resnet50")
    parser.add_argument("--batch", type=int, default=8)
    parser.add_argument("--image-px", type=int, default=128)
    parser.add_argument("--one", nargs=argparse.REMAINDER, help=argparse.SUPPRESS)
    arguments = parser.parse_args()
    if arguments.one:
        method, arch, batch, image_px, *assignments = arguments.one
        print(json.dumps(one(method, arch, int(batch), assignments, int(image_px))))
        return
    ratios, seconds = [], []
    print(f"{'method':<10}{'network':<12}{'setting':<16}{'predicted':>12}{'measured':>12}{'ratio':>8}{'CPU s':>8}")
    for method in arguments.methods.split(","):
        for arch in arguments.arch.split(","):
            for name, assignments in SETTINGS.items():
                batch = arguments.batch // 2 if name == "half the batch" else arguments.batch
                given = [word for word in assignments if word != "half"]
                result = in_fresh_process([method, arch, str(batch), str(arguments.image_px), *given])
                ratios.append(result["ratio"])
                seconds.append(result["seconds"])
                print(
                    f"{method:<10}{arch:<12}{name:<16}{result['predicted'] / MB:>9,.0f} MB"
                    f"{result['measured'] / MB:>9,.0f} MB{result['ratio']:>8.2f}{result['seconds']:>8.1f}",
                    flush=True,
                )
    print(
        f"predicted / measured: median {median(ratios):.2f}, {min(ratios):.2f} to {max(ratios):.2f}, n {len(ratios)}; "
        f"a prediction takes {median(seconds):.1f} s of CPU time, at most {max(seconds):.1f}"
    )


if __name__ == "__main__":
    main()
