"""Pretrained weights of timm's networks: from timm's hub by the tag in the name, or from a file of the user's.

`timm:vit_tiny_patch16_224` starts from random weights, `timm:vit_tiny_patch16_224.augreg_in21k` from the weights with
that tag. timm converts what it loads (`checkpoint_filter_fn`), resampling positions to the image size.
"""

from __future__ import annotations

import hashlib
import logging
import pickle
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import timm
import torch

from ssl_bench.errors import UserError, did_you_mean

from .timm_facts import create


def architecture(name: str) -> str:
    """The name without the tag of its weights: random initial weights."""
    return name.partition(".")[0]


def check_name(name: str) -> None:
    """Raises `UserError` for an architecture or a tag that timm does not have, with the nearest that it has."""
    base = architecture(name)
    if not timm.is_model(base):
        known = timm.list_models()
        raise UserError(
            f"timm has no network called {base!r}.{did_you_mean(base, known)} It knows {len(known)}: "
            'python -c "import timm; print(timm.list_models())"'
        )
    if name == base:
        return
    known = [one for one in timm.list_pretrained(f"{base}.*") if architecture(one) == base]
    if name not in known:
        tags = f"It has {', '.join(known)}" if known else "It has none"
        raise UserError(
            f"timm has no pretrained weights called {name!r}.{did_you_mean(name, known)} {tags}; "
            f"--arch timm:{base} starts from random weights"
        )


def load(name: str, file: str | None, image_px: int, drop_path: float) -> tuple[Any, str]:
    """(network with pretrained weights, what they are in words). Raises `UserError` where they cannot be had."""
    if file is None:
        try:
            with _nothing_missing():
                return create(name, image_px, drop_path, pretrained=True), name
        except Exception as error:  # whatever a hub, a network and a cache can raise
            raise UserError(
                f"the pretrained weights of timm:{name} are not on this machine and cannot be downloaded "
                f"({type(error).__name__}: {_first_line(error)}). Give them as a file: --set backbone.weights=FILE "
                f"(.safetensors, .pth or .npz, e.g. from https://huggingface.co/timm/{name}); or start from random "
                f"weights: --arch timm:{architecture(name)}"
            ) from error
    path = Path(file).expanduser()
    digest = _sha256(path)
    # timm's own reader is only asked for .npz, Google's format; other files are read without running code in them
    overlay: dict[str, Any] = {"file": str(path), "custom_load": True}
    if path.suffix != ".npz":
        overlay = {"state_dict": _state_dict(path), "custom_load": False}
    try:
        with _nothing_missing():
            network = create(name, image_px, drop_path, pretrained=True, pretrained_cfg_overlay=overlay)
    except (RuntimeError, ValueError, AssertionError, KeyError, OSError) as error:
        raise UserError(
            f"backbone.weights = {file!r} does not hold weights of timm's {name} ({_first_line(error)}). Give the file "
            f"that belongs to it, e.g. from https://huggingface.co/timm/{name}"
        ) from error
    network.pretrained_cfg = {**network.pretrained_cfg, "state_dict": None}
    return network, f"{name} from {path.name}, sha256 {digest[:12]}"


@contextmanager
def _nothing_missing() -> Iterator[None]:
    """Raises `ValueError` where timm leaves weights random: it only logs which keys a file lacks.

    The hub's warnings of each failed try are muted: what is wrong is said once, in the message.
    """
    found: list[str] = []

    class Kept(logging.Handler):
        def emit(self, record: logging.LogRecord) -> None:
            found.extend([record.getMessage()] if "Missing keys" in record.getMessage() else [])

    logger, handler = logging.getLogger("timm.models._builder"), Kept()
    level, propagate = logger.level, logger.propagate
    hub = logging.getLogger("huggingface_hub")
    hub_level = hub.level
    hub.setLevel(logging.ERROR)
    logger.addHandler(handler)
    logger.setLevel(logging.INFO)
    logger.propagate = False
    try:
        yield
    finally:
        logger.removeHandler(handler)
        logger.setLevel(level)
        hub.setLevel(hub_level)
        logger.propagate = propagate
    if found:
        raise ValueError(found[0].partition(". ")[0][:200])


def _sha256(path: Path) -> str:
    try:
        with path.open("rb") as stream:
            return hashlib.file_digest(stream, "sha256").hexdigest()
    except OSError as error:
        raise UserError(f"backbone.weights: cannot read {path}: {error.strerror}") from None


def _state_dict(path: Path) -> dict[str, Any]:
    """Tensors by name; of a checkpoint, those under "model" or "state_dict"."""
    try:
        if path.suffix == ".safetensors":
            from safetensors.torch import load_file

            found: Any = load_file(path)
        else:
            found = torch.load(path, map_location="cpu", weights_only=True)
    except (pickle.UnpicklingError, RuntimeError, ValueError, EOFError, OSError) as error:
        raise UserError(
            f"backbone.weights: {path} is no file of weights ({_first_line(error)}). Known: .safetensors, .pth, .npz"
        ) from error
    except Exception as error:  # safetensors raises an exception of its own
        raise UserError(f"backbone.weights: {path} is damaged ({_first_line(error)})") from error
    for key in ("model", "state_dict"):
        if isinstance(found, dict) and isinstance(found.get(key), dict):
            found = found[key]
    if not isinstance(found, dict) or not found:
        raise UserError(f"backbone.weights: {path} holds no tensors by name")
    return {name.removeprefix("module."): tensor for name, tensor in found.items()}


def _first_line(error: BaseException) -> str:
    return (str(error).strip().partition("\n")[0] or "no reason given").rstrip(".")
