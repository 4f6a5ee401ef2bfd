"""DINO training steps per second: ours in fp32 and bf16 autocast, and lightly's building blocks doing the same step.

    python benchmarks/performance/dino_step.py --batch-size 8 --steps 6

The step: deit_s16, 2 x 224 px + 8 x 96 px views of random numbers, head to K = 65536, drop path 0.1 on the student,
cross-entropy, backward, gradients clipped per tensor, AdamW, teacher and center moved. lightly's is its own
benchmarks/imagenet/vitb16/dino.py without Lightning and the online classifier. One warm-up each, then the contestants
take turns step by step, so that what else the machine does falls on all alike; each turn's rates are compared, and
medians over turns are printed. The share of the peak is the step's floating-point operations (matrix products,
convolutions and attention, as torch counts them, each with its own) over what the largest of four products of
2048 x 2048 matrices reached in the same turn.

On a machine that others use too, `--threads 1 --cpu-time` compares CPU seconds instead of the clock's.
"""

from __future__ import annotations

import argparse
import json
import os
import statistics
import time
from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor
from torch.utils.flop_counter import FlopCounterMode

CROPS_PX = (224,) * 2 + (96,) * 8
OUT_DIM = 65536


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--batch-size", type=int, default=8, help="images per step (default 8)")
    parser.add_argument("--steps", type=int, default=6, help="measured steps of each contestant (default 6)")
    parser.add_argument("--threads", type=int, default=None, help="torch threads (default: torch's)")
    parser.add_argument("--cpu-time", action="store_true", help="count CPU seconds of all threads, not the clock's")
    parser.add_argument("--json", action="store_true", help="print one JSON object instead of the table")
    arguments = parser.parse_args()
    if arguments.threads:
        torch.set_num_threads(arguments.threads)
    clock = time.process_time if arguments.cpu_time else time.perf_counter
    result = measure(arguments.batch_size, arguments.steps, clock)
    print(json.dumps(result, indent=1) if arguments.json else table(result))


def measure(batch_size: int, steps: int, clock: Callable[[], float] = time.perf_counter) -> dict[str, Any]:
    """Run the turns; seconds by `clock`, rates and ratios of each contestant."""
    torch.manual_seed(0)
    views = tuple(torch.randn(batch_size, 3, px, px) for px in CROPS_PX)
    contestants = {
        "lightly fp32": (lightly_step(views), torch.float32),
        "ours fp32": (our_step(views, torch.float32), torch.float32),
        "ours bf16": (our_step(views, torch.bfloat16), torch.bfloat16),
    }
    flops = {}
    for name, (step, _) in contestants.items():
        with FlopCounterMode(display=False) as counter:
            step()
        flops[name] = counter.get_total_flops()
    seconds: dict[str, list[float]] = {name: [] for name in contestants}
    peaks: dict[torch.dtype, list[float]] = {torch.float32: [], torch.bfloat16: []}
    for _ in range(steps):
        for dtype, rates in peaks.items():
            rates.append(gemm_flops_per_second(dtype, clock))
        for name, (step, _) in contestants.items():
            start = clock()
            step()
            seconds[name].append(clock() - start)
    rows = {}
    for name, (_, dtype) in contestants.items():
        turns = list(zip(seconds[name], seconds["lightly fp32"], peaks[dtype], strict=True))
        rows[name] = {
            "images_per_second": batch_size / statistics.median(seconds[name]),
            "seconds_per_step": seconds[name],
            "ratio_to_lightly_fp32": statistics.median(lightly / own for own, lightly, _ in turns),
            "ratio_range": [min(t[1] / t[0] for t in turns), max(t[1] / t[0] for t in turns)],
            "gigaflop_per_step": flops[name] / 1e9,
            "share_of_gemm_peak": statistics.median(flops[name] / own / peak for own, _, peak in turns),
        }
    return {
        "batch_size": batch_size,
        "n": steps,
        "threads": torch.get_num_threads(),
        "clock": "CPU" if clock is time.process_time else "wall",
        "load_before": os.getloadavg()[0],
        "torch": torch.__version__,
        "gemm_gigaflops": {str(dtype): statistics.median(rates) / 1e9 for dtype, rates in peaks.items()},
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

    method = DINO(DINOSettings(out_dim=OUT_DIM, freeze_last_layer_epochs=0), make_backbone)
    settings = OptimizerSettings()
    optimizer = build_optimizer(settings, method.parameter_groups())
    batch = Batch(views, torch.arange(len(views[0])))
    progress = Progress(step=5000, total_steps=10_000, epoch=50, total_epochs=100)

    def step() -> None:
        set_schedule(optimizer, settings, progress, len(views[0]))
        with torch.autocast("cpu", torch.bfloat16, enabled=dtype == torch.bfloat16):
            out = method.step(batch, progress)
        optimizer.zero_grad()
        out.loss.backward()
        method.before_optimizer(progress)
        optimizer.step()
        method.update(out.carry, progress)
        out.loss.item()

    return step


def lightly_step(views: tuple[Tensor, ...]) -> Callable[[], None]:
    """The same step from lightly's parts, in fp32."""
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
    criterion = DINOLoss(output_dim=OUT_DIM)
    decayed, undecayed = get_weight_decay_parameters([student, student_head])
    optimizer = torch.optim.AdamW(
        [{"params": decayed, "weight_decay": 0.2}, {"params": undecayed, "weight_decay": 0.0}], lr=1e-5
    )

    def step() -> None:
        update_momentum(student, teacher, m=0.998)
        update_momentum(student_head, teacher_head, m=0.998)
        global_views, local_views = torch.cat(views[:2]), torch.cat(views[2:])
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


def gemm_flops_per_second(dtype: torch.dtype, clock: Callable[[], float], side: int = 2048) -> float:
    """The fastest of four square matrix products."""
    left, right = torch.randn(2, side, side, dtype=dtype)
    best = float("inf")
    for _ in range(4):
        start = clock()
        left @ right
        best = min(best, clock() - start)
    return 2 * side**3 / best


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
