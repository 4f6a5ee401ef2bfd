"""`sslbench new-plugin`: an installable package with a working plugin, its test and a README, to change from there."""

from __future__ import annotations

import keyword
import re
import shlex
import sys
from collections.abc import Iterator
from importlib.resources import files
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from ssl_bench.errors import UserError, unknown_name

if TYPE_CHECKING:
    from importlib.resources.abc import Traversable

    from ssl_bench.registry.entry_points import Kind

NAME = re.compile(r"[a-z]([a-z0-9]|[-_](?=[a-z0-9]))*")
"""A PEP 503 name in lower case that is also an identifier when "-" is written "_"."""
LONGEST_NAME = 50


def register(app: typer.Typer) -> None:
    """Add the verb."""

    @app.command("new-plugin", epilog="Example: sslbench new-plugin dense-dino && pip install -e dense-dino")
    def new_plugin(
        name: Annotated[
            str, typer.Argument(metavar="NAME", help="lower-case letters, digits and '-', e.g. dense-dino")
        ],
        kind: Annotated[str, typer.Option(help="method, backbone, evaluator, dataset or logger")] = "method",
        into: Annotated[Path, typer.Option(metavar="DIR", help="where the package's folder is made")] = Path("."),
    ) -> None:
        """Write an installable package with a complete small plugin of your own to change."""
        chosen = _kind(kind)
        folder, module, written = write_package(name, chosen, into)
        _warn_if_taken(chosen, module)
        print(f"written to {folder}/: " + ", ".join(str(path.relative_to(folder)) for path in written))
        print(f"next    cd {shlex.quote(str(folder))} && sslbench check {module}")
        print(f"        pip install -e . && {_run(chosen, module)}")


def write_package(name: str, kind: Kind, into: Path) -> tuple[Path, str, list[Path]]:
    """Write the package NAME of a plugin into the folder `into`; returns (its folder, its module, its files).

    Raises `UserError` for a name that is no package's or module's, and for a folder that exists.
    """
    module = _module(name)
    project = module.replace("_", "-")
    folder = into / project
    if folder.exists() or folder.is_symlink():
        raise UserError(f"{folder} exists: choose another name, or another place with --into DIR")
    words = {"my_plugin": module, "my-plugin": project, "MyPlugin": _class(module)}
    contents = [(parts, _replaced(source.read_text(encoding="utf-8"), words)) for parts, source in _template(kind)]
    written = []
    try:
        folder.mkdir(parents=True)
        for parts, text in contents:
            path = folder.joinpath(*(_replaced(part, words) for part in parts))
            path.parent.mkdir(exist_ok=True)
            path.write_text(text, encoding="utf-8")
            written.append(path)
    except OSError as error:
        raise UserError(f"cannot write {folder}: {error.strerror}. Choose another place with --into DIR") from error
    return folder, module, written


def _kind(given: str) -> Kind:
    from ssl_bench.registry.entry_points import KINDS

    for kind in KINDS:
        if given.lower() in (kind, f"{kind}s"):
            return kind
    raise unknown_name("kind", given, KINDS, "sslbench new-plugin --help")


def _module(name: str) -> str:
    module = name.replace("-", "_")
    if not NAME.fullmatch(name) or len(name) > LONGEST_NAME:
        nearest = re.sub(r"[^a-z0-9]+", "-", name.lower()).strip("-0123456789")[:LONGEST_NAME].strip("-")
        hint = f" Try {nearest!r}." if NAME.fullmatch(nearest) and nearest != name else ""
        raise UserError(
            f"{name!r} cannot name a package: give lower-case letters, digits and single '-', beginning with a letter, "
            f"at most {LONGEST_NAME}, e.g. dense-dino.{hint}"
        )
    if keyword.iskeyword(module) or keyword.issoftkeyword(module) or module in sys.stdlib_module_names:
        raise UserError(f"{name!r} is a word or a module of Python's own: choose another, e.g. my-{name}")
    if module.startswith("ssl_bench") or module in ("sslbench", "tests", "setup", "conftest"):
        raise UserError(f"{name!r} is taken by sslbench or by Python's tools: choose another, e.g. my-{name}")
    return module


def _class(module: str) -> str:
    return "".join(word[:1].upper() + word[1:] for word in module.split("_"))


def _template(kind: Kind) -> Iterator[tuple[tuple[str, ...], Traversable]]:
    """(path in the package, file) of everything in the template of a kind, sorted.

    The core names no plugin package: the template lies beside sslbench's own plugins, which the registry knows.
    """
    from ssl_bench import registry

    home = next((plugin.target for plugin in registry.plugins("method") if plugin.distribution == registry.HOME), None)
    folder = None if home is None else files(home.partition(".")[0]) / "template" / kind
    if folder is None or not folder.is_dir():
        raise UserError(f"the template of a {kind} is not installed: install sslbench again (pip install sslbench)")
    yield from _walk(folder, ())


def _walk(folder: Traversable, above: tuple[str, ...]) -> Iterator[tuple[tuple[str, ...], Traversable]]:
    for entry in sorted(folder.iterdir(), key=lambda one: one.name):
        if entry.name == "__pycache__" or entry.name.endswith((".pyc", ".egg-info")) or entry.name.startswith("."):
            continue
        if entry.is_dir():
            yield from _walk(entry, (*above, entry.name))
        else:
            yield (*above, entry.name), entry


def _replaced(text: str, words: dict[str, str]) -> str:
    """Every placeholder of one pass replaced, so that a name which holds a placeholder is not replaced again."""
    return re.sub("|".join(map(re.escape, words)), lambda found: words[found.group()], text)


def _warn_if_taken(kind: Kind, module: str) -> None:
    from ssl_bench import registry

    taken = next((plugin for plugin in registry.plugins(kind) if plugin.name == module), None)
    if taken is not None:
        left = "this one cannot be" if taken.distribution == registry.HOME else "neither can be"
        print(
            f"warning: {taken.origin} registers the {kind} {module!r} already. Installed beside it, {left} used: "
            "rename the entry point in pyproject.toml, or begin again with another name.",
            file=sys.stderr,
        )


def _run(kind: Kind, module: str) -> str:
    if kind == "method":
        return f"sslbench run {module} --arch deit_s16"
    if kind == "backbone":
        return f"sslbench run dino --arch {module}"
    if kind == "evaluator":
        return f"sslbench run dino --arch deit_s16 --with knn,{module}"
    if kind == "logger":
        return f"sslbench run dino --arch deit_s16 --log {module}"
    return f"sslbench run dino --arch deit_s16 --data {module}"
