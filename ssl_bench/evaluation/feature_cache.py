"""Features in the cache folder: found again by network, data, transform and machine, never by name.

A file holds its own key and a SHA-256 of its values. What does not agree with both is dropped and extracted again.
"""

from __future__ import annotations

import hashlib
import json
import os
from collections.abc import Iterable
from contextlib import suppress
from dataclasses import asdict, dataclass
from pathlib import Path

import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import save_file
from torch import Tensor, nn

from ssl_bench.blocks.preprocessing import Preprocessing
from ssl_bench.dataset import Dataset, Split
from ssl_bench.evaluation.network_fingerprint import Undecidable, code_fingerprint, network_fingerprint
from ssl_bench.evaluator import FeatureKind
from ssl_bench.system import cache
from ssl_bench.system.files import cache_folder

KEY_CHARACTERS = 32


@dataclass(frozen=True)
class ImagesKey:
    """What decides the levels of a split's images after the crop."""

    data: str
    """The dataset's fingerprint."""
    times: str
    """When files of a large set changed, of which the fingerprint reads a sample."""
    split: str
    images: int
    crop: str
    code: str

    @property
    def digest(self) -> str:
        """Name of the entry."""
        return _digest(asdict(self))


@dataclass(frozen=True)
class FeaturesKey:
    """What decides every bit of a feature matrix."""

    images: ImagesKey
    network: str
    kind: str
    mean_and_std: str
    batch: int
    precision: str
    machine: str

    @property
    def digest(self) -> str:
        """Name of the entry."""
        return _digest(asdict(self))


def images_key(
    dataset: Dataset, name: str, split: Split, preprocessing: Preprocessing, *, native: bool
) -> ImagesKey | None:
    """None where no digest holds all that decides (`Undecidable`)."""
    packages = {type(one).__module__.partition(".")[0] for one in (dataset, split)}
    try:
        code = code_fingerprint(frozenset(packages))
    except Undecidable:
        return None
    seen = preprocessing.model_dump(mode="json", exclude={"mean", "std", "source"})
    times = str(getattr(split, "times", ""))
    crop = json.dumps(seen | {"native": native}, sort_keys=True)
    return ImagesKey(dataset.fingerprint, times, name, len(split), crop, code)


def features_keys(
    images: ImagesKey,
    network: nn.Module,
    kinds: Iterable[FeatureKind],
    preprocessing: Preprocessing,
    *,
    batch: int,
    device: torch.device,
    autocast_dtype: torch.dtype | None,
) -> dict[FeatureKind, FeaturesKey]:
    """One for each kind; none where no digest holds all that decides the output of the network (`Undecidable`)."""
    try:
        fingerprint = network_fingerprint(network)
    except Undecidable:
        return {}
    mean_and_std, precision, machine = (
        f"{preprocessing.mean} {preprocessing.std}",
        str(autocast_dtype),
        _machine(device),
    )
    return {kind: FeaturesKey(images, fingerprint, kind, mean_and_std, batch, precision, machine) for kind in kinds}


def read_features(key: FeaturesKey) -> Tensor | None:
    """(images, dim) float32; None where nothing is kept. A file that is damaged, or not of this key, is removed."""
    path = _path(key)
    if not path.is_file():
        return None
    try:
        with safe_open(path, framework="pt") as file:
            described = file.metadata() or {}
            vectors: Tensor = file.get_tensor("features")
    except (OSError, SafetensorError, KeyError, ValueError, RuntimeError):
        cache.remove(path)
        return None
    agrees = described.get("key") == _text(asdict(key)) and described.get("sha256") == _sha256(vectors)
    if not agrees or vectors.dtype != torch.float32 or vectors.shape[:1] != (key.images.images,):
        cache.remove(path)
        return None
    cache.touch(path)
    return vectors


def keep_features(key: FeaturesKey, vectors: Tensor) -> None:
    """Write them whole, or not at all where they exceed the limit of the cache or cannot be written."""
    path = _path(key)
    part = path.with_name(f".{path.name}.{os.getpid()}")
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        if not cache.make_room(vectors.nbytes):
            return
        save_file({"features": vectors}, part, metadata={"key": _text(asdict(key)), "sha256": _sha256(vectors)})
        os.replace(part, path)
    except (OSError, SafetensorError):
        with suppress(OSError):
            part.unlink(missing_ok=True)


def _path(key: FeaturesKey) -> Path:
    return cache_folder() / "features" / f"{key.digest}.safetensors"


def _sha256(vectors: Tensor) -> str:
    return hashlib.sha256(vectors.contiguous().numpy().data).hexdigest()


def _text(content: object) -> str:
    return json.dumps(content, sort_keys=True)


def _digest(content: object) -> str:
    return hashlib.sha256(_text(content).encode()).hexdigest()[:KEY_CHARACTERS]


def _machine(device: torch.device) -> str:
    """What can move the last bits of a network's output."""
    if device.type == "cuda":
        settings = (torch.backends.cuda.matmul.allow_tf32, torch.backends.cudnn.allow_tf32)
        where = f"{torch.cuda.get_device_name(device)} CUDA {torch.version.cuda} TF32 {settings}"
    else:
        where = f"{device.type} {torch.backends.cpu.get_cpu_capability()} {torch.get_num_threads()} threads"
    return f"{where} {torch.get_float32_matmul_precision()}"
