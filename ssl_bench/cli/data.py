"""`sslbench data`: what is in a dataset, and a sheet of its images and of the views that methods make of them."""

from __future__ import annotations

import dataclasses
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from ssl_bench.cli.encodings import print_json
from ssl_bench.cli.terminal import terminal
from ssl_bench.errors import UserError

if TYPE_CHECKING:
    from ssl_bench.dataset import Dataset
    from ssl_bench.inspection.facts import DataFacts, Duplicates, Range, SplitFacts

SAMPLES = 24
"""Images on a sheet."""
VIEWED = 3
"""Of them, those whose views are shown for every method."""
NAME_WIDTH = 10
"""Of what stands before a fact."""

Fact = tuple[str, str]
"""A name, "" where it continues the line above, and the words."""


def register(app: typer.Typer) -> None:
    """Add the verb to the command line."""
    app.command(
        "data",
        help="Show what is in a dataset: splits, classes, sizes, duplicates, and a sheet of images and views.",
        epilog="Example: sslbench data ~/photos --eval-data ~/labeled --method dino",
    )(data)


def data(
    data: Annotated[str, typer.Argument(metavar="NAME|PATH", help="a dataset as --data of `sslbench run` takes it")],
    eval_data: Annotated[
        list[str] | None,
        typer.Option(metavar="NAME|PATH", help="a set to evaluate on: also looked for among the training images"),
    ] = None,
    method: Annotated[
        str | None, typer.Option(metavar="NAME,NAME", help="methods whose views the sheet shows [default: all]")
    ] = None,
    arch: Annotated[
        str | None, typer.Option(help="backbone for which the views are made [default: one that each method takes]")
    ] = None,
    set_: Annotated[
        list[str] | None, typer.Option("--set", metavar="KEY=VALUE", help="data.* of the set, method.* of the views")
    ] = None,
    out: Annotated[
        Path | None, typer.Option(metavar="FILE", help="where the sheet goes [default: NAME-sheet.png here]")
    ] = None,
    images: Annotated[
        int, typer.Option(min=1, metavar="N", help="images of each split that are read, evenly chosen")
    ] = 20_000,
    no_sheet: Annotated[bool, typer.Option("--no-sheet", help="no picture, only the facts")] = False,
    as_json: Annotated[bool, typer.Option("--json", help="print one JSON document; the rest goes to stderr")] = False,
) -> None:
    """Read every image once, say what is there and what to look at before training on it, and draw a sheet."""
    from ssl_bench.inspection.facts import between, examine
    from ssl_bench.settings import parse_assignments

    if out is not None and out.suffix.lower() not in (".png", ".jpg", ".jpeg"):
        raise UserError(f"--out {out} is the sheet's file: give a name that ends with .png")
    values = parse_assignments(set_ or [])
    if masks := _mask_set(data):
        print_json({"data": [], "masks": masks}) if as_json else print(masks)
        return
    methods = [] if no_sheet else _methods(method)
    training, plugin = _open(data, values)
    facts, looked = examine(training, plugin, images)
    every, copies = [facts], list(facts.duplicates)
    for text in eval_data or []:
        evaluated, name = _open(text, {})
        other, seen = examine(evaluated, name, images)
        every.append(other)
        copies += other.duplicates
        bank = "pretraining" if "pretraining" in looked else "train"
        for split in evaluated.splits:
            where = f"{split} of {evaluated.name} in {bank} of {training.name}"
            found = between(where, (evaluated.splits[split], seen[split]), (training.pretraining, looked[bank]))
            copies += [found] if found.images else []
    sheet, left_out = (None, {}) if no_sheet else _sheet(training, data, values, methods, arch, out)
    if as_json:
        plain: list[Any] = [dataclasses.asdict(one) for one in every]
        print_json({"data": plain, "duplicates": [dataclasses.asdict(one) for one in copies],
                    "sheet": None if sheet is None else str(sheet), "without_views": left_out})  # fmt: skip
        return
    for one in every:
        _print(one, _described(one))
    everything = all(one.complete for one in looked.values())
    none = f"none: no two of {'these images' if everything else 'the images looked at'} are the same pixel by pixel"
    found_copies = [("duplicates", _copies(one)) for one in copies] or [("duplicates", none)]
    _print(None, found_copies + [("no views", f"of {name}: {reason}") for name, reason in left_out.items()])
    if sheet is not None:
        names = ", ".join(name for name in methods if name not in left_out) or "no method"
        print(f"written: {sheet} (samples, and the views of {names}; do the crops still show the subject?)")


def _open(text: str, values: dict[str, Any]) -> tuple[Dataset, str]:
    """The dataset and the name of its plugin."""
    from ssl_bench.datasets.opening import find_dataset, open_found
    from ssl_bench.recipes.evaluation_data import dataset_loaders
    from ssl_bench.settings import section_of

    found = find_dataset(text, dataset_loaders())
    return open_found(found, section_of(values, "data")), found.plugin


def _mask_set(text: str) -> str:
    """What a folder of VOC or DAVIS holds, and which option takes it; "" for any other dataset."""
    from ssl_bench.datasets.davis import open_davis
    from ssl_bench.datasets.voc import MaskKind, open_voc
    from ssl_bench.system.hints import command

    path = Path(text).expanduser()
    if not path.is_dir() or not any((path / place / "JPEGImages").is_dir() for place in _places(path)):
        return ""
    kinds: tuple[MaskKind, ...] = ("object", "class")
    for masks in kinds:
        try:
            voc = open_voc(path, masks=masks)
        except UserError:
            continue
        what = f"VOC with {masks} masks: {len(voc):,} images of the list {voc.list_name}, to evaluate attention maps on"
        more = () if masks == "object" else ("--set", "evaluators.voc-jaccard.masks=class")
        return f"{text}: {what}. It goes with --voc: {command('eval', 'RUN', '--voc', text, *more)}"
    try:
        davis = open_davis(path)
    except UserError:
        return ""
    frames = sum(len(one) for one in davis.sequences)
    what = f"DAVIS: {len(davis.sequences):,} sequences of val, {frames:,} frames, to evaluate mask propagation on"
    return f"{text}: {what}. It goes with --davis: {command('eval', 'RUN', '--davis', text)}"


def _places(path: Path) -> Sequence[str]:
    """The folder itself and those up to two levels below it."""
    inner = [entry.name for entry in path.iterdir() if entry.is_dir()][:20]
    deeper = [f"{name}/{entry.name}" for name in inner for entry in (path / name).iterdir() if entry.is_dir()]
    return ["", *inner, *deeper[:50]]


def _methods(given: str | None) -> list[str]:
    """The methods that are meant, by default all; raises `UserError` for an unknown one."""
    from ssl_bench import registry

    if given is None:
        return list(registry.names("method"))
    names = [name.strip() for name in given.split(",") if name.strip()]
    for name in names:
        registry.find("method", name)
    return names


def _sheet(
    training: Dataset, text: str, values: dict[str, Any], methods: Sequence[str], arch: str | None, out: Path | None
) -> tuple[Path, dict[str, str]]:
    """Where the sheet was written, and why the views of a method are not on it."""
    from ssl_bench.inspection.sheet import samples_of, sheet
    from ssl_bench.inspection.views_of_methods import method_views

    split = training.pretraining
    indices = samples_of(training, SAMPLES)
    made, left_out = [], {}
    fitting = {"training.batch_size": min(64, len(split))}
    for name in methods:
        print(f"  ... views of {name}", file=sys.stderr)
        try:
            made.append(method_views(name, text, fitting | values, indices[:VIEWED], arch))
        except UserError as error:
            left_out[name] = str(error)
    samples = []
    for index in indices:
        label = "" if split.labels is None else training.classes[split.labels[index]]
        image = split.image(index)
        samples.append((image, f"{label} {image.width}x{image.height}".strip()))
    place = out or Path(f"{training.name}-sheet.png")
    title = f"{training.name}: {len(split):,} training images, networks get {training.image_px} px"
    try:
        sheet(title, samples, made).save(place)
    except OSError as error:
        raise UserError(f"cannot write the sheet {place}: {error.strerror or error}. Give --out FILE") from None
    return place, left_out


def _print(facts: DataFacts | None, lines: Sequence[Fact]) -> None:
    """The name of a dataset and its lines; on a terminal, what is too long folds beside its name."""
    if facts is not None:
        made, place = ", synthetic" if facts.synthetic else "", f", {facts.path}" if facts.path else ""
        print(f"{facts.name}  read as {facts.plugin}{made}{place}")
    console = terminal()
    if console is None:
        print("\n".join(f"  {name:<{NAME_WIDTH}} {words}" for name, words in lines))
        return
    from rich.table import Table
    from rich.text import Text

    grid = Table.grid(padding=(0, 1))
    for _ in range(3):
        grid.add_column()
    for name, words in lines:
        grid.add_row(" ", Text(f"{name:<{NAME_WIDTH}}"), Text(words))
    console.print(grid)


def _described(facts: DataFacts) -> list[Fact]:
    lines = [line for name, split in facts.splits.items() for line in _split_lines(name, split, facts.classes)]
    lines.append(("networks", f"get images of {facts.image_px} x {facts.image_px} px"))
    lines.append(("content", f"fingerprint {facts.fingerprint[:12]}"))
    lines += [("note", note) for note in facts.notes]
    return lines + [("warning", warning) for warning in facts.warnings]


def _split_lines(name: str, split: SplitFacts, classes: int) -> list[Fact]:
    images = f"{split.images:,} image{'s' * (split.images != 1)}"
    words = f"{images}, without labels"
    if split.images_a_class is not None:
        words = f"{images} of {len(split.class_counts):,} class{'es' * (len(split.class_counts) != 1)}"
        words += f" (of {classes:,})" if len(split.class_counts) < classes else ""
        words += f", {_spread(split.images_a_class)} a class"
    lines = [(name, words)]
    shorter, longer = split.shorter_side_px, split.longer_side_px
    if shorter is not None and longer is not None:
        sides = f"shorter side {_spread(shorter)} px, longer side {_spread(longer)} px"
        if shorter[0] == longer[2]:
            sides = f"all {shorter[0]:g} x {shorter[0]:g} px"
        seen = "" if split.looked_at == split.images else f" of the {split.looked_at:,} images looked at"
        gray = f"{split.gray:,} gray" if split.gray else "none gray"
        kinds = ", ".join(f"{count:,} {ending}" for ending, count in list(split.file_kinds.items())[:5])
        lines.append(("", f"{sides}, {gray}{seen}" + (f"; {kinds}" if kinds else "")))
    return lines


def _spread(values: Range) -> str:
    """E.g. "500", or "20 to 500 (median 480)"."""
    low, middle, high = values
    return f"{low:,g}" if low == high else f"{low:,g} to {high:,g} (median {middle:,g})"


def _copies(found: Duplicates) -> str:
    other = f", {found.other_labels:,} under another label" if found.other_labels else ""
    examples = "; ".join(f"{one} = {copy}" for one, copy in found.examples)
    return f"{found.where}: {found.images:,} of {found.of:,} images, pixel by pixel{other}, e.g. {examples}"
