"""`sslbench check`: the contract of a plugin, check by check, installed or not yet."""

from __future__ import annotations

import os
import re
import sys
from importlib.machinery import PathFinder
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from ssl_bench.errors import UserError, unknown_name
from ssl_bench.system.hints import command

if TYPE_CHECKING:
    from ssl_bench.registry.entry_points import Kind
    from ssl_bench.testing import CheckResult

WIDTH = 52


def register(app: typer.Typer) -> None:
    """Add the verb."""

    @app.command("check", epilog="Example: sslbench check dino")
    def check(
        name: Annotated[
            str,
            typer.Argument(
                metavar="NAME", help="a plugin (sslbench list); before installing: FILE.py:Class or module:Class"
            ),
        ],
        kind: Annotated[
            str | None,
            typer.Option(help="method, backbone, evaluator, dataset or logger, where a name is in two of them"),
        ] = None,
        data: Annotated[
            Path | None, typer.Option(metavar="PATH", help="the folder of a dataset that is read from disk")
        ] = None,
        set_: Annotated[
            list[str] | None, typer.Option("--set", metavar="NAME=VALUE", help="a setting of the plugin's Config")
        ] = None,
    ) -> None:
        """Check a plugin against its contract: what holds, what fails and how to fix it; exit status 1 if any does."""
        from ssl_bench.settings import parse_assignments, parse_settings

        asked = _kind(kind)
        found, plugin, origin = _find(name, asked)
        settings = {key.rpartition(".")[2]: value for key, value in parse_assignments(set_ or []).items()}
        if found == "dataset" and plugin.layout and data is None:
            raise UserError(f"{name} is read from a folder: add --data PATH. Expected {plugin.layout}")
        if data is not None and found != "dataset":
            raise UserError(f"--data is for datasets; {name} is a {found} and is checked on pictures made here")
        if settings or any(field.is_required() for field in plugin.Config.model_fields.values()):
            parse_settings(plugin.Config, settings, found, name)
        print(f"sslbench check {name}  ({found} {plugin.__name__}, {origin})")
        import torch

        from ssl_bench.testing import run_checks

        torch.set_num_threads(1)  # the checks' networks are tiny: more threads only wait for each other

        results = run_checks(found, plugin, settings=settings, path=data, report=_show)
        again = [name, *([] if kind is None else ["--kind", found]), *([] if data is None else ["--data", str(data)])]
        again += [word for text in set_ or [] for word in ("--set", text)]
        print(_summary(results, command("check", *again)))
        if any(result.outcome == "failed" for result in results):
            raise typer.Exit(1)


def _kind(given: str | None) -> Kind | None:
    from ssl_bench.registry.entry_points import KINDS

    if given is None:
        return None
    for kind in KINDS:
        if given.lower() in (kind, f"{kind}s"):
            return kind
    raise unknown_name("kind", given, KINDS, "sslbench check --help")


def _find(name: str, kind: Kind | None) -> tuple[Kind, Any, str]:
    """(kind, class, where it comes from) of a registered name, else of a class in a module that can be imported."""
    from ssl_bench import registry
    from ssl_bench.registry.third_party import IMPORT_SECONDS

    kinds = [kind] if kind else list(registry.KINDS)
    for one in dict.fromkeys((name, name.replace("-", "_"))):  # a package's name for its plugin's
        having = [k for k in kinds if one in registry.names(k)]
        if len(having) > 1:
            flags = " or ".join(f"--kind {k}" for k in having)
            raise UserError(f"{one!r} is the name of a {' and of a '.join(having)}: add {flags}")
        if having:
            registered = registry.find(having[0], one)
            return having[0], registered.load(IMPORT_SECONDS), registered.origin
    module, _, attribute = name.partition(":")
    if module.endswith(".py"):
        module = _beside(Path(module))
    elif ":" not in name and "." in name and not _exists(name):
        module, _, attribute = name.rpartition(".")
    if not re.fullmatch(r"[^\W\d]\w*(\.[^\W\d]\w*)*", module) or not _exists(module):
        known = [n for k in kinds for n in registry.names(k)]
        raise unknown_name(
            kind or "plugin", name, known, "sslbench list; before installing: FILE.py, or module:Class from its folder"
        )
    found, plugin = _of_module(module, attribute, kind)
    return found, plugin, f"not installed, {sys.modules[plugin.__module__].__file__}"


def _beside(file: Path) -> str:
    """The name of a module file, importable from here on, with what lies beside it."""
    if not file.is_file():
        raise UserError(f"{file} is not there: give the path of the plugin's file, e.g. my-plugin/my_plugin.py")
    if not file.stem.isidentifier():
        raise UserError(f"{file.name} cannot be imported: rename it to letters, digits and '_', e.g. my_plugin.py")
    sys.path.append(str(file.resolve().parent))  # at the end: what lies there must not stand for torch or numpy
    spec = PathFinder.find_spec(file.stem)
    if file.stem in sys.stdlib_module_names or spec is None or not spec.origin or not file.samefile(spec.origin):
        raise UserError(f"{file.name} has the name of an installed module, so that it cannot be imported: rename it")
    sys.modules.pop(file.stem, None)
    return file.stem


def _exists(module: str) -> bool:
    """Whether a module can be found, the current folder included."""
    from importlib.util import find_spec

    folder = os.getcwd()
    if folder not in sys.path:
        sys.path.append(folder)  # at the end, so that a torch.py there does not hide torch
    try:
        return find_spec(module) is not None
    except (ImportError, ValueError, AttributeError):
        return False


def _of_module(module: str, attribute: str, kind: Kind | None) -> tuple[Kind, type]:
    """The class `attribute` of a module, or its one plugin class where no attribute is given."""
    from importlib import import_module

    from ssl_bench.registry.third_party import IMPORT_SECONDS, foreign_code
    from ssl_bench.testing import kind_of

    with foreign_code(f"{module} cannot be imported", seconds=IMPORT_SECONDS):
        loaded = import_module(module)
    classes: dict[str, tuple[Kind, type]] = {}
    for name, value in vars(loaded).items():
        if isinstance(value, type) and (name == attribute or value.__module__ == module):
            try:
                classes[name] = (kind_of(value), value)
            except UserError:
                if name == attribute:
                    raise
    fitting = {name: one for name, one in classes.items() if kind in (None, one[0])}
    if attribute:
        if attribute not in fitting:
            raise unknown_name(f"class of {module}", attribute, fitting, "a subclass of Method, Backbone, ...")
        return fitting[attribute]
    if len(fitting) != 1:
        names = ", ".join(f"{module}:{name}" for name in fitting)
        raise UserError(
            f"{module} has {len(fitting)} plugin classes"
            + (f": say which, {names}" if fitting else ", subclasses of ssl_bench's Method, Backbone, ...")
        )
    return next(iter(fitting.values()))


def _show(result: CheckResult) -> None:
    import shutil
    import textwrap

    word = {"failed": "FAILED", "expected failure": "expected"}.get(result.outcome, result.outcome)
    indent = " " * (WIDTH + 12)
    width = max(50, shutil.get_terminal_size((140, 24)).columns - len(indent))
    newline = f"\n{indent}"
    lines = textwrap.wrap(result.message, width, break_long_words=False)
    print(f"  {result.name:{WIDTH}}{word:10}{newline.join(lines)}".rstrip())


def _summary(results: list[CheckResult], again: str) -> str:
    counts = {outcome: sum(one.outcome == outcome for one in results) for outcome in ("ok", "failed")}
    others = len(results) - sum(counts.values())
    words = f"{counts['ok']} hold, {counts['failed']} fail" + (f", {others} skipped or expected" if others else "")
    return words + (f"\nfix one and run again: {again}" if counts["failed"] else "")
