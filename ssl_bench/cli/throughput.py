"""`sslbench throughput`: parameters, tokens and images per second of networks, as in the thesis's Table 4.1."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from ssl_bench.cli.encodings import print_json
from ssl_bench.cli.options import RESULTS
from ssl_bench.cli.terminal import terminal
from ssl_bench.errors import UserError

if TYPE_CHECKING:
    from ssl_bench.records.record import RunRecord
    from ssl_bench.tables.render import Grid

NETWORKS = ("resnet50", "deit_s16", "deit_s8", "vit_b16", "vit_b8")
"""Of the thesis's Table 4.1: what is measured without --arch."""
SECTIONS = ("backbone", "machine")
HEADER = ("network", "params M", "tokens", "im/s", "spread", "CPU", "why it is left out")


def register(app: typer.Typer) -> None:
    """Add the verb."""

    @app.command(epilog="Example: sslbench throughput --arch deit_s16 --arch resnet50 --batch 128 --image-px 224")
    def throughput(
        arch: Annotated[
            list[str] | None,
            typer.Option(help=f"a backbone (sslbench list), repeatable [default: {' '.join(NETWORKS)}]"),
        ] = None,
        batch: Annotated[int, typer.Option(min=1, help="images per forward pass")] = 128,
        image_px: Annotated[int, typer.Option(min=16, max=512, help="side of the images")] = 224,
        assignments: Annotated[
            list[str] | None,
            typer.Option(
                "--set", metavar="KEY=VALUE", help="backbone.* or machine.*, e.g. backbone.width=2; repeatable"
            ),
        ] = None,
        wait: Annotated[float, typer.Option(min=0, help="seconds to try again while the machine is busy")] = 60.0,
        again: Annotated[bool, typer.Option("--again", help="measure networks that this machine has measured")] = False,
        results: Annotated[Path, typer.Option(metavar="DIR", help="where runs are kept")] = RESULTS,
        as_json: Annotated[bool, typer.Option("--json", help="print one JSON document")] = False,
    ) -> None:
        """Measure the speed of networks alone: forward passes in fp32, without head, data loading or training.

        Rounds are repeated until they agree. A figure that another process disturbed is left out, with the reason, and
        the exit status is 1. Each network becomes a record, which `sslbench table architectures` shows.
        """
        from ssl_bench.runs.plain_names import command_line
        from ssl_bench.runs.throughput import SpeedRequest, measure_throughput
        from ssl_bench.settings import parse_assignments

        values = parse_assignments(assignments or [])
        for name in values:
            if name.partition(".")[0] not in SECTIONS:
                raise UserError(f"{name!r} is no setting of a network's speed: give backbone.* or machine.*")
        found: list[tuple[Path, RunRecord]] = []
        for one in arch or NETWORKS:
            print(f"measuring {one}", file=sys.stderr)
            request = SpeedRequest(one, image_px, batch, tuple(values.items()), wait, again, command_line())
            found.append(measure_throughput(request, results, lambda line: print(f"  {line}", file=sys.stderr)))
        if as_json:
            print_json({"networks": [_plain(*pair) for pair in found]})
        else:
            from ssl_bench.tables.render import Grid

            rows = tuple(_row(record) for _, record in found)
            _print(Grid(HEADER, rows, (False, True, True, True, True, True, False)))
            print("\n".join(f"record  {path}" for path, _ in found))
        if any(record.backbone.inference_images_per_second is None for _, record in found):
            raise typer.Exit(1)


def _row(record: RunRecord) -> tuple[str, ...]:
    network = record.backbone
    rate, spread, share = (
        network.inference_images_per_second,
        network.inference_spread,
        network.inference_cpu_share,
    )
    return (
        network.name,
        f"{network.parameters / 1e6:.1f}",
        "" if network.tokens is None else str(network.tokens),
        "" if rate is None else f"{rate:,.1f}",
        "" if spread is None else f"{spread:.1%}",
        "" if share is None else f"{share:.0%}",
        network.inference_note.removeprefix("left out, "),
    )


def _print(grid: Grid) -> None:
    from ssl_bench.tables.render import markdown_grid

    console = terminal()
    if console is None:
        print(markdown_grid(grid))
        return
    from ssl_bench.tables.terminal import grid_for

    console.print(grid_for(grid, console.width))


def _plain(path: Path, record: RunRecord) -> dict[str, object]:
    return {"record": str(path), "device": record.machine.device, "threads": record.machine.threads,
            "image_px": record.data.image_px, **record.backbone.model_dump(mode="json")}  # fmt: skip
