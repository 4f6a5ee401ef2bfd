"""Recipe: everything that decides a run, complete, frozen, printable and digestible."""

from __future__ import annotations

import hashlib
import json
import os
import re
from collections.abc import Mapping
from typing import Annotated, Any, Literal

from pydantic import AfterValidator, PlainSerializer, field_validator

from ssl_bench.records.renamed_settings import with_current_names, with_earlier_names, without_added_settings
from ssl_bench.records.seal import sealed_recipe
from ssl_bench.settings import DATA_PATH, NONE, Settings, setting
from ssl_bench.system.paths import expanded_path, portable_path

RecordedPath = Annotated[str, AfterValidator(expanded_path), PlainSerializer(portable_path)]
"""As `settings.GivenPath`, where a record may also hold a name, or what an earlier version wrote."""


class TrainingSettings(Settings):
    """How long, how large, how precise."""

    epochs: int = setting(
        100, "passes over the training set; 0 evaluates the untrained network only", unit="epochs", ge=0
    )
    batch_size: int = setting(64, "images per optimizer step, over all devices", unit="images", ge=1)
    seed: int = setting(0, "seed of initial weights, order and augmentation", ge=0, lt=2**63)
    eval_every: int | None = setting(
        None, "epochs between two evaluations during training, of every network of the method; none: not evaluated",
        unit="epochs", ge=1,
    )  # fmt: skip
    precision: Literal["auto", "fp32", "bf16", "fp16"] = setting(
        "auto",
        "fp32, bf16 or fp16 autocast (fp16 with loss scaling), or auto: bf16 where a measurement on this machine shows "
        "that it is faster",
    )


class MachineSettings(Settings):
    """What changes the speed and not the result; not part of the digest."""

    device: str = setting("auto", "cpu, cuda, cuda:1, mps or auto: a GPU where torch finds a usable one")
    workers: int | None = setting(None, "processes that make views; none: decided from cores and image size", ge=0)
    checkpoint_minutes: float = setting(10.0, "time between two checkpoints", unit="minutes", gt=0)
    augment_on: Literal["workers", "device"] = setting(
        "workers",
        "where views get their color, blur and normalization: in the workers, or on the device, which spares the "
        "workers about half of their time; the same views up to rounding",
    )
    activation_checkpointing: bool | None = setting(
        None,
        "compute activations again in the backward pass instead of keeping them: less memory, about a third more time; "
        "none: where the plan for the memory there is needs it",
    )
    memory: str | None = setting(
        None, "what a run may use, e.g. 4GB: it is planned for that; none: what is free. --memory sets it"
    )
    micro_batch: int | None = setting(
        None, "images per forward pass; none: the whole batch, or what the plan chooses for the memory there is",
        unit="images", ge=1,
    )  # fmt: skip
    auto_precision: Literal["measure", "fp32", "bf16", "fp16"] = setting(
        "measure",
        "what training.precision=auto becomes: what a measurement shows, or what an earlier run recorded; --recipe of "
        "a recorded run sets it",
    )
    tf32: bool = setting(
        False,
        "products and convolutions in fp32 may use TF32 on cards from compute capability 8.0 on: faster, with 10 bits "
        "of mantissa in place of 23; off: float32 everywhere",
    )
    compile: bool = setting(
        False,
        "compile the networks with torch.compile: a slow first step, then faster ones; the same result up to rounding",
    )
    log: tuple[str, ...] = setting(
        (), "loggers that get every value while the run trains, e.g. tensorboard, wandb (sslbench list loggers)"
    )


class InitialSettings(Settings):
    """What a run starts from; all none: random weights, or those of the architecture's name."""

    source: RecordedPath | None = setting(None, "a finished run's folder or a .safetensors file; --init sets it")
    network: str | None = setting(None, "which network of the source, by its name; none: the one that it evaluates")
    fingerprint: str | None = setting(None, "SHA-256 that the weights must have; none: any, and recorded")


class Part(Settings):
    """A plugin by name with its complete settings."""

    name: str
    settings: dict[str, Any]


class EvaluatorPart(Part):
    """An evaluator; `fingerprint`, not its `path`, enters the digest where it reads a set of its own."""

    fingerprint: str | None = None
    """Of the data it reads where that is not the run's own."""
    version: int = 1
    """`Evaluator.version`; 1 in earlier records. It decides no training and is in no run's digest."""


class DataPart(Part):
    """The data as the user named it; `fingerprint`, not where they lie or who reads them, enters the digest."""

    path: RecordedPath | None
    """Absolute here, `portable_path` in a record; None for a set that is made."""
    fingerprint: str
    image_px: int
    plugin: str = ""
    """Registered name of the dataset that read it; "" in recipes of earlier versions."""
    train_images: int | None = None
    test_images: int | None = None
    """Counts, so that a run whose data changed can say how."""

    @property
    def reference(self) -> str:
        """What `--data` takes to open these data again, from any working directory: a name, or NAME:FOLDER."""
        if self.path is None:
            return self.plugin or self.name
        path = portable_path(self.path)
        if not (os.path.isabs(path) or path.startswith(("~", "$"))):
            path = f"./{path}"  # as earlier versions kept it
        return f"{self.plugin}:{path}" if self.plugin else path


class InitialWeights(Settings):
    """Where every backbone of the method starts; `fingerprint`, not where the file lies, enters the digest."""

    source: RecordedPath
    """Absolute path of a finished run's folder or of a file."""
    network: str
    """Which network of the source they are of, e.g. "teacher"; "" where it does not say."""
    fingerprint: str
    """Hex SHA-256 of the tensors (`weights.initial.fingerprint_of`)."""

    @property
    def words(self) -> str:
        """What they are, wherever they lie, e.g. "teacher, sha256 0f3a5c6d7e8f"."""
        return ", ".join(filter(None, (self.network, f"sha256 {self.fingerprint[:12]}")))


OUTSIDE_DIGEST = ("path", "plugin", "train_images", "test_images")
"""Of `DataPart`: what the fingerprint already decides, and where the data lie on a disk."""


class Recipe(Settings):
    """Everything that decides a run."""

    method: Part
    backbone: Part
    data: DataPart
    """What is trained on."""
    eval_data: tuple[DataPart, ...] = ()
    """What is evaluated on; empty: on `data` themselves."""
    optimizer: dict[str, Any]
    training: TrainingSettings
    evaluators: tuple[EvaluatorPart, ...]
    initial: InitialWeights | None = None
    """None: random initial weights, or those that the architecture's name stands for."""

    @field_validator("method")
    @classmethod
    def _current_method_settings(cls, part: Part) -> Part:
        return part.model_copy(update={"settings": with_current_names(f"method.{part.name}", part.settings)})

    @field_validator("evaluators")
    @classmethod
    def _current_evaluator_settings(cls, parts: tuple[EvaluatorPart, ...]) -> tuple[EvaluatorPart, ...]:
        return tuple(
            part.model_copy(update={"settings": with_current_names(f"evaluators.{part.name}", part.settings)})
            for part in parts
        )

    @property
    def arch(self) -> str:
        """What `--arch` takes, e.g. "deit_s16" or "timm:resnet18"."""
        return arch_text(self.backbone.name, self.backbone.settings)

    @property
    def digest(self) -> str:
        """Hex SHA-256 over the recipe and the data's fingerprint; where data lie on the disk is left out."""
        content = self.model_dump(mode="json")
        for part in (content["data"], *content["eval_data"]):
            for key in OUTSIDE_DIGEST:
                del part[key]
        if not content["eval_data"]:  # older digests stay valid
            del content["eval_data"]
        if content["training"]["eval_every"] is None:  # older digests stay valid
            del content["training"]["eval_every"]
        if self.initial is None:
            del content["initial"]
        else:
            content["initial"] = self.initial.fingerprint
        content["backbone"]["settings"] = without_added_settings(content["backbone"]["settings"])
        content["backbone"]["settings"].pop(DATA_PATH, None)
        method = content["method"]
        method["settings"] = with_earlier_names(f"method.{method['name']}", method["settings"])
        for part in content["evaluators"]:
            part["settings"] = with_earlier_names(f"evaluators.{part['name']}", part["settings"])
            part["settings"].pop(DATA_PATH, None)
            del part["version"]
            if part["fingerprint"] is None:
                del part["fingerprint"]
        return hashlib.sha256(json.dumps(content, sort_keys=True, separators=(",", ":")).encode()).hexdigest()

    @property
    def run_id(self) -> str:
        """E.g. `dino-deit_s16-shapes-s0-3f9c`; the last four characters are the digest's."""
        return self.name_with(4)

    def name_with(self, characters: int) -> str:
        """A name for the run's folder that ends with so many characters of the digest."""
        words = (self.method.name, self.arch, self.data.name, f"s{self.training.seed}", self.digest[:characters])
        return "-".join("".join(c if c.isalnum() or c in "_." else "_" for c in word) for word in words)

    def to_toml(self, preset: str = "none") -> str:
        """The recipe as a file for `sslbench run --recipe FILE`; every value stands in it.

        `preset` only says where the values came from: none of them is left to it.
        """
        run = {
            "method": self.method.name,
            "arch": self.arch,
            "data": self.data.reference,
            **({"eval_data": [part.reference for part in self.eval_data]} if self.eval_data else {}),
            "preset": preset,
            "with": [part.name for part in self.evaluators],
        }
        sections: list[tuple[str, Mapping[str, Any]]] = [
            ("run", run),
            ("method", self.method.settings),
            ("backbone", self.backbone.settings),
            ("data", self.data.settings),
            *((f"eval_data.{number}", part.settings) for number, part in enumerate(self.eval_data, start=1)),
            ("optimizer", self.optimizer),
            ("training", self.training.model_dump(mode="json")),
            *([("initial", self.initial.model_dump())] if self.initial else []),
            *((f"evaluators.{toml_key(part.name)}", part.settings) for part in self.evaluators),
        ]
        lines = [f"# sslbench run --recipe THIS_FILE    (digest {self.digest[:12]})"]
        for name, values in sections:
            lines += ["", f"[{name}]"]
            lines += [f"{toml_key(key)} = {toml_value(value)}" for key, value in values.items()]
        return sealed_recipe("\n".join(lines) + "\n")


def arch_text(plugin: str, settings: Mapping[str, Any]) -> str:
    """PLUGIN:NAME for a backbone that is many networks, told apart by its setting `name`; else the plugin's name."""
    name = settings.get("name")
    return f"{plugin}:{name}" if isinstance(name, str) else plugin


def toml_value(value: Any) -> str:
    """A JSON-like value in TOML, which has no null: None is written "none" (see `parse_settings`)."""
    if value is None:
        return json.dumps(NONE)
    if isinstance(value, Mapping):
        return "{ " + ", ".join(f"{toml_key(key)} = {toml_value(inner)}" for key, inner in value.items()) + " }"
    if isinstance(value, list | tuple):
        return "[" + ", ".join(map(toml_value, value)) + "]"
    # JSON's escapes are TOML's but for characters beyond 16 bits, which stand as they are, and DEL, which must not
    return json.dumps(value, ensure_ascii=False).replace("\x7f", "\\u007f")


def toml_key(key: str) -> str:
    """A key as TOML wants it: bare where it can be, else quoted."""
    return key if re.fullmatch(r"[A-Za-z0-9_-]+", key) else toml_value(key)
