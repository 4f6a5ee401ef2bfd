"""`sslbench list`: what is installed, read from metadata and source text; no plugin and no torch is imported."""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated

import typer

from ssl_bench.errors import UserError, unknown_name

if TYPE_CHECKING:
    from ssl_bench.registry import Kind


def register(app: typer.Typer) -> None:
    """Add the verb."""

    @app.command("list", epilog="Example: sslbench list methods")
    def list_plugins(
        kind: Annotated[
            str | None,
            typer.Argument(metavar="KIND", help="methods, backbones, evaluators or datasets [default: all]"),
        ] = None,
        check: Annotated[
            bool, typer.Option("--check", help="load every plugin and say which cannot be used; exit status 1 if any")
        ] = False,
    ) -> None:
        """List methods, backbones, evaluators and datasets: what each is, its paper, and which package brought it."""
        from ssl_bench import registry

        shown = registry.KINDS if kind is None else (_kind(kind, registry.KINDS),)
        broken = []
        for one in shown:
            typer.echo(f"{one}s")
            typer.echo("\n".join(_lines(one)) or "  none installed")
            if check:
                broken += _broken(one)
        for problem in broken:
            typer.echo(f"warning: {problem}", err=True)
        if broken:
            raise typer.Exit(1)
        if check:
            typer.echo("every plugin loads")


def _kind(given: str, kinds: tuple[Kind, ...]) -> Kind:
    for kind in kinds:
        if given.lower() in (kind, f"{kind}s"):
            return kind
    raise unknown_name("kind", given, [f"{kind}s" for kind in kinds], "sslbench list")


def _lines(kind: Kind) -> list[str]:
    from ssl_bench import registry

    found = list(registry.plugins(kind))
    names = [plugin.name for plugin in found]
    rows = [(plugin.name, plugin.origin, *reversed(plugin.describe())) for plugin in found]
    widths = [max((len(row[i]) for row in rows), default=0) for i in range(3)]
    lines = []
    for name, origin, paper, summary in rows:
        clash = "  CONFLICT: two packages register this name; uninstall one" if names.count(name) > 1 else ""
        cells = (name.ljust(widths[0]), origin.ljust(widths[1]), paper.ljust(widths[2]), summary + clash)
        lines.append("  " + "  ".join(cell for cell, width in zip(cells, (*widths, 1), strict=True) if width).rstrip())
    return lines


def _broken(kind: Kind) -> list[str]:
    from ssl_bench import registry

    problems = []
    for name in registry.names(kind):
        try:
            registry.find(kind, name).load()
        except UserError as error:
            problems.append(str(error))
    return problems
