"""A training step of each method against the same step of lightly's building blocks, in fp32.

    python -m benchmarks.performance.method_step --method simclr --arch resnet50 --batch-size 4 --turns 5

The step: views of random numbers at the paper's sizes (two of 224 px; for DINO and SwAV also eight or six of 96 px),
forward, backward, the paper preset's optimizer, and what the method moves after it. The peer is our `lightly-...`
method, which is put together from lightly's heads, loss and moving average, on the network that lightly's own
benchmarks use (torchvision's resnet50; timm's ViT in MaskedVisionTransformerTIMM), with torch's AdamW or SGD or
lightly's LARS. DINO on deit_s16 has a benchmark of its own (dino_step). The two take turns step by step, each in a
process of its own: ours allocates memory as `sslbench run` does, lightly's as a script of its users does.

The share of the peak is the step's floating-point operations, as torch counts them, over what matrix products of
2048 x 2048 reached in the same turns.
"""

from __future__ import annotations

import argparse
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn

from benchmarks.performance.contestants import Entry, by_turns, contestants
from benchmarks.performance.dino_step import GEMM_FLOPS, gemm
from benchmarks.performance.ratios import Goal, Ratio, faster, share
from ssl_bench import registry
from ssl_bench.backbone import Backbone
from ssl_bench.blocks.optimizers import OptimizerSettings, build_optimizer, set_schedule
from ssl_bench.evaluation.speed import Timing, cpu_share
from ssl_bench.method import Batch, Method, Progress, Situation
from ssl_bench.settings import Settings, parse_settings

METHODS = ("simclr", "byol", "mocov2", "swav", "dino")
ARCHS = ("deit_s16", "resnet50")
IMAGE_PX = 224
LOCAL_PX = 96
AS_LIGHTLY: Mapping[str, Mapping[str, Any]] = {"mocov2": {"batch_norm_splits": 1}, "swav": {"queue_size": 0}}
"""Settings that lightly's blocks know one value of."""
PROGRESS = Progress(step=5000, total_steps=10_000, epoch=50, total_epochs=100)
OURS, LIGHTLY = "ours", "lightly"
RATE = 1e-5
"""Learning rate: small, since the images are noise."""


@dataclass(frozen=True)
class Case:
    """What is compared."""

    method: str
    arch: str
    batch_size: int

    @property
    def words(self) -> str:
        """E.g. "simclr step, resnet50, 224 px, batch 4, fp32"."""
        return f"{self.method} step, {self.arch}, 224 px, batch {self.batch_size}, fp32"


class Plain(Backbone):
    """A network as lightly's benchmarks use it."""

    Config = Settings

    def __init__(self, arch: str, drop_path: float) -> None:
        super().__init__(None, image_px=IMAGE_PX)
        self.image_px = IMAGE_PX
        if arch == "resnet50":
            from torchvision.models import resnet50

            self.network: nn.Module = resnet50()
            self.network.fc = nn.Identity()
            self.kind, self.patch_px, self.feature_dim = "convnet", None, 2048
        else:
            from lightly.models.modules import MaskedVisionTransformerTIMM
            from timm.models.vision_transformer import vit_small_patch16_224

            vit = vit_small_patch16_224(dynamic_img_size=True, num_classes=0, drop_path_rate=drop_path)
            self.network = MaskedVisionTransformerTIMM(vit=vit)
            self.kind, self.patch_px, self.feature_dim = "vit", 16, 384

    def forward(self, images: Tensor) -> Tensor:
        """(batch, 3, height, width) -> (batch, feature_dim)."""
        return self.network(images).flatten(start_dim=1)  # type: ignore[no-any-return]


def settings_of(case: Case) -> tuple[Any, OptimizerSettings]:
    """The method's config and the optimizer of its paper preset at 224 px."""
    method, kind = registry.method(case.method), "convnet" if case.arch == "resnet50" else "vit"
    preset = method.presets["paper"]
    values = {**preset.values, **(preset.convnet_values if kind == "convnet" else {})}

    def section(name: str) -> dict[str, Any]:
        return {key.partition(".")[2]: value for key, value in values.items() if key.startswith(f"{name}.")}

    given = section("method") | dict(AS_LIGHTLY.get(case.method, {}))
    config = parse_settings(method.Config, given, "method", case.method)
    situation = Situation(
        image_px=IMAGE_PX,
        train_images=1_281_167,
        patch_px=None if kind == "convnet" else 16,
        batch_size=case.batch_size,
        classes=1000,
        kind=kind,
    )
    optimizer = parse_settings(OptimizerSettings, section("optimizer"), "optimizer", case.method)
    return method.fill(config, situation), optimizer


def views_of(case: Case, config: Any) -> tuple[Tensor, ...]:
    """Noise in the shapes of the method's views."""
    local = getattr(config, "local_views", 0)
    sizes = (IMAGE_PX,) * 2 + (LOCAL_PX,) * local
    return tuple(torch.randn(case.batch_size, 3, px, px) for px in sizes)


def our_step(case: Case, views: tuple[Tensor, ...]) -> Callable[[], None]:
    """One step of our method, as the training loop does it."""
    config, settings = settings_of(case)
    arch = registry.backbone(case.arch)
    backbone_config = arch.fill(arch.Config(), IMAGE_PX, registry.method(case.method).backbone_defaults)

    def make_backbone(*, drop_path: float = 0.0) -> Backbone:
        return arch(backbone_config, image_px=IMAGE_PX, drop_path=drop_path)

    method = registry.method(case.method)(config, make_backbone).train()
    optimizer = build_optimizer(settings, method.parameter_groups())
    return _step(method, optimizer, views, lambda: set_schedule(optimizer, settings, PROGRESS, case.batch_size))


def lightly_step(case: Case, views: tuple[Tensor, ...]) -> Callable[[], None]:
    """The same step of lightly's blocks, with its own or torch's optimizer."""
    from lightly.models.utils import get_weight_decay_parameters
    from lightly.utils.lars import LARS

    config, settings = settings_of(case)

    def make_backbone(*, drop_path: float = 0.0) -> Backbone:
        return Plain(case.arch, drop_path)

    method = registry.method(f"lightly-{case.method}")(config, make_backbone).train()
    decayed, undecayed = get_weight_decay_parameters([method])
    groups = [{"params": decayed, "weight_decay": 1e-4}, {"params": undecayed, "weight_decay": 0.0}]
    for group in groups:
        group["params"] = [parameter for parameter in group["params"] if parameter.requires_grad]
    optimizers: dict[str, Callable[[], torch.optim.Optimizer]] = {
        "adamw": lambda: torch.optim.AdamW(groups, lr=RATE),
        "sgd": lambda: torch.optim.SGD(groups, lr=RATE, momentum=0.9),
        "lars": lambda: LARS(groups, lr=RATE, momentum=0.9),
    }
    return _step(method, optimizers[settings.name](), views, lambda: None)


def _step(
    method: Method, optimizer: torch.optim.Optimizer, views: tuple[Tensor, ...], schedule: Callable[[], object]
) -> Callable[[], None]:
    batch = Batch(views, torch.arange(len(views[0])))

    def step() -> None:
        schedule()
        for group in optimizer.param_groups:
            group["lr"] = RATE
        out = method.step(batch, PROGRESS)
        optimizer.zero_grad()
        out.loss.backward()
        method.before_optimizer(PROGRESS)
        optimizer.step()
        with torch.no_grad():
            method.update(out.carry, PROGRESS)
        out.loss.item()

    return step


def ours(case: Case) -> Callable[[], None]:
    """`our_step` of noise."""
    return our_step(case, views_of(case, settings_of(case)[0]))


def lightlys(case: Case) -> Callable[[], None]:
    """`lightly_step` of noise."""
    return lightly_step(case, views_of(case, settings_of(case)[0]))


def compare(case: Case, turns: int, goal: Goal) -> list[Ratio]:
    """The ratio to lightly's step, and the share of the peak of matrix products."""
    threads, peaks = torch.get_num_threads(), list[Timing]()
    entries = {OURS: Entry(ours, (case,), ours=True), LIGHTLY: Entry(lightlys, (case,), ours=False)}
    with contestants(entries, threads) as ready:
        timings = by_turns(ready, turns, after=lambda: peaks.append(gemm(torch.float32)))
        flops = ready[OURS].flops
    pairs = [(turn[OURS], turn[LIGHTLY]) for turn in timings]
    ratio = faster(case.words, "lightly's blocks in fp32", pairs, threads, goal)
    rates = [
        (flops / own.wall / 1e9, GEMM_FLOPS / peak.wall / 1e9) for (own, _), peak in zip(pairs, peaks, strict=True)
    ]
    used = cpu_share([own for own, _ in pairs], threads)
    return [ratio, share(case.words, "the peak of matrix products", rates, "GFLOP/s", Goal(), cpu_share=used)]


def ratios(*, quick: bool = False) -> list[Ratio]:
    """Every method on both networks, but DINO on deit_s16."""
    cases = [Case(method, arch, 2 if quick else 4) for method in METHODS for arch in ARCHS]
    found: list[Ratio] = []
    for case in cases[:1] if quick else cases:
        if (case.method, case.arch) != ("dino", "deit_s16"):
            found += compare(case, 1 if quick else 5, Goal(at_least=1.0))
    return found


def main(arguments: Sequence[str] | None = None) -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--method", choices=METHODS, nargs="+", default=list(METHODS))
    parser.add_argument("--arch", choices=ARCHS, nargs="+", default=list(ARCHS))
    parser.add_argument("--batch-size", type=int, default=4, help="images per step (default 4)")
    parser.add_argument("--turns", type=int, default=5, help="measured steps of each (default 5)")
    parser.add_argument("--threads", type=int, default=torch.get_num_threads(), help="default %(default)s")
    given = parser.parse_args(arguments)
    torch.set_num_threads(given.threads)
    for method in given.method:
        for arch in given.arch:
            for row in compare(Case(method, arch, given.batch_size), given.turns, Goal()):
                by_cpu = "" if row.ratio_by_cpu_time is None else f", by CPU time {row.ratio_by_cpu_time:.2f}"
                print(
                    f"{row.name} / {row.against}: {row.ratio:.2f} ({row.spread[0]:.2f} to {row.spread[1]:.2f}, "
                    f"n = {row.n}){by_cpu}",
                    flush=True,
                )


if __name__ == "__main__":
    main()
