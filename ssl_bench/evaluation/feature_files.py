"""Features and labels of one split, from a file of any framework or from arrays, checked before use."""

from __future__ import annotations

import hashlib
import zipfile
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ssl_bench.errors import UserError

FEATURES = ("features", "vectors", "embeddings", "X", "x")
LABELS = ("labels", "targets", "label", "target", "Y", "y")
PROBE_FEATURES = "probe_features"
"""Optional: what the linear probe reads in place of the features, e.g. several blocks' class tokens."""
ENDINGS = (".npz", ".npy", ".safetensors", ".pt", ".pth")


@dataclass(frozen=True)
class Matrix:
    """The features of one split, finite and float32."""

    name: str
    """What messages call it: the file's name, or "train" and "test" for arrays."""
    vectors: NDArray[np.float32]
    """(n, dim)."""
    probe_vectors: NDArray[np.float32] | None
    labels: NDArray[Any] | None
    """(n,) integers or texts, as they were given."""
    sha256: str
    dtype: str
    """Of the numbers as they were stored."""


def read_matrix(path: Path) -> Matrix:
    """Read a file: .npz, .safetensors, .pt with arrays by name, or .npy with the labels in a file beside it.

    Raises `UserError` for a file that is no such, for names that are not known, and for what `matrix` refuses.
    """
    path = path.expanduser()
    if not path.is_file():
        raise UserError(f"{path} does not exist: give a file of features ({', '.join(ENDINGS)})")
    reader = {".npz": _npz, ".npy": _npy, ".safetensors": _safetensors, ".pt": _torch, ".pth": _torch}.get(path.suffix)
    if reader is None:
        raise UserError(f"{path} is no file of features: known are {', '.join(ENDINGS)}")
    arrays, files = reader(path)
    digest = hashlib.sha256("".join(map(_sha256, files)).encode()).hexdigest() if len(files) > 1 else _sha256(path)
    return matrix(path.name, arrays, digest)


def matrix(name: str, arrays: Mapping[str, Any], sha256: str | None = None) -> Matrix:
    """Arrays by name, checked: `features` (n, dim) of numbers, and `labels` (n,) of integers or texts unless there are
    none. Raises `UserError` for whatever else they are, and for NaN and infinity.
    """
    plain = {key: _plain(name, key, value) for key, value in arrays.items()}
    given = _one_of(name, "features", FEATURES, plain)
    if given is None:
        names = ", ".join(plain) or "nothing"
        raise UserError(f"{name} has no features: it holds {names}. Call the array one of {', '.join(FEATURES)}")
    vectors = _vectors(name, given)
    probe = _vectors(name, plain[PROBE_FEATURES]) if PROBE_FEATURES in plain else None
    if probe is not None and len(probe) != len(vectors):
        raise UserError(f"{name} has {len(vectors):,} features and {len(probe):,} {PROBE_FEATURES}: one a row")
    found = _one_of(name, "labels", LABELS, plain)
    labels = None if found is None else _labels(name, found, len(vectors))
    return Matrix(name, vectors, probe, labels, sha256 or _content(vectors, probe, labels), str(given.dtype))


def _one_of(name: str, what: str, known: tuple[str, ...], arrays: Mapping[str, NDArray[Any]]) -> NDArray[Any] | None:
    found = [key for key in known if key in arrays]
    if len(found) > 1:
        raise UserError(f"{name} has {' and '.join(found)}: which are the {what}? Leave one out")
    return arrays[found[0]] if found else None


def _vectors(name: str, given: NDArray[Any]) -> NDArray[np.float32]:
    if given.ndim != 2:
        raise UserError(
            f"the features of {name} have the shape {given.shape}: a matrix (images, dimensions) is needed, one row an "
            "image. Pool tokens or positions first"
        )
    if not len(given) or not given.shape[1]:
        raise UserError(f"the features of {name} are empty: their shape is {given.shape}")
    if given.dtype.kind not in "fiu":
        raise UserError(f"the features of {name} are {given.dtype}: numbers are needed, e.g. float32")
    vectors = np.ascontiguousarray(given, dtype=np.float32)
    finite = np.isfinite(vectors).all(axis=1)
    if not finite.all():
        rows = np.flatnonzero(~finite)
        too_large = " (float64 beyond float32 counts as infinity)" if given.dtype == np.float64 else ""
        raise UserError(
            f"{len(rows):,} of the {len(vectors):,} features of {name} have NaN or infinity{too_large}, the first in "
            f"row {rows[0]:,} (from 0)"
        )
    if len(vectors) > 1 and (vectors == vectors[0]).all():
        raise UserError(f"the features of {name} are constant: all {len(vectors):,} images have the same vector")
    return vectors


def _labels(name: str, given: NDArray[Any], images: int) -> NDArray[Any]:
    if given.ndim == 2 and 1 in given.shape:
        given = given.reshape(-1)
    if given.ndim != 1:
        one_hot = ". One-hot rows become indices with labels.argmax(1)" if given.ndim == 2 else ""
        raise UserError(f"the labels of {name} have the shape {given.shape}: one label an image is needed{one_hot}")
    if len(given) != images:
        raise UserError(f"{name} has {images:,} features and {len(given):,} labels: one label a row is needed")
    if given.dtype.kind == "f" and np.isfinite(given).all() and (given == np.rint(given)).all():
        given = given.astype(np.int64)
    if given.dtype.kind not in "iubUS":
        raise UserError(f"the labels of {name} are {given.dtype}: integers or texts are needed, one a class")
    return given


def _plain(name: str, key: str, value: Any) -> NDArray[Any]:
    """As a NumPy array; tensors of torch, bfloat16 too, become one."""
    if type(value).__module__.partition(".")[0] == "torch":
        value = value.detach().cpu()
        value = (value.float() if value.is_floating_point() else value).numpy()
    try:
        return np.asarray(value)
    except ValueError as error:
        raise UserError(f"{key} of {name} is no array ({error})") from None


def _npz(path: Path) -> tuple[dict[str, Any], list[Path]]:
    try:
        with np.load(path, allow_pickle=False) as stored:
            return {key: stored[key] for key in stored.files}, [path]
    except (ValueError, OSError, EOFError, KeyError, zipfile.BadZipFile) as error:
        raise _unreadable(path, error) from error


def _npy(path: Path) -> tuple[dict[str, Any], list[Path]]:
    """Features of one file; labels of a file beside it, e.g. train.npy and train-labels.npy."""
    stem = path.stem
    names = [f"{stem}-labels.npy", f"{stem}_labels.npy"]
    names += [path.name.replace(word, "labels") for word in FEATURES[:3] if word in stem]
    beside = next((path.with_name(name) for name in names if path.with_name(name).is_file()), None)
    try:
        arrays = {"features": np.load(path, allow_pickle=False)}
        if beside is not None:
            arrays["labels"] = np.load(beside, allow_pickle=False)
    except (ValueError, OSError, EOFError) as error:
        raise _unreadable(path, error) from error
    return arrays, [path] if beside is None else [path, beside]


def _safetensors(path: Path) -> tuple[dict[str, Any], list[Path]]:
    from safetensors.torch import load_file

    try:
        return dict(load_file(path)), [path]
    except Exception as error:  # safetensors raises an exception of its own
        raise _unreadable(path, error) from error


def _torch(path: Path) -> tuple[dict[str, Any], list[Path]]:
    import torch

    try:
        content = torch.load(path, map_location="cpu", weights_only=True)
    except Exception as error:  # whatever a damaged or a hostile pickle raises
        raise _unreadable(path, error) from error
    if not isinstance(content, Mapping):
        raise UserError(f"{path} holds {type(content).__name__}: save a dict with features and labels")
    return {str(key): value for key, value in content.items()}, [path]


def _unreadable(path: Path, error: Exception) -> UserError:
    words = str(error).strip().partition("\n")[0].rstrip(".")
    pickled = ". Arrays of objects are not read: save numbers and texts" if "allow_pickle" in words else ""
    return UserError(f"{path} cannot be read ({words}){pickled}")


def _sha256(path: Path) -> str:
    with path.open("rb") as stream:
        return hashlib.file_digest(stream, "sha256").hexdigest()


def _content(*arrays: NDArray[Any] | None) -> str:
    """Of arrays that come from no file."""
    digest = hashlib.sha256()
    for array in arrays:
        digest.update(b"none" if array is None else f"{array.dtype}{array.shape}".encode())
        digest.update(b"" if array is None else np.ascontiguousarray(array).tobytes())
    return digest.hexdigest()
