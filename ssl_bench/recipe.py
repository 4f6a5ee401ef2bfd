"""Recipe: everything that decides a run, complete, frozen, printable and digestible."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping
from typing import Any, Literal

from ssl_bench.settings import Settings, setting

ADDED_BACKBONE_SETTINGS = {"positions": ("timm", None), "weights": (None,)}
"""Settings of backbones that older recipes lack, with the values that mean what every run did before they existed."""


class TrainingSettings(Settings):
    """How long, how large, how precise."""

    epochs: int = setting(
        100, "passes over the training set; 0 evaluates the untrained network only", unit="epochs", ge=0
    )
    batch_size: int = setting(64, "images per optimizer step, over all devices", unit="images", ge=1)
    seed: int = setting(0, "seed of initial weights, order and augmentation", ge=0, lt=2**63)
    precision: Literal["auto", "fp32", "bf16"] = setting(
        "auto", "fp32, bf16 autocast, or auto: bf16 where a measurement on this machine shows that it pays"
    )


class MachineSettings(Settings):
    """What changes the speed and not the result; not part of the digest."""

    device: str = setting("auto", "cpu, cuda, cuda:1, mps or auto: a GPU where torch finds a usable one")
    workers: int | None = setting(None, "processes that make views; none: decided from cores and image size", ge=0)
    checkpoint_minutes: float = setting(10.0, "time between two checkpoints", unit="minutes", gt=0)


class Part(Settings):
    """A plugin by name with its complete settings."""

    name: str
    settings: dict[str, Any]


class EvaluatorPart(Part):
    """An evaluator; `fingerprint`, not its `path`, enters the digest where it reads a set of its own."""

    fingerprint: str | None = None
    """Of the data it reads where that is not the run's own."""


class DataPart(Part):
    """The data as the user named it; `fingerprint`, not the path, enters the digest."""

    path: str | None
    fingerprint: str
    image_px: int


class Recipe(Settings):
    """Everything that decides a run."""

    method: Part
    backbone: Part
    data: DataPart
    optimizer: dict[str, Any]
    training: TrainingSettings
    evaluators: tuple[EvaluatorPart, ...]

    @property
    def digest(self) -> str:
        """Hex SHA-256 over the recipe and the data's fingerprint; where data lie on the disk is left out."""
        content = self.model_dump(mode="json")
        del content["data"]["path"]
        settings = content["backbone"]["settings"]
        for name, before in ADDED_BACKBONE_SETTINGS.items():  # so that older digests stay valid
            if name in settings and settings[name] in before:
                del settings[name]
        for part in content["evaluators"]:
            part["settings"].pop("path", None)
            if part["fingerprint"] is None:
                del part["fingerprint"]
        return hashlib.sha256(json.dumps(content, sort_keys=True, separators=(",", ":")).encode()).hexdigest()

    @property
    def run_id(self) -> str:
        """E.g. `dino-deit_s16-shapes-s0-3f9c`; the last four characters are the digest's."""
        arch = self.backbone.settings["name"] if self.backbone.name == "timm" else self.backbone.name
        words = (self.method.name, arch, self.data.name, f"s{self.training.seed}", self.digest[:4])
        return "-".join("".join(c if c.isalnum() or c in "_." else "_" for c in word) for word in words)

    def to_toml(self) -> str:
        """The recipe as a file for `sslbench run --recipe FILE`; every value stands in it."""
        run = {
            "method": self.method.name,
            "arch": self.backbone.name,
            "data": self.data.path or self.data.name,
            "with": [part.name for part in self.evaluators],
        }
        sections: list[tuple[str, Mapping[str, Any]]] = [
            ("run", run),
            ("method", self.method.settings),
            ("backbone", self.backbone.settings),
            ("data", self.data.settings),
            ("optimizer", self.optimizer),
            ("training", self.training.model_dump(mode="json")),
            *((f"evaluators.{part.name}", part.settings) for part in self.evaluators),
        ]
        lines = [f"# sslbench run --recipe THIS_FILE    (digest {self.digest[:12]})"]
        for name, values in sections:
            lines += ["", f"[{name}]"]
            lines += [
                f"{key} = {json.dumps(value)}" if value is not None else f"# {key} is left open"
                for key, value in values.items()
            ]
        return "\n".join(lines) + "\n"
