"""A small method, backbone and dataset for tests of the core: everything the contract has, nothing slow."""

from __future__ import annotations

import copy
import dataclasses
from collections.abc import Mapping
from pathlib import Path
from random import Random
from typing import Any

import numpy as np
import torch
from PIL import Image
from torch import Tensor, nn

from ssl_bench.backbone import Backbone
from ssl_bench.blocks.ema import move_towards
from ssl_bench.blocks.optimizers import OptimizerSettings
from ssl_bench.dataset import Dataset
from ssl_bench.method import Batch, Method, Progress, StepOutput
from ssl_bench.settings import Settings, setting
from ssl_bench.training.plan import Plan


class ToyBackbone(Backbone):
    """A linear layer with batch norm and dropout, so that buffers and randomness take part."""

    Config = Settings
    kind = "convnet"

    def __init__(self, config: Any = None, *, image_px: int = 8, drop_path: float = 0.0) -> None:
        super().__init__(config, image_px=image_px)
        self.patch_px, self.image_px, self.feature_dim = None, image_px, 6
        self.layers = nn.Sequential(
            nn.Flatten(), nn.Linear(3 * image_px**2, 6), nn.BatchNorm1d(6), nn.Dropout(0.2), nn.Linear(6, 6)
        )

    def forward(self, images: Tensor) -> Tensor:
        return self.layers(images)


class ToyMethod(Method):
    """Two views, a momentum teacher and a center: DINO's moving parts in ten lines."""

    mean_over_images = True

    class Config(Settings):
        noise: float = setting(0.1, "standard deviation of the views' noise", ge=0)
        explode_at: int = setting(-1, "step whose loss is NaN")

    def __init__(self, config: Any, make_backbone: Any) -> None:
        super().__init__(config, make_backbone)
        self.config = config
        self.student = make_backbone()
        self.teacher = copy.deepcopy(self.student).requires_grad_(False)
        self.register_buffer("center", torch.zeros(6))

    @classmethod
    def make_views(cls, config: Any) -> Any:
        def views(image: Image.Image, rng: Random) -> tuple[Tensor, ...]:
            pixels = torch.from_numpy(np.array(image, dtype=np.float32) / 255).permute(2, 0, 1)
            return tuple(pixels + config.noise * (rng.random() - 0.5) for _ in range(2))

        return views

    def step(self, batch: Batch, progress: Progress) -> StepOutput:
        student = self.student(batch.views[0])
        with torch.no_grad():
            teacher = self.teacher(batch.views[1])
        loss = ((student - (teacher - self.center)) ** 2).mean()
        if progress.step == self.config.explode_at:
            loss = loss * float("nan")
        return StepOutput(loss, {}, {"teacher": teacher})

    def batch_logs(self, carry: Mapping[str, Tensor]) -> dict[str, Tensor]:
        return {"spread": carry["teacher"].std()}

    def update(self, carry: Mapping[str, Tensor], progress: Progress) -> None:
        self.center.lerp_(carry["teacher"].mean(0).to(self.center.dtype), 0.1)
        move_towards(self.teacher, self.student, 0.9)

    def networks(self) -> dict[str, Backbone]:
        return {"teacher": self.teacher, "student": self.student}


class ToySplit:
    """`count` noise images of `px` pixels; class c is brighter in channel c."""

    def __init__(self, count: int, px: int, seed: int) -> None:
        self.labels = [i % 3 for i in range(count)]
        self.px, self.seed = px, seed

    def __len__(self) -> int:
        return len(self.labels)

    def image(self, index: int) -> Image.Image:
        pixels = np.random.default_rng([self.seed, index]).integers(0, 200, (self.px, self.px, 3))
        pixels[..., self.labels[index]] += 40
        return Image.fromarray(pixels.astype(np.uint8))


class ToyDataset(Dataset):
    """Three classes of colored noise."""

    Config = Settings
    synthetic = True

    def __init__(self, config: Any = None, path: Path | None = None, count: int = 48, px: int = 8) -> None:
        self.config, self.path, self.name, self.image_px = config or Settings(), path, "toy", px
        self.classes = ("red", "green", "blue")
        self.train, self.test = ToySplit(count, px, 0), ToySplit(12, px, 1)

    @property
    def fingerprint(self) -> str:
        return "toy"


def make_plan(split: Any, folder: Path, optimizer: OptimizerSettings | None = None, **changes: Any) -> Plan:
    """A plan for a few steps on the CPU, without workers or timed checkpoints."""
    plan = Plan(
        split=split,
        batch_size=4,
        epochs=1,
        seed=0,
        optimizer=optimizer or OptimizerSettings(),
        device=torch.device("cpu"),
        autocast_dtype=None,
        workers=0,
        run_dir=folder,
        checkpoint_seconds=1e9,
    )
    return dataclasses.replace(plan, **changes)


def write_image_folder(
    root: Path, *, train: int = 12, test: int = 4, px: int = 16, classes: tuple[str, ...] = ("a", "b"), tint: int = 100
) -> Path:
    """An image folder of noise tinted by class: `train` and `test` images a class, `px` pixels, PNG."""
    for split, count in (("train", train), ("val", test)):
        for label, name in enumerate(classes):
            folder = root / split / name
            folder.mkdir(parents=True)
            for index in range(count):
                rng = np.random.default_rng([label, index, split == "train"])
                pixels = rng.integers(0, 150, (px, px, 3))
                pixels[..., label % 3] += tint
                Image.fromarray(pixels.astype(np.uint8)).save(folder / f"{index}.png")
    return root
