"""`sslbench list weights`: the short names of published weights, and which of them are on this machine."""

from __future__ import annotations

from ssl_bench.cli.encodings import print_json
from ssl_bench.cli.terminal import terminal

OTHER_NAMES = "timm:NAME.TAG, torchvision:WEIGHTS, hf:OWNER/NAME[@REVISION], https://ADDRESS"
USES = "sslbench inspect NAME, eval NAME, run METHOD --arch ARCH --init NAME"


def list_weights(*, as_json: bool) -> None:
    """Print the catalog, on a terminal as a table."""
    from ssl_bench.weights.named.catalog import catalog
    from ssl_bench.weights.named.files import on_this_machine, own_folder

    rows = [(row, on_this_machine(row.file_name)) for row in catalog().values()]
    if as_json:
        described = [{**row.model_dump(mode="json"), "path": str(path) if path else None} for row, path in rows]
        print_json({"weights": described})
        return
    lines = [(row.name, row.arch, "here" if path else "", row.source) for row, path in rows]
    console = terminal()
    if console is None:
        print("weights")
        widths = [max(len(line[i]) for line in lines) for i in range(3)]
        for line in lines:
            cells = (cell.ljust(width) for cell, width in zip(line, (*widths, 1), strict=True) if width)
            print("  " + "  ".join(cells).rstrip())
    else:
        from rich.table import Table
        from rich.text import Text

        console.print(Text("weights", style="bold cyan"))
        table = Table.grid(padding=(0, 2, 0, 0))
        table.add_column(no_wrap=True)
        table.add_column(no_wrap=True)
        table.add_column(no_wrap=True)
        table.add_column(overflow="ellipsis", no_wrap=True)
        for name, arch, here, source in lines:
            table.add_row(Text(f"  {name}", style="bold"), arch, here, Text(source, style="dim"))
        console.print(table)
    print(f"use: {USES}")
    print(f"other names: {OTHER_NAMES}")
    print(f"files put by hand into {own_folder()} are found; --json shows addresses and checksums")
