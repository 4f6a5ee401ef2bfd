"""`sslbench list`: what is installed, read from metadata and source text; no plugin and no torch is imported."""

from __future__ import annotations

import sys
from typing import TYPE_CHECKING, Annotated, NamedTuple

import typer

from ssl_bench.cli.encodings import print_json
from ssl_bench.cli.terminal import terminal
from ssl_bench.errors import unknown_name

if TYPE_CHECKING:
    from rich.console import Console

    from ssl_bench.registry.entry_points import Kind, Plugin

BROKEN = "BROKEN: "
WEIGHTS = "weights"
WIDE = 70
"""Characters of a terminal from which on papers have a column of their own."""


def register(app: typer.Typer) -> None:
    """Add the verb."""

    @app.command("list", epilog="Example: sslbench list methods")
    def list_plugins(
        kind: Annotated[
            str | None,
            typer.Argument(
                metavar="KIND",
                help="methods, backbones, evaluators, datasets, loggers [default: these]; weights",
            ),
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
        """List methods, backbones, evaluators, datasets and loggers: what each is, its paper, its package."""
        from ssl_bench import registry
        from ssl_bench.cli.list_weights import list_weights
        from ssl_bench.registry.trying import why_broken_each

        if kind is not None and kind.lower() in ("weight", WEIGHTS):
            list_weights(as_json=as_json)
            return
        shown = registry.KINDS if kind is None else (_kind(kind, registry.KINDS),)
        found = [plugin for one in shown for plugin in registry.plugins(one)]
        faults = {plugin: registry.fault(plugin) for plugin in found}
        if check:
            tried = [plugin for plugin in found if not faults[plugin] and not plugin.lacking()]
            faults |= why_broken_each(tried, seconds)
        if as_json:
            print_json({"plugins": [_plain(plugin, words) for plugin, words in faults.items()]})
        console = terminal()
        for one in () if as_json else shown:
            rows = _rows({p: words for p, words in faults.items() if p.kind == one})
            if console is None:
                print(f"{one}s")
                print("\n".join(_lines(rows) or ["  none installed"]))
            else:
                _draw(console, f"{one}s", rows)
        broken = [f"{p.kind} {p.name} of {p.origin}" for p, words in faults.items() if words]
        if check and broken:
            print(f"broken: {', '.join(broken)}. Everything else works", file=sys.stderr)
            raise typer.Exit(1)
        if check and not as_json:
            print("every plugin loads")
        if kind is None and not as_json:
            print(f"{WEIGHTS}\n  published ones by name: sslbench list {WEIGHTS}")


def _kind(given: str, kinds: tuple[Kind, ...]) -> Kind:
    for kind in kinds:
        if given.lower() in (kind, f"{kind}s"):
            return kind
    raise unknown_name("kind", given, [*(f"{kind}s" for kind in kinds), WEIGHTS], "sslbench list")


def _plain(plugin: Plugin, fault: str) -> dict[str, str | None]:
    """A plugin as JSON has it; `broken` is null for one that nothing is known against, `needs` for one that can run."""
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
        "needs": plugin.lacking() or None,
    }


class _Row(NamedTuple):
    name: str
    origin: str
    paper: str
    summary: str
    """What it is, or why it is broken."""


def _rows(faults: dict[Plugin, str]) -> list[_Row]:
    rows = []
    for plugin, fault in faults.items():
        summary, paper = plugin.describe()
        needs = f" (needs {lacking})" if (lacking := plugin.lacking()) else ""
        rows.append(_Row(plugin.name, plugin.origin, paper, f"{BROKEN}{fault}" if fault else summary + needs))
    return rows


def _draw(console: Console, title: str, rows: list[_Row]) -> None:
    """The plugins of a kind on a terminal: name, what it is, paper; and the package of a third-party one."""
    from rich.console import Group
    from rich.table import Table
    from rich.text import Text

    from ssl_bench.registry import HOME

    console.print(Text(title, style="bold cyan"))
    drawn = Table.grid(padding=(0, 2, 0, 0))
    drawn.add_column(no_wrap=True)
    drawn.add_column(overflow="fold")
    for row in rows:
        about = [row.paper] if row.paper else []
        about += [] if row.origin.partition(" ")[0] == HOME else [row.origin]
        name = Text(f"  {row.name}", style="bold")
        summary = Text(row.summary, style="red" if row.summary.startswith(BROKEN) else "")
        rest = Text("\n".join(about), style="dim", no_wrap=True)
        drawn.add_row(*((name, summary, rest) if console.width >= WIDE else (name, Group(summary, rest))))
    console.print(drawn if rows else "  none installed")


def _lines(rows: list[_Row]) -> list[str]:
    """One line a plugin, in columns."""
    widths = [max((len(row[i]) for row in rows), default=0) for i in range(3)]
    return [
        "  " + "  ".join(cell.ljust(width) for cell, width in zip(row, (*widths, 1), strict=True) if width).rstrip()
        for row in rows
    ]
