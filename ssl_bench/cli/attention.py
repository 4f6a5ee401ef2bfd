"""`sslbench attention`: what a network attends to in images of one's own, as a picture for each."""

from __future__ import annotations

import io
import os
import sys
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from ssl_bench.cli.network_source import ACCEPT_HELP, ARCH_HELP, AS_HELP, KEY_HELP, SET_HELP, NetworkSource
from ssl_bench.cli.options import RESULTS
from ssl_bench.errors import UserError

if TYPE_CHECKING:
    from ssl_bench.backbone import Backbone

ENDING = "-attention.png"
AT_MOST_PATCHES = 16_384
"""Of one image: time grows with the square of their number."""
TILE_PX = (240, 480)
"""Least and most that the longer side of each picture on a sheet has."""


def register(app: typer.Typer) -> None:
    """Add the verb to the command line."""
    app.command(
        "attention",
        help="Show what a network attends to: a picture of each image with the map of every head.",
        epilog="Example, after `sslbench run dino --arch deit_s16`: sslbench attention cat.jpg --run dino; with "
        "weights of others: sslbench attention cat.jpg --weights dino_deitsmall16_pretrain.pth",
    )(attention)


def attention(
    images: Annotated[list[Path], typer.Argument(metavar="IMAGE...", help="image files, or folders of them")],
    run: Annotated[
        str | None, typer.Option(metavar="RUN", help="a run's id, the beginning of one, or its folder")
    ] = None,
    weights: Annotated[
        Path | None, typer.Option(metavar="WEIGHTS", help="in place of a run: a file, Hugging Face folder or name")
    ] = None,
    arch: Annotated[str | None, typer.Option(help=ARCH_HELP)] = None,
    key: Annotated[str | None, typer.Option(metavar="NAME", help=KEY_HELP)] = None,
    as_: Annotated[str | None, typer.Option("--as", metavar="METHOD", help=AS_HELP)] = None,
    set_: Annotated[list[str] | None, typer.Option("--set", metavar="KEY=VALUE", help=SET_HELP)] = None,
    accept_mismatch: Annotated[bool, typer.Option("--accept-mismatch", help=ACCEPT_HELP)] = False,
    size: Annotated[
        int, typer.Option(min=8, metavar="PX", help="shorter side at which the network sees an image")
    ] = 480,
    keep_mass: Annotated[
        float, typer.Option(metavar="SHARE", help="share of a head's attention that its mask holds")
    ] = 0.6,
    out: Annotated[
        Path | None,
        typer.Option(metavar="FILE|DIR", help=f"a .png for one image, or a folder [default: NAME{ENDING} here]"),
    ] = None,
    untrained: Annotated[bool, typer.Option("--untrained", help="the same network before its first step")] = False,
    results: Annotated[Path, typer.Option(metavar="DIR", help="where runs are kept")] = RESULTS,
) -> None:
    """Write a picture of each image; what cannot be shown is named, the rest is done, and the exit status is 2."""
    if not 0 < keep_mass < 1:
        raise UserError(f"--keep-mass {keep_mass:g} is not a share between 0 and 1, e.g. 0.6 for 60 % of the attention")
    files, problems = _files(images)
    if out is not None and out.suffix.lower() == ".png" and len(files) > 1:
        raise UserError(f"--out {out} is one file for {len(files)} images. Give a folder.")
    source = NetworkSource(run, weights, arch, key, as_, tuple(set_ or ()), accept_mismatch)
    backbone, words = _network(source, results, untrained)
    for file, place in zip(files, _places(files, out), strict=True):
        try:
            _show(file, place, backbone, f"{file.name}: {words}", size, keep_mass)
            print(f"written: {place}")
        except UserError as error:
            problems.append(str(error))
    for problem in problems:
        print(f"error: {problem}", file=sys.stderr)
    if problems:
        raise typer.Exit(2)


def _files(given: Sequence[Path]) -> tuple[list[Path], list[str]]:
    """The files that are meant, a folder's own pictures of attention left out; and what is wrong with the others."""
    from ssl_bench.datasets.listing import list_images
    from ssl_bench.datasets.reading import shown

    files: list[Path] = []
    problems: list[str] = []
    for path in (Path(os.path.expanduser(path)) for path in given):
        if not path.is_dir():
            files.append(path)
            continue
        try:
            found = [path / file.name for file in list_images(path) if not file.name.endswith(ENDING)]
        except UserError as error:
            problems.append(str(error))
            continue
        files += found
        problems += [] if found else [f"{shown(path)}/ holds no image"]
    return list(dict.fromkeys(files)), problems


def _network(source: NetworkSource, results: Path, untrained: bool) -> tuple[Backbone, str]:
    """The network, and what a picture says of it. Raises `UserError` for one without attention."""
    from ssl_bench.registry.capabilities import why_missing
    from ssl_bench.runs.machine import choose_device

    backbone, arch, state = _of_weights(source, untrained) if source.weights else _of_run(source, results, untrained)
    if "attention" not in backbone.supports:
        raise UserError(
            f"{arch} has no attention to show{why_missing(backbone, ['attention'])}. "
            f"Choose {'weights' if source.weights else 'a run'} of a ViT, e.g. of deit_s16."
        )
    return backbone.to(choose_device("auto")), f"{arch}, {state}"


def _of_run(source: NetworkSource, results: Path, untrained: bool) -> tuple[Backbone, str, str]:
    from ssl_bench.runs.folder import find_run
    from ssl_bench.runs.networks import finished_record, trained_backbone, untrained_backbone

    folder = find_run(source.run_name(), results)
    untrained = untrained or finished_record(folder).steps == 0
    backbone, record = untrained_backbone(folder) if untrained else trained_backbone(folder)
    before = f"before training (pretrained {record.backbone.pretrained})" if record.backbone.pretrained else "untrained"
    state = before if untrained else f"{record.method} trained on {record.data.name}"
    return backbone, record.backbone.name, state


def _of_weights(source: NetworkSource, untrained: bool) -> tuple[Backbone, str, str]:
    from ssl_bench.runs.weights_network import untrained_network

    loaded = source.load()
    if untrained:
        return untrained_network(loaded), loaded.arch, "untrained"
    return loaded.backbone, loaded.arch, f"{loaded.recognized.stored.path.name} ({loaded.candidate.name})"


def _places(files: Sequence[Path], out: Path | None) -> Iterator[Path]:
    """Where each picture goes; files of one name get a number."""
    if out is not None and out.suffix.lower() == ".png":
        yield out
        return
    taken: dict[str, int] = {}
    for file in files:
        count = taken[file.stem] = taken.get(file.stem, 0) + 1
        yield (out or Path()) / f"{file.stem}{f'-{count}' if count > 1 else ''}{ENDING}"


def _show(file: Path, place: Path, backbone: Backbone, title: str, size_px: int, keep_mass: float) -> None:
    from ssl_bench.datasets.reading import read_image, shown
    from ssl_bench.evaluation.attention_maps import attention_maps, seen_size
    from ssl_bench.evaluators.voc_jaccard.pictures import attention_sheet
    from ssl_bench.system.files import write_atomically

    image = read_image(file)
    patch_px = backbone.patch_px or 1
    if min(image.size) < patch_px:
        raise UserError(
            f"{shown(file)} is {image.width} x {image.height} px, less than one patch of {patch_px} px: "
            "there is nothing to attend to"
        )
    height, width = seen_size(image.size[::-1], size_px, "short-side", patch_px)
    patches = height // patch_px * (width // patch_px)
    if patches > AT_MOST_PATCHES:
        fits = int(size_px * (AT_MOST_PATCHES / patches) ** 0.5)
        raise UserError(
            f"{shown(file)} would be seen at {width} x {height} px, {patches:,} patches of {patch_px} px, and "
            f"{AT_MOST_PATCHES:,} are the most. Give --size {fits} or less, or cut the image."
        )
    maps = attention_maps(backbone, [image], (height, width))[0]
    tile_px = min(max(height, width, TILE_PX[0]), TILE_PX[1])
    title += f", {width} x {height} px, patches of {patch_px} px"
    sheet = attention_sheet(image, maps, keep_mass, title=title, tile_px=tile_px)
    content = io.BytesIO()
    sheet.save(content, format="PNG")
    try:
        place.parent.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise UserError(f"cannot make {place.parent}: {error.strerror}. Choose another place with --out.") from None
    write_atomically(place, content.getvalue())
