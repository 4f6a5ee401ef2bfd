"""Names to plugins: entry points, found without importing anything, loaded one at a time when asked for.

The group name carries the API's major version (`ssl_bench.methods.v1`), so that a plugin written for another major
is never loaded. A broken third-party plugin affects only itself, and cannot take the name of an official one.
"""

from __future__ import annotations

import re
import sys
from collections.abc import Iterator
from dataclasses import dataclass
from functools import cache
from importlib.metadata import EntryPoint, distribution, distributions
from pathlib import Path
from traceback import extract_tb
from typing import TYPE_CHECKING, Any, Literal

from ssl_bench.errors import UserError, unknown_name
from ssl_bench.registry.docstrings import describe, why_unreadable
from ssl_bench.registry.extras import install_line, split_extras
from ssl_bench.registry.third_party import IMPORT_SECONDS, BrokenPlugin, foreign_code

if TYPE_CHECKING:
    from ssl_bench.backbone import Backbone
    from ssl_bench.dataset import Dataset
    from ssl_bench.evaluator import Evaluator
    from ssl_bench.logger import Logger
    from ssl_bench.method import Method

API_VERSION = 1
Kind = Literal["method", "backbone", "evaluator", "dataset", "logger"]
KINDS: tuple[Kind, ...] = ("method", "backbone", "evaluator", "dataset", "logger")
HOME = "sslbench"
"""The distribution of this package and of the official plugins."""


@dataclass(frozen=True)
class Plugin:
    """One plugin as the metadata of an installed distribution describe it; nothing is imported."""

    kind: Kind
    name: str
    target: str
    """`module:attribute`."""
    distribution: str
    version: str
    misfit: str = ""
    """Why its entry point cannot be used, e.g. another major version of the API; "" if it can."""
    extras: tuple[str, ...] = ()
    """Extras of its distribution that it needs: `module:Class [extra]` in the entry point."""

    @property
    def origin(self) -> str:
        """Distribution and version, e.g. "sslbench 0.1.0"."""
        return f"{self.distribution} {self.version}"

    def load(self, seconds: float | None = None) -> Any:
        """Import the module and return the class.

        Raises `UserError` where packages of an extra are missing, `BrokenPlugin` for any error in its code and for an
        import that takes longer than `seconds`.
        """
        if lacking := self.lacking():
            raise UserError(f"the {self.kind} {self.name!r} needs packages that are not installed: {lacking}")
        before = f"the {self.kind} {self.name!r} of {self.origin} cannot be loaded from {self.target}"
        from ssl_bench.registry.preflight import why_no_plugin

        contract = _contract(self.kind)  # imports torch before the clock starts
        with foreign_code(before, f"Fix or uninstall {self.distribution}; everything else works.", seconds):
            loaded = EntryPoint(self.name, self.target, group_of(self.kind)).load()
        broken = why_no_plugin(loaded, contract)
        if broken:
            raise BrokenPlugin(
                f"the {self.kind} {self.name!r} of {self.origin} ({self.target}) {broken}"
                + (f" (sslbench check {self.name})" if self.kind != "dataset" else "")
            )
        return loaded

    def lacking(self) -> str:
        """How to install the optional packages that it needs; "" where none is missing."""
        return install_line(self.distribution, self.extras) if self.extras else ""

    def describe(self) -> tuple[str, str]:
        """(first line of the class docstring, paper cited in the module docstring), read as text, not imported."""
        return describe(self.target)


def group_of(kind: Kind) -> str:
    """Entry-point group of a kind, e.g. `ssl_bench.methods.v1`."""
    return f"ssl_bench.{kind}s.v{API_VERSION}"


@cache
def _plugins() -> dict[Kind, dict[str, list[Plugin]]]:
    found: dict[Kind, dict[str, list[Plugin]]] = {kind: {} for kind in KINDS}
    seen: set[str] = set()
    for candidate in distributions():
        try:
            if not any(_kind_of_group(entry.group)[0] for entry in candidate.entry_points):
                continue  # almost every distribution: its other metadata need not be read
            installed = distribution(candidate.name)  # the first of this name on sys.path hides older copies
            name, version, entries = installed.name, installed.version, list(installed.entry_points)
        except Exception:  # unreadable metadata, which pip reports
            continue
        if name in seen:
            continue
        seen.add(name)
        for entry in entries:
            kind, misfit = _kind_of_group(entry.group)
            if kind is not None:
                target, extras = split_extras(entry.value)
                plugin = Plugin(kind, entry.name, target, name, version, misfit, extras)
                found[kind].setdefault(entry.name, []).append(plugin)
    return found


def _kind_of_group(group: str) -> tuple[Kind | None, str]:
    """(kind, why it does not fit this API) of an entry-point group; the kind is None for groups of others."""
    matched = re.fullmatch(r"ssl_bench\.(method|backbone|evaluator|dataset|logger)(s?)\.v(\d+)", group)
    if matched is None:
        return None, ""
    kind: Any = matched[1]
    if group == group_of(kind):
        return kind, ""
    update = f"; update {HOME}" if int(matched[3]) > API_VERSION else "; ask its author for a newer version"
    advice = update if matched[2] else ""
    return kind, f"it is registered for {group}, and this {HOME} reads {group_of(kind)}{advice}"


def refresh() -> None:
    """Forget what was found, e.g. after a package was installed in this process."""
    _plugins.cache_clear()


def blame(error: BaseException) -> str:
    """Which third-party plugin raised it, in words for the user; "" if none did."""
    frames = [(Path(frame.filename), frame.lineno) for frame in extract_tb(error.__traceback__)]
    for plugin in (one for kind in KINDS for one in plugins(kind) if one.distribution != HOME):
        module = plugin.target.partition(":")[0]
        file = getattr(sys.modules.get(module), "__file__", None)
        if file is None:
            continue
        package = "." in module or Path(file).name == "__init__.py"
        of_plugin = [frame for frame in frames if frame[0].is_relative_to(Path(file).parent if package else file)]
        if of_plugin:
            path, line = of_plugin[-1]
            return (
                f"a plugin of {plugin.origin} fails: {type(error).__name__}: {error} ({path.name}, line {line}). "
                "What it breaks of its contract: sslbench check NAME. SSLBENCH_DEBUG=1 shows the traceback"
            )
    return ""


def names(kind: Kind) -> list[str]:
    """All usable names of a kind, sorted; imports nothing."""
    return sorted(name for name, registered in _plugins()[kind].items() if any(not one.misfit for one in registered))


def plugins(kind: Kind) -> Iterator[Plugin]:
    """Every registration of a kind, duplicates and misfits included, sorted by name; imports nothing."""
    for name in sorted(_plugins()[kind]):
        yield from sorted(_plugins()[kind][name], key=lambda plugin: plugin.distribution.lower())


def fault(plugin: Plugin) -> str:
    """Why a plugin cannot be used, as far as metadata and source text show; "" if they show nothing."""
    if plugin.misfit:
        return plugin.misfit
    others = [one for one in _plugins()[plugin.kind][plugin.name] if one != plugin and not one.misfit]
    if plugin.distribution != HOME and others:
        taken = next((one.origin for one in others if one.distribution == HOME), "")
        rename = f"uninstall {plugin.distribution}, or rename its entry point"
        return f"the name is {HOME}'s own: {rename}" if taken else f"{others[0].origin} has this name, too: {rename}"
    module, _, attribute = plugin.target.partition(":")
    if not attribute:
        return f"its entry point names no class: {plugin.target!r} must be module:Class"
    return why_unreadable(module)


def find(kind: Kind, name: str) -> Plugin:
    """The plugin called `name`; an official one comes before a third-party one of the same name.

    Raises `UserError` for an unknown name, a plugin for another version of the API, or two third-party plugins of one
    name.
    """
    everything = _plugins()[kind].get(name, [])
    registered = [one for one in everything if not one.misfit]
    registered = [one for one in registered if one.distribution == HOME] or registered
    if everything and not registered:
        raise BrokenPlugin(f"the {kind} {name!r} of {everything[0].origin} cannot be used: {everything[0].misfit}.")
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
    """The dataset class called `name`. An import that hangs is ended, since opening a folder asks every dataset."""
    loaded: type[Dataset] = find("dataset", name).load(IMPORT_SECONDS)
    return loaded


def logger(name: str) -> type[Logger]:
    """The logger class called `name`."""
    loaded: type[Logger] = find("logger", name).load()
    return loaded


def _contract(kind: Kind) -> type:
    if kind == "logger":
        from ssl_bench.logger import Logger

        return Logger
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
