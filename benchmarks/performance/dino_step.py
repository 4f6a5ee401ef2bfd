"""DINO training steps per second: ours in fp32 and bf16 autocast, and lightly's building blocks doing the same step.

    python -m benchmarks.performance.dino_step --batch-size 8 --steps 6

The step: deit_s16, 2 x 224 px + 8 x 96 px views of random numbers, head to K = 65536, drop path 0.1 on the student,
cross-entropy, backward, gradients clipped per tensor, AdamW, teacher and center moved. lightly's is its own
benchmarks/imagenet/vitb16/dino.py without Lightning and the online classifier.

Each contestant has a process of its own: ours allocates memory as `sslbench run` does, lightly's as a script of its
users does. One warm-up each, then they take turns step by step, so that what else the machine does falls on all alike;
each turn's rates are compared, and medians over turns are printed. bf16 is left out on a CPU that would only emulate
it, unless `--bf16` asks for it. The share of the peak is the step's floating-point operations (matrix products,
convolutions and attention, as torch counts them, each with its own) over what the largest of four products of
2048 x 2048 matrices reached in the same turn.

On a machine that others use too, `--threads 1 --cpu-time` compares CPU seconds instead of the clock's.
"""

from __future__ import annotations

import argparse
import json
import os
import statistics
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from benchmarks.performance.contestants import Entry, by_turns, contestants
from benchmarks.performance.ratios import Goal, Ratio, faster, share
from ssl_bench.evaluation.speed import Stopwatch, Timing
from ssl_bench.runs.precision import cpu_has_bf16

CROPS_PX = (224,) * 2 + (96,) * 8
OUT_DIM = 65536
GEMM_SIDE = 2048
GEMM_FLOPS = 2 * GEMM_SIDE**3


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--batch-size", type=int, default=8, help="images per step (default 8)")
    parser.add_argument("--steps", type=int, default=6, help="measured steps of each contestant (default 6)")
    parser.add_argument("--threads", type=int, default=None, help="torch threads (default: torch's)")
    parser.add_argument("--cpu-time", action="store_true", help="count CPU seconds of all threads, not the clock's")
    parser.add_argument("--bf16", action="store_true", help="bf16 although this CPU only emulates it: minutes a step")
    parser.add_argument("--json", action="store_true", help="print one JSON object instead of the table")
    arguments = parser.parse_args()
    if arguments.threads:
        torch.set_num_threads(arguments.threads)
    measured = measure(arguments.batch_size, arguments.steps, bf16=arguments.bf16 or cpu_has_bf16())
    result = summary(measured, cpu_time=arguments.cpu_time)
    print(json.dumps(result, indent=1) if arguments.json else table(result))


@dataclass(frozen=True)
class Turn:
    """One step of every contestant, and the peaks after them."""

    steps: dict[str, Timing]
    peaks: dict[torch.dtype, Timing]
    """The fastest of four matrix products."""


@dataclass(frozen=True)
class Measured:
    """All turns."""

    batch_size: int
    turns: tuple[Turn, ...]
    flops: dict[str, int]
    """Of a step of each contestant."""


LIGHTLY, FP32, BF16 = "lightly fp32", "ours fp32", "ours bf16"
DTYPES = {LIGHTLY: torch.float32, FP32: torch.float32, BF16: torch.bfloat16}


def noise(batch_size: int) -> tuple[Tensor, ...]:
    """Views of random numbers."""
    return tuple(torch.randn(batch_size, 3, px, px) for px in CROPS_PX)


def ours(batch_size: int, dtype: torch.dtype) -> Callable[[], None]:
    """`our_step` of noise."""
    return our_step(noise(batch_size), dtype)


def lightlys(batch_size: int) -> Callable[[], None]:
    """`lightly_step` of noise."""
    return lightly_step(noise(batch_size))


def measure(batch_size: int, steps: int, *, bf16: bool = True) -> Measured:
    """Run the turns."""
    entries = {LIGHTLY: Entry(lightlys, (batch_size,), ours=False)}
    for name in (FP32, BF16) if bf16 else (FP32,):
        entries[name] = Entry(ours, (batch_size, DTYPES[name]), ours=True)
    peaks = list[dict[torch.dtype, Timing]]()
    with contestants(entries, torch.get_num_threads()) as ready:
        timings = by_turns(
            ready, steps, after=lambda: peaks.append({dtype: gemm(dtype) for dtype in {DTYPES[name] for name in ready}})
        )
        flops = {name: one.flops for name, one in ready.items()}
    turns = tuple(Turn(one, around) for one, around in zip(timings, peaks, strict=True))
    return Measured(batch_size, turns, flops)


def ratios(*, quick: bool = False) -> list[Ratio]:
    """fp32, and bf16 where this CPU has instructions for it; and the share of the peak of matrix products."""
    bf16 = cpu_has_bf16()
    measured = measure(1 if quick else 8, 1 if quick else 5, bf16=bf16)
    found, threads = [], torch.get_num_threads()
    for name, goal, peak_goal in [(FP32, 1.25, 0.85), (BF16, 2.2, 0.75)][: 2 if bf16 else 1]:
        pairs = [(turn.steps[name], turn.steps[LIGHTLY]) for turn in measured.turns]
        words = f"DINO step, deit_s16, 2 x 224 + 8 x 96 px, batch {measured.batch_size}, {name.removeprefix('ours ')}"
        found.append(faster(words, "lightly's blocks in fp32", pairs, threads, Goal(at_least=goal)))
        rates = [
            (measured.flops[name] / turn.steps[name].wall / 1e9, GEMM_FLOPS / turn.peaks[DTYPES[name]].wall / 1e9)
            for turn in measured.turns
        ]
        busy = found[-1].cpu_share
        peak = Goal(at_least=peak_goal)
        found.append(share(words, "the peak of matrix products", rates, "GFLOP/s", peak, cpu_share=busy))
    return found


def summary(measured: Measured, *, cpu_time: bool) -> dict[str, Any]:
    """Rates and ratios of each contestant, by the clock or by CPU seconds of all threads."""

    def seconds(timing: Timing) -> float:
        return timing.cpu if cpu_time else timing.wall

    rows = {}
    for name, flops in measured.flops.items():
        own = [seconds(turn.steps[name]) for turn in measured.turns]
        against = [seconds(turn.steps[LIGHTLY]) / one for turn, one in zip(measured.turns, own, strict=True)]
        peaks = [GEMM_FLOPS / seconds(turn.peaks[DTYPES[name]]) for turn in measured.turns]
        rows[name] = {
            "images_per_second": measured.batch_size / statistics.median(own),
            "seconds_per_step": own,
            "ratio_to_lightly_fp32": statistics.median(against),
            "ratio_range": [min(against), max(against)],
            "gigaflop_per_step": flops / 1e9,
            "share_of_gemm_peak": statistics.median(flops / one / peak for one, peak in zip(own, peaks, strict=True)),
        }
    found = {dtype for turn in measured.turns for dtype in turn.peaks}
    return {
        "batch_size": measured.batch_size,
        "n": len(measured.turns),
        "threads": torch.get_num_threads(),
        "clock": "CPU" if cpu_time else "wall",
        "load_before": os.getloadavg()[0],
        "torch": torch.__version__,
        "gemm_gigaflops": {
            str(dtype): statistics.median(GEMM_FLOPS / seconds(turn.peaks[dtype]) for turn in measured.turns) / 1e9
            for dtype in sorted(found, key=str)
        },
        "contestants": rows,
    }


def our_step(views: tuple[Tensor, ...], dtype: torch.dtype) -> Callable[[], None]:
    """One optimizer step of the plugin through its contract, as the training loop calls it."""
    from ssl_bench.blocks.optimizers import OptimizerSettings, build_optimizer, set_schedule
    from ssl_bench.method import Batch, Progress
    from ssl_bench_plugins.backbones.deit import DeitS16
    from ssl_bench_plugins.methods.dino import DINO, DINOSettings

    def make_backbone(*, drop_path: float = 0.0) -> DeitS16:
        return DeitS16(DeitS16.Config(), image_px=CROPS_PX[0], drop_path=drop_path)

    device = views[0].device
    method = DINO(DINOSettings(out_dim=OUT_DIM, freeze_last_layer_epochs=0), make_backbone).to(device)
    settings = OptimizerSettings()
    optimizer = build_optimizer(settings, method.parameter_groups())
    batch = Batch(views, torch.arange(len(views[0]), device=device))
    progress = Progress(step=5000, total_steps=10_000, epoch=50, total_epochs=100)

    def step() -> None:
        set_schedule(optimizer, settings, progress, len(views[0]))
        with torch.autocast(device.type, dtype, enabled=dtype != torch.float32):
            out = method.step(batch, progress)
        optimizer.zero_grad()
        out.loss.backward()
        method.before_optimizer(progress)
        optimizer.step()
        method.update(out.carry, progress)
        out.loss.item()

    return step


def lightly_step(views: tuple[Tensor, ...], dtype: torch.dtype = torch.float32) -> Callable[[], None]:
    """The same step from lightly's parts, the whole forward pass under autocast as in its own script."""
    from lightly.loss import DINOLoss
    from lightly.models.modules import DINOProjectionHead, MaskedVisionTransformerTIMM
    from lightly.models.utils import get_weight_decay_parameters, update_momentum
    from timm.models.vision_transformer import vit_small_patch16_224

    def vit(**more: float) -> MaskedVisionTransformerTIMM:
        return MaskedVisionTransformerTIMM(vit=vit_small_patch16_224(dynamic_img_size=True, num_classes=0, **more))

    teacher, student = vit(), vit(drop_path_rate=0.1)
    teacher_head, student_head = (DINOProjectionHead(input_dim=384, output_dim=OUT_DIM) for _ in range(2))
    update_momentum(student, teacher, m=0.0)
    update_momentum(student_head, teacher_head, m=0.0)
    for module in (teacher, teacher_head):
        module.requires_grad_(False)
    for module in (teacher, student, teacher_head, student_head):
        module.to(views[0].device)
    criterion = DINOLoss(output_dim=OUT_DIM).to(views[0].device)
    decayed, undecayed = get_weight_decay_parameters([student, student_head])
    optimizer = torch.optim.AdamW(
        [{"params": decayed, "weight_decay": 0.2}, {"params": undecayed, "weight_decay": 0.0}], lr=1e-5
    )

    def step() -> None:
        update_momentum(student, teacher, m=0.998)
        update_momentum(student_head, teacher_head, m=0.998)
        global_views, local_views = torch.cat(views[:2]), torch.cat(views[2:])
        with torch.autocast(views[0].device.type, dtype, enabled=dtype != torch.float32):
            with torch.no_grad():
                targets = teacher_head(teacher(global_views).flatten(start_dim=1))
            outputs = [student_head(student(size).flatten(start_dim=1)) for size in (global_views, local_views)]
            loss = criterion(
                teacher_out=targets.chunk(2), student_out=torch.cat(outputs).chunk(len(views)), teacher_temp=0.04
            )
        optimizer.zero_grad()
        loss.backward()
        for parameter in (*decayed, *undecayed):
            if parameter.grad is not None:
                torch.nn.utils.clip_grad_norm_(parameter, 3.0)
        optimizer.step()
        loss.item()

    return step


def gemm(dtype: torch.dtype) -> Timing:
    """The fastest of four square matrix products of `GEMM_FLOPS` each."""
    left, right = torch.randn(2, GEMM_SIDE, GEMM_SIDE, dtype=dtype)
    timings = []
    for _ in range(4):
        with Stopwatch(torch.device("cpu")) as watch:
            left @ right
        timings.append(watch.timing)
    return min(timings, key=lambda timing: timing.wall)


def table(result: dict[str, Any]) -> str:
    """The result as Markdown."""
    peaks = ", ".join(f"{name.removeprefix('torch.')} {rate:.0f}" for name, rate in result["gemm_gigaflops"].items())
    lines = [
        f"DINO deit_s16, 2 x 224 + 8 x 96 px, K = {OUT_DIM}, batch {result['batch_size']}, n = {result['n']} turns, "
        f"{result['threads']} threads, {result['clock']} seconds, torch {result['torch']}; "
        f"matrix products (GFLOP/s): {peaks}",
        "",
        "| contestant | images/s | of lightly fp32 (range) | GFLOP a step | of the GEMM peak |",
        "|---|---|---|---|---|",
    ]
    for name, row in result["contestants"].items():
        low, high = row["ratio_range"]
        lines.append(
            f"| {name} | {row['images_per_second']:.2f} | {row['ratio_to_lightly_fp32']:.2f} ({low:.2f} to {high:.2f}) "
            f"| {row['gigaflop_per_step']:.0f} | {row['share_of_gemm_peak']:.0%} |"
        )
    return "\n".join(lines)


if __name__ == "__main__":
    main()
