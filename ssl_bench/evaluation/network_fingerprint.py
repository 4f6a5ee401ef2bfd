"""A digest of all that decides what a network makes of images: weights, structure and code."""

from __future__ import annotations

import functools
import hashlib
import importlib.util
import platform
import sys
import types
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any

import numpy as np
import torch
from pydantic import BaseModel
from torch import Tensor, nn

VERSIONED = ("torch", "torchvision", "timm", "numpy", "PIL", "transformers", "lightly", "onnxruntime")
"""Packages that stand for themselves by their version; of others the source is read."""
DISTRIBUTIONS = {"PIL": "pillow"}
UNREAD = frozenset({"training", "_parameters", "_buffers", "_modules"})


class Undecidable(Exception):
    """Something decides the result that no digest can hold, e.g. a hook, or code without a file."""


def network_fingerprint(network: nn.Module) -> str:
    """sha256 over every parameter and buffer, every module's class and plain attributes, and their code.

    Raises `Undecidable`.
    """
    digest = hashlib.sha256()
    packages = set()
    for name, module in network.named_modules():
        kind = type(module)
        packages.add(kind.__module__.partition(".")[0])
        digest.update(f"\n{name} {kind.__module__}.{kind.__qualname__}".encode())
        for attribute, value in sorted(vars(module).items()):
            if attribute in UNREAD:
                continue
            if attribute.startswith("_") and "hook" in attribute:
                if value:
                    raise Undecidable(f"{name or 'the network'} has hooks")
                continue
            digest.update(f"\n{attribute} {_plain(value, attribute)}".encode())
    for name, tensor in (*network.named_parameters(), *network.named_buffers()):
        digest.update(f"\n{name} ".encode())
        digest.update(_of_tensor(tensor))
    digest.update(code_fingerprint(frozenset(packages)).encode())
    return digest.hexdigest()


@functools.cache
def code_fingerprint(packages: frozenset[str]) -> str:
    """sha256 over versions of libraries and the source of all other `packages`, sslbench's always among them.

    Raises `Undecidable` for code without files, as in a notebook.
    """
    parts = [platform.python_version()]
    for package in sorted(packages | set(VERSIONED[:5]) | {"ssl_bench"}):
        parts.append(f"{package} {_version(package) if package in VERSIONED else _source(package)}")
    return hashlib.sha256("\n".join(parts).encode()).hexdigest()


def _version(package: str) -> str:
    try:
        return version(DISTRIBUTIONS.get(package, package))
    except PackageNotFoundError:
        raise Undecidable(f"{package} has no version") from None


def _source(package: str) -> str:
    """sha256 over all Python files of a package, or of a module that is one file."""
    module = sys.modules.get(package)
    spec = importlib.util.find_spec(package) if module is None else module.__spec__
    places = [Path(place) for place in getattr(spec, "submodule_search_locations", None) or ()]
    files = sorted(file for place in places for file in place.rglob("*.py"))
    if not files and spec is not None and spec.origin and spec.origin.endswith(".py"):
        files = [Path(spec.origin)]
    if not files:
        raise Undecidable(f"the code of {package} lies in no file")
    digest = hashlib.sha256()
    for file in files:
        digest.update(f"\n{file.name} ".encode())
        digest.update(hashlib.sha256(file.read_bytes()).digest())
    return digest.hexdigest()


def _of_tensor(tensor: Tensor) -> bytes:
    plain = tensor.detach().cpu().contiguous()
    digest = hashlib.sha256(f"{tuple(plain.shape)} {plain.dtype} ".encode())
    digest.update(plain.reshape(-1).view(torch.uint8).numpy().data)
    return digest.digest()


def _plain(value: Any, where: str) -> str:
    """A text that is equal for equal values, in any process.

    An object of another kind may have such a text of its own, `stands_for`: all that decides what it computes.
    """
    if value is None or isinstance(value, bool | int | float | complex | str | bytes | np.number):
        return repr(value)
    if isinstance(value, torch.dtype | torch.memory_format | torch.device | torch.Size):
        return str(value)
    if isinstance(value, Tensor):
        return _of_tensor(value).hex()
    if isinstance(value, np.ndarray):
        return _of_tensor(torch.from_numpy(np.ascontiguousarray(value))).hex()
    if isinstance(value, list | tuple):
        return f"[{', '.join(_plain(one, where) for one in value)}]"
    if isinstance(value, set | frozenset):
        return f"{{{', '.join(sorted(_plain(one, where) for one in value))}}}"
    if isinstance(value, dict):
        pairs = sorted((_plain(key, where), _plain(one, where)) for key, one in value.items())
        return f"{{{', '.join(f'{key}: {one}' for key, one in pairs)}}}"
    if isinstance(value, BaseModel):
        return f"{type(value).__qualname__} {value.model_dump_json()}"
    if isinstance(value, functools.partial):
        return f"partial {_plain(value.func, where)} {_plain(value.args, where)} {_plain(value.keywords, where)}"
    if isinstance(stands_for := getattr(value, "stands_for", None), str):
        return f"{type(value).__qualname__} {stands_for}"
    name = getattr(value, "__qualname__", "<")
    if callable(value) and "<" not in name and not isinstance(value, types.MethodType):  # no lambda, no local function
        return f"{value.__module__}.{name}"
    raise Undecidable(f"{where} is a {type(value).__name__}")
