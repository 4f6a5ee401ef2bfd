"""Names to plugins: entry points, found without importing anything, loaded one at a time when asked for.

The group name carries the API's major version (`ssl_bench.methods.v1`), so that a plugin written for another major
is not seen as a broken one of this.
"""

from __future__ import annotations

import ast
import importlib.machinery
import re
import sys
import warnings
from collections.abc import Iterator
from dataclasses import dataclass
from functools import cache
from importlib.metadata import EntryPoint, distributions
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

from ssl_bench.errors import UserError, unknown_name

if TYPE_CHECKING:
    from ssl_bench.backbone import Backbone
    from ssl_bench.dataset import Dataset
    from ssl_bench.evaluator import Evaluator
    from ssl_bench.method import Method

API_VERSION = 1
Kind = Literal["method", "backbone", "evaluator", "dataset"]
KINDS: tuple[Kind, ...] = ("method", "backbone", "evaluator", "dataset")


class BrokenPlugin(UserError):
    """A plugin is registered but cannot be used; the message names its distribution and the reason."""


@dataclass(frozen=True)
class Plugin:
    """What the metadata of an installed distribution says of one plugin; nothing has been imported for it."""

    kind: Kind
    name: str
    target: str
    """`module:attribute`."""
    distribution: str
    version: str

    @property
    def origin(self) -> str:
        """Distribution and version, e.g. "sslbench 0.1.0"."""
        return f"{self.distribution} {self.version}"

    def load(self) -> Any:
        """Import the module and return the class. Raises `BrokenPlugin` whatever goes wrong in there."""
        try:
            loaded = EntryPoint(self.name, self.target, group_of(self.kind)).load()
        except Exception as error:  # an outsider's code may raise anything while it is imported
            raise BrokenPlugin(
                f"the {self.kind} {self.name!r} of {self.origin} cannot be loaded from {self.target}: "
                f"{type(error).__name__}: {error}. Mend or uninstall {self.distribution}; everything else works."
            ) from error
        if not isinstance(loaded, type) or not issubclass(loaded, _contract(self.kind)):
            raise BrokenPlugin(
                f"the {self.kind} {self.name!r} of {self.origin} is not a {_contract(self.kind).__name__}: "
                f"{self.target} is {loaded!r}; it must be a subclass of {_contract(self.kind).__module__}."
                f"{_contract(self.kind).__name__}"
            )
        if not isinstance(getattr(loaded, "Config", None), type):
            raise BrokenPlugin(
                f"the {self.kind} {self.name!r} of {self.origin} has no Config: add a class attribute Config, "
                "a subclass of ssl_bench.settings.Settings (empty if there is nothing to set)"
            )
        return loaded

    def describe(self) -> tuple[str, str]:
        """(first line of the class docstring, paper cited in the module docstring), read as text, not imported."""
        module_name, _, attribute = self.target.partition(":")
        path = _source_path(module_name)
        if path is None:
            return "", ""
        try:
            tree = ast.parse(path.read_text(encoding="utf-8"))
        except (OSError, SyntaxError, ValueError):
            return "", ""
        words = ast.get_docstring(tree) or ""
        paper = re.search(r"arXiv[: ]*(\d{4}\.\d{4,5})", words)
        summary = words.partition("\n")[0]
        for node in tree.body:
            if isinstance(node, ast.ClassDef) and node.name == attribute:
                summary = (ast.get_docstring(node) or summary).partition("\n")[0]
                paper = re.search(r"arXiv[: ]*(\d{4}\.\d{4,5})", ast.get_docstring(node) or "") or paper
        return summary, f"arXiv {paper.group(1)}" if paper else ""


def group_of(kind: Kind) -> str:
    """Entry-point group of a kind, e.g. `ssl_bench.methods.v1`."""
    return f"ssl_bench.{kind}s.v{API_VERSION}"


@cache
def _plugins() -> dict[Kind, dict[str, list[Plugin]]]:
    found: dict[Kind, dict[str, list[Plugin]]] = {kind: {} for kind in KINDS}
    kinds = {group_of(kind): kind for kind in KINDS}
    seen: set[str] = set()
    for distribution in distributions():
        name = distribution.name
        key = re.sub(r"[-_.]+", "-", name or "").lower()
        if not key or key in seen:  # an older copy of one distribution further down sys.path
            continue
        seen.add(key)
        for entry in distribution.entry_points:
            if entry.group in kinds:
                plugin = Plugin(kinds[entry.group], entry.name, entry.value, name, distribution.version)
                found[plugin.kind].setdefault(entry.name, []).append(plugin)
    return found


def refresh() -> None:
    """Forget what was found, e.g. after a package was installed in this process."""
    _plugins.cache_clear()


def names(kind: Kind) -> list[str]:
    """All registered names of a kind, sorted; imports nothing."""
    return sorted(_plugins()[kind])


def plugins(kind: Kind) -> Iterator[Plugin]:
    """Every registration of a kind, two of one name included, sorted by name; imports nothing."""
    for name in names(kind):
        yield from _plugins()[kind][name]


def find(kind: Kind, name: str) -> Plugin:
    """The plugin called `name`. Raises `UserError` for an unknown name or one that two distributions claim."""
    registered = _plugins()[kind].get(name)
    if not registered:
        raise unknown_name(kind, name, names(kind), "sslbench list")
    if len(registered) > 1:
        origins = " and ".join(f"{plugin.origin} ({plugin.target})" for plugin in registered)
        raise UserError(
            f"two plugins register the {kind} {name!r}: {origins}. Uninstall one, or rename its entry point."
        )
    return registered[0]


def method(name: str) -> type[Method]:
    """The method class called `name`."""
    loaded: type[Method] = find("method", name).load()
    return loaded


def backbone(name: str) -> type[Backbone]:
    """The backbone class called `name`."""
    loaded: type[Backbone] = find("backbone", name).load()
    return loaded


def evaluator(name: str) -> type[Evaluator]:
    """The evaluator class called `name`."""
    loaded: type[Evaluator] = find("evaluator", name).load()
    return loaded


def dataset(name: str) -> type[Dataset]:
    """The dataset class called `name`."""
    loaded: type[Dataset] = find("dataset", name).load()
    return loaded


def usable(kind: Kind) -> dict[str, Any]:
    """Name to class for every plugin of a kind that can be loaded; a warning names each that cannot."""
    loaded = {}
    for name in names(kind):
        try:
            loaded[name] = find(kind, name).load()
        except UserError as error:
            warnings.warn(str(error), stacklevel=2)
    return loaded


def _contract(kind: Kind) -> type:
    if kind == "method":
        from ssl_bench.method import Method

        return Method
    if kind == "backbone":
        from ssl_bench.backbone import Backbone

        return Backbone
    if kind == "evaluator":
        from ssl_bench.evaluator import Evaluator

        return Evaluator
    from ssl_bench.dataset import Dataset

    return Dataset


def _source_path(module_name: str) -> Path | None:
    """Where a module's source lies, found as the import system would but importing no parent package."""
    search: list[str] | None = None
    parts = module_name.split(".")
    for depth in range(len(parts)):
        name = ".".join(parts[: depth + 1])
        spec: importlib.machinery.ModuleSpec | None = None
        for finder in sys.meta_path:
            try:
                spec = finder.find_spec(name, search)
            except Exception:  # an editable-install finder of an outsider
                spec = None
            if spec is not None:
                break
        if spec is None:
            return None
        search = list(spec.submodule_search_locations) if spec.submodule_search_locations is not None else None
        if depth == len(parts) - 1:
            return Path(spec.origin) if spec.origin and spec.origin.endswith(".py") else None
        if search is None:
            return None
    return None
