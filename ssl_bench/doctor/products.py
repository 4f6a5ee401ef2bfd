"""Speed of matrix products in each precision, which decides what "auto" will choose."""

from __future__ import annotations

import torch

from ssl_bench.doctor.findings import Fact, Findings
from ssl_bench.doctor.rates import Rate, rate_of
from ssl_bench.evaluation.speed import Stopwatch
from ssl_bench.system import cards

PRECISIONS = {"fp32": torch.float32, "fp16": torch.float16, "bf16": torch.bfloat16}
SIDES = (8192, 4096, 2048, 1024, 512)
"""Of the square matrices: the largest whose product takes about `PASS_SECONDS` or less."""
TRIAL_SIDE = 256
PASS_SECONDS = 0.1
ROUNDS = 4


def examine_products() -> Findings:
    """Each precision on the first card that can be used, and on the CPU."""
    devices = [torch.device("cpu")]
    if cards.cuda_is_available():
        usable = [index for index in range(torch.cuda.device_count()) if not cards.why_unusable(index)]
        devices += [torch.device("cuda", index) for index in usable[:1]]
    facts: list[Fact] = []
    for device in devices:
        found = {name: product_speed(device, dtype) for name, dtype in PRECISIONS.items()}
        facts += [
            _fact(f"{device} {name}", rate, None if name == "fp32" else found["fp32"]) for name, rate in found.items()
        ]
    return Findings(tuple(facts))


def product_speed(device: torch.device, dtype: torch.dtype) -> Rate:
    """Floating-point operations per second of a square product (2 side^3 each), by the rule of all speeds here."""
    seconds = _seconds(device, dtype, TRIAL_SIDE)
    for side in SIDES:
        expected = seconds * (side / TRIAL_SIDE) ** 3
        if expected <= PASS_SECONDS:
            break
    left, right = (torch.ones(side, side, dtype=dtype, device=device) for _ in range(2))
    rounds = []
    for _ in range(ROUNDS + 1):
        with Stopwatch(device) as watch:
            torch.mm(left, right)
        rounds.append(watch.timing)
    return rate_of(rounds[1:], 2 * side**3, torch.get_num_threads(), device.type)


def _seconds(device: torch.device, dtype: torch.dtype, side: int) -> float:
    """Of the second of two products: the first one loads kernels."""
    matrix = torch.ones(side, side, dtype=dtype, device=device)
    for _ in range(2):
        with Stopwatch(device) as watch:
            torch.mm(matrix, matrix)
    return max(1e-9, watch.timing.wall)


def _fact(label: str, rate: Rate, fp32: Rate | None) -> Fact:
    value = rate.per_second
    words = f"{value / 1e12:.1f} TFLOP/s" if value >= 1e12 else f"{value / 1e9:.0f} GFLOP/s"
    if fp32 is not None:
        words += f", {value / fp32.per_second:.2g} times fp32"
    return Fact(label, words + rate.reservation, value)
