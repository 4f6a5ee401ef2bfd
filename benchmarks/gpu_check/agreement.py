"""The device computes what the CPU computes: features, loss and gradients of one step, from the same weights.

Both in fp32 with TF32 off, dropout and stochastic depth off. The tolerances are relative: of the largest feature, of
the loss (of 1 where it is smaller), and of the gradient's norm. They allow for the order of float32 sums, which differs
from device to device, and are far below what a wrong kernel or a forgotten tensor gives.
"""

from __future__ import annotations

import time
from collections.abc import Iterator
from contextlib import contextmanager
from functools import partial
from random import Random

import torch
from torch import Tensor
from torch.utils.data import default_collate

from benchmarks.gpu_check.checks import Architecture, Bench, Check, attempt
from benchmarks.gpu_check.noise import built, low_precisions, methods, missing, noise_batch, resolved, without_dropout
from ssl_bench.backbone import eval_mode
from ssl_bench.blocks.device_views import DeviceViews
from ssl_bench.method import Batch, Method, Progress, evaluated_network

PART = "agreement"
VIEWS_CHECK = "views of dino finished there"
FEATURES, LOSS, GRADIENTS = 1e-3, 1e-4, 1e-2
VIEWS, FAR_PIXELS = 1e-3, 1e-3
"""In standard deviations: 0.06 gray levels; solarization jumps where rounding moves a level across its threshold."""
LOWER_PRECISION_LOSS = 0.05
"""Of a loss under autocast: bfloat16 has 8 bits."""


def checks(bench: Bench) -> Iterator[Check]:
    """Views finished on the device; each method on each architecture, at the precisions that autocast offers."""
    yield attempt(PART, VIEWS_CHECK, partial(compare_views, bench))
    for architecture in bench.sizes.architectures:
        for name in methods(bench):
            label = f"{name} on {architecture.name}"
            if not missing(name):
                with without_tf32():
                    yield attempt(PART, label, partial(compare, name, architecture, bench, label))
                bench.clear()


def compare(name: str, architecture: Architecture, bench: Bench, label: str) -> Check:
    """One step on both sides."""
    request = resolved(name, architecture, bench)
    if not request.recipe.training.epochs:
        return Check(PART, label, None, "trains nothing")
    on_cpu = without_dropout(built(request))
    on_device = without_dropout(built(request)).to(bench.device)
    on_device.load_state_dict(on_cpu.state_dict())
    count = min(4, bench.sizes.batch)
    batch = noise_batch(request, on_cpu, count, torch.device("cpu"))
    moved = noise_batch(request, on_cpu, count, bench.device)
    differences = {"features": _features(on_cpu, batch, on_device, moved)}
    loss, loss_there = _loss(on_cpu, batch), _loss(on_device, moved)
    differences["loss"] = abs(loss_there - loss) / max(1.0, abs(loss))
    differences["gradients"] = _relative(_gradients(on_cpu), _gradients(on_device))
    lower = {}
    for precision, dtype in low_precisions(bench.device).items():
        with torch.autocast(bench.device.type, dtype=dtype), torch.no_grad():
            lower[precision] = abs(float(on_device.step(moved, _progress()).loss) - loss) / max(1.0, abs(loss))
    limits = {"features": FEATURES, "loss": LOSS, "gradients": GRADIENTS}
    passed = all(differences[what] <= limits[what] for what in limits)
    passed = passed and all(value <= LOWER_PRECISION_LOSS for value in lower.values())
    found = differences | {f"loss in {precision}": value for precision, value in lower.items()}
    return Check(PART, label, passed, ", ".join(f"{what} {value:.0e}" for what, value in found.items()), figures=found)


def compare_views(bench: Bench) -> Check:
    """`machine.augment_on` = device against the views that workers make; how many images a second are finished."""
    request = resolved("dino", bench.sizes.architectures[0], bench)
    from_workers = request.method.make_views(request.method_config)
    on_device, split = DeviceViews(from_workers), request.training_split
    images = [split.image(index) for index in range(bench.sizes.batch)]
    expected = default_collate([from_workers(image, Random(index)) for index, image in enumerate(images)])
    on_host = default_collate([on_device(image, Random(index)) for index, image in enumerate(images)])
    views = tuple(one.pin_memory() if bench.device.type == "cuda" else one for one in on_host)
    found = [one.cpu() for one in on_device.finish(views, bench.device)]
    far = max(float((one - other).abs().gt(VIEWS).double().mean()) for one, other in zip(found, expected, strict=True))
    begun = time.perf_counter()
    for _ in range(bench.sizes.turns):
        finished = on_device.finish(views, bench.device)
    float(finished[-1].sum())  # waits for the device
    rate = bench.sizes.turns * len(images) / (time.perf_counter() - begun)
    words = f"{far:.0e} of the pixels differ by more than {VIEWS:.0e}, {rate:.0f} images/s, {len(images)} at once"
    return Check(PART, VIEWS_CHECK, far <= FAR_PIXELS, words, figures={"images_per_second": rate, "far": far})


def _features(on_cpu: Method, batch: Batch, on_device: Method, moved: Batch) -> float:
    """Largest difference of a feature, relative to the largest feature."""
    found = []
    for method, views in ((on_cpu, batch.views), (on_device, moved.views)):
        network = evaluated_network(method)
        with eval_mode(network), torch.no_grad():
            found.append(network(views[0]).double().cpu())
    return float((found[0] - found[1]).abs().max() / found[0].abs().max().clamp_min(1e-12))


def _loss(method: Method, batch: Batch) -> float:
    """Of one step in training mode; gradients stay."""
    torch.manual_seed(0)
    method.train().zero_grad(set_to_none=True)
    loss = method.step(batch, _progress()).loss
    loss.backward()  # type: ignore[no-untyped-call]
    return loss.item()


def _gradients(method: Method) -> Tensor:
    parts = [one.grad.double().cpu().flatten() for one in method.parameters() if one.grad is not None]
    return torch.cat(parts) if parts else torch.zeros(1, dtype=torch.float64)


def _relative(expected: Tensor, found: Tensor) -> float:
    return float((expected - found).norm() / expected.norm().clamp_min(1e-12))


def _progress() -> Progress:
    return Progress(500, 1000, 50, 100)


@contextmanager
def without_tf32() -> Iterator[None]:
    """Full float32 products and convolutions inside."""
    before = torch.get_float32_matmul_precision(), torch.backends.cudnn.allow_tf32
    torch.set_float32_matmul_precision("highest")
    torch.backends.cudnn.allow_tf32 = False
    try:
        yield
    finally:
        torch.set_float32_matmul_precision(before[0])
        torch.backends.cudnn.allow_tf32 = before[1]
