"""`sslbench list`: what is installed, read from metadata and source text; no plugin and no torch is imported."""

from __future__ import annotations

import sys
from typing import TYPE_CHECKING, Annotated

import typer

from ssl_bench.cli.encodings import print_json
from ssl_bench.cli.width import print_folded
from ssl_bench.errors import UserError, unknown_name

if TYPE_CHECKING:
    from ssl_bench.registry.entry_points import Kind, Plugin


def register(app: typer.Typer) -> None:
    """Add the verb."""

    @app.command("list", epilog="Example: sslbench list methods")
    def list_plugins(
        kind: Annotated[
            str | None,
            typer.Argument(metavar="KIND", help="methods, backbones, evaluators or datasets [default: all]"),
        ] = None,
        check: Annotated[
            bool,
            typer.Option(
                "--check",
                help="import every plugin, third-party ones in processes of their own; exit status 1 if any is broken",
            ),
        ] = False,
        seconds: Annotated[float, typer.Option(help="with --check: an import that takes longer hangs")] = 60.0,
        as_json: Annotated[bool, typer.Option("--json", help="print one JSON document")] = False,
    ) -> None:
        """List methods, backbones, evaluators and datasets: what each is, its paper, and which package brought it."""
        from ssl_bench import registry

        shown = registry.KINDS if kind is None else (_kind(kind, registry.KINDS),)
        found = [plugin for one in shown for plugin in registry.plugins(one)]
        faults = {plugin: registry.fault(plugin) for plugin in found}
        if check:
            faults |= _tried([plugin for plugin in found if not faults[plugin]], seconds)
        if as_json:
            print_json({"plugins": [_plain(plugin, words) for plugin, words in faults.items()]})
        for one in () if as_json else shown:
            print(f"{one}s")
            lines = _lines({p: words for p, words in faults.items() if p.kind == one})
            print_folded(lines or ["  none installed"], 6)
        broken = [f"{p.kind} {p.name} of {p.origin}" for p, words in faults.items() if words]
        if check and broken:
            print(f"broken: {', '.join(broken)}. Everything else works", file=sys.stderr)
            raise typer.Exit(1)
        if check and not as_json:
            print("every plugin loads")


def _kind(given: str, kinds: tuple[Kind, ...]) -> Kind:
    for kind in kinds:
        if given.lower() in (kind, f"{kind}s"):
            return kind
    raise unknown_name("kind", given, [f"{kind}s" for kind in kinds], "sslbench list")


def _plain(plugin: Plugin, fault: str) -> dict[str, str | None]:
    """A plugin as JSON has it; `broken` is null for one that nothing is known against."""
    summary, paper = plugin.describe()
    return {
        "kind": plugin.kind,
        "name": plugin.name,
        "distribution": plugin.distribution,
        "version": plugin.version,
        "target": plugin.target,
        "summary": summary,
        "paper": paper,
        "broken": fault or None,
    }


def _lines(faults: dict[Plugin, str]) -> list[str]:
    """One line a plugin; what is broken says why in the place of what it is."""
    rows = []
    for plugin, fault in faults.items():
        summary, paper = plugin.describe()
        rows.append((plugin.name, plugin.origin, paper, f"BROKEN: {fault}" if fault else summary))
    widths = [max((len(row[i]) for row in rows), default=0) for i in range(3)]
    return [
        "  " + "  ".join(cell.ljust(width) for cell, width in zip(row, (*widths, 1), strict=True) if width).rstrip()
        for row in rows
    ]


def _tried(plugins: list[Plugin], seconds: float) -> dict[Plugin, str]:
    """Why each cannot be loaded, "" where it can; outsiders' two at a time, each in a process of its own."""
    from concurrent.futures import ThreadPoolExecutor

    from ssl_bench import registry
    from ssl_bench.registry.own_process import why_broken

    outsiders = [plugin for plugin in plugins if plugin.distribution != registry.HOME]
    with ThreadPoolExecutor(2) as pool:
        faults = dict(zip(outsiders, pool.map(lambda plugin: why_broken(plugin, seconds), outsiders), strict=True))
    for plugin in plugins:
        if plugin.distribution == registry.HOME:
            try:
                plugin.load()
                faults[plugin] = ""
            except UserError as error:
                faults[plugin] = str(error)
    return faults
