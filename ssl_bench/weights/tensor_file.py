"""Tensors in safetensors files: read, written atomically, and checked against a SHA-256."""

from __future__ import annotations

import hashlib
import os
from collections.abc import Mapping
from pathlib import Path

from safetensors.torch import load, load_file, save_file
from torch import Tensor

from ssl_bench.errors import UserError
from ssl_bench.records.state_file import DamagedFile
from ssl_bench.system.files import sync_folder


def read_tensors(path: Path) -> dict[str, Tensor]:
    """The tensors of a safetensors file. Its library does not open paths that are not UTF-8: those are read here."""
    try:
        str(path).encode("utf-8")
    except UnicodeEncodeError:
        return load(path.read_bytes())
    return load_file(path)


def save_weights(path: Path, weights: Mapping[str, Tensor], description: Mapping[str, str]) -> str:
    """Write a network's weights atomically as safetensors with `description` in its header; returns its SHA-256."""
    part = path.with_name(f".{path.name}.part")
    try:
        save_file(detached(weights), part, metadata=dict(description))
        sync_file(part)
        os.replace(part, path)
        sync_folder(path.parent)
    except Exception as error:
        part.unlink(missing_ok=True)
        raise cannot_save(path, error) from error
    return digest(path)


def load_weights(path: Path, sha256: str | None = None) -> dict[str, Tensor]:
    """Read weights, checked against `sha256` if given. Raises `UserError` for a missing or damaged file."""
    if not path.is_file():
        raise UserError(f"{path} does not exist: weights are not committed; run the recipe again or copy the file back")
    if sha256 is not None and digest(path) != sha256:
        raise DamagedFile(f"{path} is damaged: its SHA-256 is not the one in weights.json beside it")
    return read_tensors(path)


def digest(path: Path) -> str:
    """Hex SHA-256 of a file."""
    with path.open("rb") as stream:
        return hashlib.file_digest(stream, "sha256").hexdigest()


def sync_file(path: Path) -> None:
    """Flush a file that is closed to disk."""
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def detached(tensors: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """Contiguous CPU tensors; shared storage is copied, because safetensors refuses overlapping tensors."""
    result: dict[str, Tensor] = {}
    seen: set[int] = set()
    for name, tensor in tensors.items():
        plain = tensor.detach().to("cpu").contiguous()
        key = plain.untyped_storage().data_ptr()
        if key in seen or plain.untyped_storage().nbytes() != plain.nbytes:
            plain = plain.clone()
        seen.add(key)
        result[name] = plain
    return result


def cannot_save(path: Path, error: BaseException) -> UserError:
    """The message for a file or checkpoint that could not be written."""
    return UserError(
        f"cannot save {path}: {error}. Free space or choose another folder with --results PATH; "
        "checkpoints saved before are untouched."
    )
