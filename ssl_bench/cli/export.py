"""`sslbench export`: a run's network, or any checkpoint, as a file that another library loads by its own means."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from ssl_bench.cli.encodings import print_json
from ssl_bench.cli.options import RESULTS
from ssl_bench.system.signals import interrupting_signals


def register(app: typer.Typer) -> None:
    """Add the verb to the command line."""
    app.command(
        "export",
        help="Write a run's network, or any checkpoint, for timm, torchvision, transformers, safetensors or ONNX.",
        epilog="Example: sslbench export dino-deit_s16-shapes-s0-3f9c --to timm",
    )(export)


def export(
    source: Annotated[
        str,
        typer.Argument(
            metavar="RUN|WEIGHTS",
            help="a run's id, the beginning of one, or its folder; or a file of weights or Hugging Face folder",
        ),
    ],
    to: Annotated[str, typer.Option("--to", metavar="TARGET", help="timm, torchvision, hf, safetensors or onnx")],
    out: Annotated[
        Path | None, typer.Option(metavar="FOLDER", help="a folder that does not exist yet [default: ./RUN-TARGET]")
    ] = None,
    network: Annotated[
        str | None, typer.Option("--network", "--key", metavar="NAME", help="which network, e.g. student")
    ] = None,
    image_px: Annotated[
        int | None, typer.Option(min=1, help="side of the images that it is exported for [default: the network's]")
    ] = None,
    arch: Annotated[
        str | None, typer.Option(help="WEIGHTS: the architecture [default: the registered one that fits]")
    ] = None,
    set_: Annotated[
        list[str] | None,
        typer.Option("--set", metavar="KEY=VALUE", help="WEIGHTS: backbone.SETTING of the architecture"),
    ] = None,
    accept_mismatch: Annotated[
        bool, typer.Option("--accept-mismatch", help="WEIGHTS: load although the file says another number of heads")
    ] = False,
    results: Annotated[Path, typer.Option(metavar="DIR", help="where runs are kept")] = RESULTS,
    as_json: Annotated[bool, typer.Option("--json", help="print one JSON document")] = False,
) -> None:
    """Write a folder: weights, preprocessing, README. Features are compared before it is kept."""
    from ssl_bench.errors import UserError
    from ssl_bench.export.exporting import ExportRequest, export
    from ssl_bench.export.readme import sizes
    from ssl_bench.settings import parse_assignments, section_of

    values = parse_assignments(set_ or [])
    others = [name for name in values if not name.startswith("backbone.")]
    if others:
        raise UserError(f"{others[0]!r} is no setting of an export: --set takes backbone.*")
    request = ExportRequest(
        source, to, out, network, arch, section_of(values, "backbone"), image_px, accept_mismatch
    )  # fmt: skip
    with interrupting_signals():  # a stopped export leaves nothing behind
        folder, exported, written = export(
            request, results, say=lambda line: None if as_json else print(f"  ... {line}")
        )
    if as_json:
        print_json({"folder": str(folder), "exported": exported.model_dump(mode="json")})
        return
    for side, share in exported.checked.items():
        print(f"  {side} px: features equal, largest difference {share:.1e} of the largest feature")
    print(f"  {sizes(exported)}")
    print("  " + written.code.replace("\n", "\n  "))
    print(f"written: {', '.join(sorted(str(folder / file.name) for file in folder.iterdir()))}")
