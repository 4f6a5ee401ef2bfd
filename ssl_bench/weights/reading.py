"""A file or folder of weights, recognized by its content and read without executing anything in it.

PyTorch's zip archives and safetensors are memory-mapped: a 20 GB file takes the memory of the tensors that are used.
"""

from __future__ import annotations

import dataclasses
import hashlib
import json
import os
import zipfile
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from ssl_bench.errors import UserError
from ssl_bench.weights.exported import MANIFEST, Exported, exported_as
from ssl_bench.weights.safe_pickle import load_pickled
from ssl_bench.weights.solo_learn import ARGS

CONFIG = "config.json"
PREPROCESSOR = "preprocessor_config.json"
LIGHTNING = "pytorch-lightning_version"
"""Key of every checkpoint of PyTorch Lightning."""
SINGLE = ("model.safetensors", "pytorch_model.bin", "open_clip_pytorch_model.bin")
INDEXED = ("model.safetensors.index.json", "pytorch_model.bin.index.json")


@dataclass(frozen=True)
class Stored:
    """What a file or folder holds, as it stands there."""

    path: Path
    container: str
    """In words, e.g. "safetensors" or "PyTorch archive"."""
    content: Mapping[str, Any]
    """Nested mappings with tensors in them."""
    sha256: str
    """Of the file; of a folder, over its weight files' digests by name."""
    config: Mapping[str, Any] = field(default_factory=dict)
    """The folder's config.json."""
    preprocessor: Mapping[str, Any] = field(default_factory=dict)
    """The folder's preprocessor_config.json."""
    metadata: Mapping[str, str] = field(default_factory=dict)
    """The header's texts of a safetensors file."""
    exported: Exported | None = None
    """What `sslbench export` says of it, where it wrote it."""
    args: Mapping[str, Any] = field(default_factory=dict)
    """The args.json beside a checkpoint of PyTorch Lightning, where solo-learn writes its settings."""

    @property
    def is_lightning(self) -> bool:
        """Whether PyTorch Lightning wrote it."""
        return LIGHTNING in self.content


def read_weights(path: Path) -> Stored:
    """Read a file, or a Hugging Face folder (config.json beside the weights).

    Raises `UserError` for what holds no weights, is damaged, incomplete or would execute code.
    """
    path = path.expanduser()
    if not path.exists():
        raise UserError(f"{path} does not exist")
    if path.is_dir():
        return _read_exported(path) or _read_folder(path)
    container, content, metadata = _read_file(path)
    beside = path.parent if path.name in SINGLE else None  # a file of a Hugging Face folder, given by itself
    config, preprocessor, sha256 = _json(beside, CONFIG), _json(beside, PREPROCESSOR), _sha256(path)
    exported = exported_as(path, sha256, metadata)
    args = _json(path.parent, ARGS) if LIGHTNING in content else {}
    return Stored(path, container, content, sha256, config, preprocessor, metadata, exported, args)


def _read_exported(folder: Path) -> Stored | None:
    """The file that the folder's `sslbench.json` names; None without one."""
    named = _json(folder, MANIFEST).get("file")
    file = folder / Path(str(named)).name
    return dataclasses.replace(read_weights(file), path=folder) if named and file.is_file() else None


def _read_folder(folder: Path) -> Stored:
    single = next((folder / name for name in SINGLE if (folder / name).exists()), None)
    index = next((folder / name for name in INDEXED if (folder / name).exists()), None)
    if single is not None:
        container, content, metadata = _read_file(single)
        files = [single]
    elif index is not None:
        container, content, metadata, files = *_read_shards(index), _shards(index)
    else:
        raise UserError(
            f"the folder {folder} holds no weights: none of {', '.join((*SINGLE, *INDEXED))} is in it. Give a file of "
            "weights, a Hugging Face folder, or a run (sslbench list shows none of these: see results/runs)"
        )
    digest = hashlib.sha256("".join(f"{file.name} {_sha256(file)}\n" for file in files).encode()).hexdigest()
    sha256 = _sha256(single) if single is not None else digest
    config, preprocessor = _json(folder, CONFIG), _json(folder, PREPROCESSOR)
    return Stored(folder, f"Hugging Face folder, {container}", content, sha256, config, preprocessor, metadata)


def _shards(index: Path) -> list[Path]:
    weight_map = _json(index.parent, index.name).get("weight_map")
    if not isinstance(weight_map, dict) or not weight_map:
        raise UserError(f"{index} lists no shards (weight_map): download it again")
    return [index.parent / name for name in sorted({str(name) for name in weight_map.values()})]


def _read_shards(index: Path) -> tuple[str, Mapping[str, Any], Mapping[str, str]]:
    files = _shards(index)
    missing = [file.name for file in files if not file.exists()]
    if missing:
        raise UserError(
            f"{index.parent} is incomplete: {len(missing)} of {len(files)} shards that {index.name} lists are missing "
            f"({', '.join(missing[:4])}). Download them into the folder."
        )
    content: dict[str, Any] = {}
    for file in files:
        container, part, _ = _read_file(file)
        content |= part
    absent = [name for name in _json(index.parent, index.name)["weight_map"] if name not in content]
    if absent:
        raise UserError(f"{index.parent} is incomplete: no shard holds {', '.join(absent[:4])}. Download it again.")
    return f"{container} in {len(files)} shards", content, {}


def _read_file(path: Path) -> tuple[str, Mapping[str, Any], Mapping[str, str]]:
    """(container, content, header texts) of one file, by its first bytes."""
    try:
        with path.open("rb") as stream:
            head = stream.read(512)
        size = path.stat().st_size
    except OSError as error:
        raise UserError(f"cannot read {path}: {error.strerror or error}") from None
    if head[:4] == b"PK\x03\x04":
        return "PyTorch archive", _mapping(path, _read_zip(path)), {}
    if len(head) > 8 and head[8:9] == b"{" and 2 <= int.from_bytes(head[:8], "little") < 2**32:
        return "safetensors", *_read_safetensors(path)
    if head[:1] == b"\x80":
        _refuse_too_large(path, size)
        return "PyTorch file from before 1.6", _mapping(path, load_pickled(path, mmap=False)), {}
    raise UserError(f"{path} holds no weights: {_what_it_is(head)}")


def _what_it_is(head: bytes) -> str:
    if not head:
        return "it is empty (0 bytes). Download it again."
    if head.startswith(b"version https://git-lfs"):
        return "it is a Git LFS pointer, which only names the file. Get the file itself: git lfs pull"
    if head.lstrip()[:9].lower().startswith((b"<!doctype", b"<html")):
        return "it is a web page, as a download behind a login or a wrong link leaves one. Download the file itself."
    if head.startswith(b"\x1f\x8b"):
        return "it is compressed with gzip. Unpack it first: gunzip"
    if head[257:262] == b"ustar":
        return "it is a tar archive. Unpack it first, and give the file of weights in it."
    if head.startswith(b"\x89HDF"):
        return "it is an HDF5 file (Keras, TensorFlow). Convert it to PyTorch first."
    if head.startswith(b"\x93NUMPY"):
        return "it is a NumPy array."
    try:
        head.decode()
        return "it is a text file. Known: .pth, .pt, .ckpt, .bin of torch.save, .safetensors, Hugging Face folders"
    except UnicodeDecodeError:
        pass
    return "its format is not known, or it is damaged. Known: files of torch.save, safetensors"


def _read_zip(path: Path) -> Any:
    try:
        with zipfile.ZipFile(path) as archive:
            names = archive.namelist()
    except (zipfile.BadZipFile, OSError) as error:
        raise UserError(
            f"{path} is damaged or only partly there ({error}; {path.stat().st_size:,} bytes). Download it again."
        ) from None
    if any(name.endswith("constants.pkl") for name in names) and any("/code/" in name for name in names):
        raise UserError(
            f"{path} is a TorchScript program, which would have to be executed. Save its tensors instead: "
            "torch.save(torch.jit.load(FILE).state_dict(), 'weights.pth')"
        )
    if not any(name.endswith("/data.pkl") or name == "data.pkl" for name in names):
        kind = "NumPy's .npz" if names and all(name.endswith(".npy") for name in names) else "a zip archive"
        raise UserError(f"{path} holds no PyTorch weights: it is {kind}. Unpack or convert it first.")
    return load_pickled(path, mmap=True)


def _read_safetensors(path: Path) -> tuple[Mapping[str, Any], Mapping[str, str]]:
    from safetensors import safe_open

    try:
        with safe_open(path, framework="pt") as file:
            return {name: file.get_tensor(name) for name in file.keys()}, file.metadata() or {}  # noqa: SIM118
    except Exception as error:  # safetensors raises an exception of its own
        raise UserError(f"{path} is damaged or only partly there ({error}). Download it again.") from None


def _refuse_too_large(path: Path, size: int) -> None:
    """Files from before torch 1.6 cannot be memory-mapped: all of it has to fit."""
    try:
        memory = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")
    except (ValueError, OSError, AttributeError):
        return
    if size > memory:
        raise UserError(
            f"{path} has {size / 2**30:.1f} GiB and this machine {memory / 2**30:.1f} GiB of memory; a file of before "
            "torch 1.6 is read as a whole. Save it again with a current torch on a larger machine."
        )


def _mapping(path: Path, content: Any) -> Mapping[str, Any]:
    if isinstance(content, Mapping):
        return content
    raise UserError(
        f"{path} holds {type(content).__name__}, not tensors by name. Save a state_dict: "
        "torch.save(model.state_dict(), 'weights.pth')"
    )


def _json(folder: Path | None, name: str) -> Mapping[str, Any]:
    if folder is None or not (folder / name).exists():
        return {}
    try:
        found = json.loads((folder / name).read_text("utf-8"))
    except (OSError, ValueError, RecursionError) as error:
        raise UserError(f"{folder / name} is damaged ({error}). Download it again.") from None
    return found if isinstance(found, dict) else {}


def _sha256(path: Path) -> str:
    try:
        with path.open("rb") as stream:
            return hashlib.file_digest(stream, "sha256").hexdigest()
    except OSError as error:
        raise UserError(f"cannot read {path}: {error.strerror or error}") from None
