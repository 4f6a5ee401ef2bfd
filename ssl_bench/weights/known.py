"""What registered architectures are (settings, kind, names and shapes of tensors), kept in the cache folder.

Asking an architecture imports its plugin and the libraries that it builds on, which takes seconds; `sslbench inspect`
asks all of them. What was answered is kept for one version of the plugin's code and of its libraries.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping
from contextlib import suppress
from functools import cache, cached_property
from importlib.metadata import PackageNotFoundError, version
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import torch
from pydantic import BaseModel, ValidationError
from torch import Tensor

from ssl_bench import registry
from ssl_bench.backbone import Backbone
from ssl_bench.errors import UserError
from ssl_bench.registry.blueprint import blueprint
from ssl_bench.settings import parse_settings
from ssl_bench.system.files import cache_folder, write_atomically

LIBRARIES = ("sslbench", "torch", "timm")
"""Whose versions decide shapes, beside the plugin's own."""
MOST_SHAPES = 32
"""Kept of one plugin: at the sizes of the last questions."""

Shapes = dict[str, tuple[int, ...]]


class _Answers(BaseModel):
    """The cache's file of one plugin."""

    settings: tuple[str, ...] = ()
    kind: str | None = None
    shapes: dict[str, Shapes | None] = {}
    """By `_question`; None for what cannot be built."""


class KnownBackbone:
    """A registered architecture, asked through the cache; its plugin is imported only for what is not in it."""

    def __init__(self, plugin: registry.Plugin) -> None:
        self.name = plugin.name
        self._file = cache_folder() / "architectures" / f"{plugin.name}-{_stamp(plugin)}.json"
        self._answers = _read(self._file)
        if self._answers is None:
            kind = self.loaded
            self._answers = _Answers(settings=tuple(kind.Config.model_fields), kind=getattr(kind, "kind", None))
            self._keep()

    @cached_property
    def loaded(self) -> type[Backbone]:
        """The class. Raises `UserError` where its plugin is broken."""
        return registry.backbone(self.name)

    @property
    def settings(self) -> tuple[str, ...]:
        """Names of its settings."""
        return self._known.settings

    @property
    def kind(self) -> str | None:
        """ "vit" or "convnet"; None where that depends on the settings."""
        return self._known.kind

    def shapes(self, settings: Mapping[str, Any], image_px: int) -> Mapping[str, Tensor] | None:
        """Its state dict on the meta device; None for what cannot be built, and for a network without weights."""
        question = json.dumps([settings, image_px], sort_keys=True)
        if question not in self._known.shapes:
            found = self._built(settings, image_px)
            shapes = None if found is None else {name: tuple(tensor.shape) for name, tensor in found.items()}
            self._known.shapes[question] = shapes
            self._keep()
        shapes = self._known.shapes[question]
        return None if shapes is None else {name: torch.empty(shape, device="meta") for name, shape in shapes.items()}

    @property
    def _known(self) -> _Answers:
        assert self._answers is not None
        return self._answers

    def _built(self, settings: Mapping[str, Any], image_px: int) -> Mapping[str, Tensor] | None:
        try:
            config = parse_settings(self.loaded.Config, dict(settings), "backbone", self.name)
        except UserError:
            return None
        network = blueprint(self.loaded, config, image_px)
        return None if network is None else network.state_dict() or None

    def _keep(self) -> None:
        if "name" in self.settings and self._file.exists():
            return  # many networks: those that were asked stay in memory alone
        for oldest in list(self._known.shapes)[:-MOST_SHAPES]:
            del self._known.shapes[oldest]
        with suppress(OSError, UserError):  # a cache that cannot be written is no error
            self._file.parent.mkdir(parents=True, exist_ok=True)
            write_atomically(self._file, self._known.model_dump_json().encode())
            for earlier in self._file.parent.glob(f"{self.name}-*.json"):
                if earlier != self._file and len(earlier.name) == len(self._file.name):
                    earlier.unlink(missing_ok=True)


@cache
def known_backbone(name: str) -> KnownBackbone:
    """The registered architecture called `name`. Raises `UserError` for an unknown or a broken one."""
    return KnownBackbone(registry.find("backbone", name))


def _read(path: Path) -> _Answers | None:
    try:
        return _Answers.model_validate_json(path.read_bytes())
    except (OSError, ValidationError, ValueError):
        return None


def _stamp(plugin: registry.Plugin) -> str:
    """Changes with the plugin, its source files and the libraries whose layers it may use."""
    parts = [plugin.distribution, plugin.version, plugin.target]
    for library in LIBRARIES:
        with suppress(PackageNotFoundError):
            parts.append(f"{library} {version(library)}")
    for path in _sources(plugin.target.partition(":")[0]):
        with suppress(OSError):
            found = path.stat()
            parts.append(f"{path.name} {found.st_size} {found.st_mtime_ns}")
    return hashlib.sha256("\0".join(parts).encode()).hexdigest()[:16]


def _sources(module: str) -> list[Path]:
    """The module's file and those beside it, which it may import."""
    try:
        spec = find_spec(module)
    except (ImportError, ValueError):
        return []
    if spec is None or not spec.origin:
        return []
    return sorted(Path(spec.origin).parent.glob("*.py"))
