"""What a record holds of weights that were trained elsewhere, in place of a recipe of training."""

from __future__ import annotations

import hashlib
import json
from typing import Any

from pydantic import BaseModel, ConfigDict

from ssl_bench.records.recipe import OUTSIDE_DIGEST, DataPart, EvaluatorPart, Part, arch_text
from ssl_bench.settings import DATA_PATH, Settings


class WeightsOrigin(BaseModel):
    """Where evaluated weights come from, and how they were read."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    file: str
    """Name of the file or folder, without its place on a disk."""
    name: str = ""
    """As they were asked for where that is a published name, e.g. "dino:deit_s16"."""
    address: str = ""
    """Where those of a published name were downloaded from, or would have been."""
    revision: str = ""
    """The commit of their repository on a hub."""
    sha256: str
    container: str
    format: str
    source: str
    """Where its names and preprocessing were read: a repository, or a library."""
    network: str
    """Which network of the file, as `--key` takes it."""
    tensors_used: int
    """All that the architecture has."""
    left_out: dict[str, int]
    """Group of names -> tensors that are no part of the network, e.g. {"head": 7, "student": 157}."""
    notes: tuple[str, ...] = ()
    """What was changed or accepted on the way."""
    preprocessing_source: str
    settings: dict[str, Any] = {}
    """Training settings that the file holds."""


class FeatureFile(BaseModel):
    """One file of features, or arrays of a Python program."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    name: str
    """Without its place on a disk; "train" or "test" for arrays."""
    sha256: str
    shape: tuple[int, int]
    """(images, dimensions)."""
    dtype: str
    """As the numbers were stored; computed with in float32."""


class FeaturesOrigin(BaseModel):
    """Features that were made elsewhere, in place of a network."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    files: str
    """Both names, for tables."""
    train: FeatureFile
    test: FeatureFile


class WeightsRecipe(Settings):
    """What decides an evaluation of weights from elsewhere."""

    method: Part
    """What trained them, as given or as their format says; without settings, which are not known."""
    backbone: Part
    data: DataPart
    preprocessing: dict[str, Any]
    evaluators: tuple[EvaluatorPart, ...]
    weights: dict[str, str]
    """SHA-256 of the file, and the network in it; of features: over both files, and "features"."""

    @property
    def arch(self) -> str:
        """What `--arch` takes."""
        return arch_text(self.backbone.name, self.backbone.settings)

    @property
    def digest(self) -> str:
        """Hex SHA-256 over all of it; where data lie on the disk is left out."""
        content = self.model_dump(mode="json")
        for key in OUTSIDE_DIGEST:
            content["data"].pop(key, None)
        content["backbone"]["settings"].pop(DATA_PATH, None)
        for part in content["evaluators"]:
            part["settings"].pop(DATA_PATH, None)
            if part["version"] == 1:  # older digests stay valid
                del part["version"]
        return hashlib.sha256(json.dumps(content, sort_keys=True, separators=(",", ":")).encode()).hexdigest()

    @property
    def run_id(self) -> str:
        """E.g. `dino-deit_s16-imagenet-elsewhere-3f9c`."""
        words = (self.method.name, self.arch, self.data.name, "elsewhere", self.digest[:8])
        return "-".join("".join(c if c.isalnum() or c in "_." else "_" for c in word) for word in words)
