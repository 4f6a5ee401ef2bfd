"""`sslbench score-davis`: J and F of any system's masks on DAVIS 2017, no model involved."""

from __future__ import annotations

import csv
import io
import sys
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from ssl_bench.cli.encodings import print_json
from ssl_bench.errors import UserError

if TYPE_CHECKING:
    from ssl_bench.evaluators.davis.scores import ObjectScores

NAME_WIDTH = 20


def register(app: typer.Typer) -> None:
    """Add the verb."""

    @app.command(
        "score-davis",
        epilog="Example, in the folder around DAVIS/; the truth itself scores 1: "
        "sslbench score-davis DAVIS/Annotations/480p --davis DAVIS",
    )
    def score_davis(
        masks: Annotated[
            Path, typer.Argument(metavar="MASKS", help="the folder of the masks: MASKS/SEQUENCE/00000.png, indexed")
        ],
        davis: Annotated[
            Path | None, typer.Option(metavar="DIR", help="DAVIS of 2017 [default: the clips of shapes]")
        ] = None,
        subset: Annotated[
            str,
            typer.Option(
                metavar="NAME|FILE", help="a list in ImageSets/2017, or your own (.txt), one sequence per line"
            ),
        ] = "val",
        csv_folder: Annotated[
            Path | None,
            typer.Option(
                "--csv",
                metavar="DIR",
                help="write the two files of the official scorer there, three decimals as it has",
            ),
        ] = None,
        as_json: Annotated[
            bool, typer.Option("--json", help="print one JSON document: every measure in full precision")
        ] = False,
    ) -> None:
        """Score masks of DAVIS 2017, semi-supervised, as the official scorer does.

        J compares regions, F outlines; mean, recall (share of frames above 0.5) and decay (first quarter less last) of
        each object, then their mean over all objects. The first and the last frame of a sequence are left out.
        """
        from ssl_bench.datasets.davis import open_davis
        from ssl_bench.datasets.shapes.layouts import embedded_davis
        from ssl_bench.evaluators.davis.results import score_results
        from ssl_bench.evaluators.davis.scores import MEASURES, mean_measures

        if csv_folder is not None:
            _check_folder(csv_folder)
        if davis is None:
            clips = embedded_davis()
            truth, name = open_davis(clips.path, subset), clips.name
        else:
            truth = open_davis(davis, subset)
            name = truth.name
        try:
            scores = score_results(masks, truth.sequences, say=_progress)
        except UserError as error:
            hint = "" if davis else " (Without --davis DIR, masks are scored on the embedded clips of shapes.)"
            raise UserError(f"{error}{hint}") from None
        finally:
            _progress("")
        means = mean_measures(scores)
        written = [] if csv_folder is None else _write(csv_folder, Path(subset).stem, means, scores)
        if as_json:
            objects = [{"name": one.name, **one.measures()} for one in scores]
            print_json({"data": name, "objects": objects, "mean": means, "written": list(map(str, written))})
            return
        frames = sum(len(sequence) - 2 for sequence in truth.sequences)
        print(
            f"{name}, semi-supervised: {len(scores)} objects in "
            f"{len(truth.sequences)} sequences, {frames:,} frames without the first and last of each; best is 1, "
            "of a decay 0\n"
        )
        print(f"{'':{NAME_WIDTH}}" + "".join(f"{name:>10}" for name in MEASURES))
        for one in scores:
            print(_line(one.name, one.measures()))
        print(_line(f"mean of {len(scores)} objects", means))
        for path in written:
            print(f"written: {path}")


def _line(name: str, measures: Mapping[str, float]) -> str:
    return f"{name:{NAME_WIDTH}}" + "".join(f"{value:10.3f}" for value in measures.values())


def _progress(line: str) -> None:
    """One line of a terminal, written over by the next; nothing where the output is a file."""
    if sys.stderr is not None and sys.stderr.isatty():
        sys.stderr.write(f"\r\x1b[K{line}")
        sys.stderr.flush()


def _check_folder(folder: Path) -> None:
    if folder.suffix == ".csv" or folder.is_file():
        raise UserError(
            f"--csv {folder}: expected a folder, because two files are written, as by the official scorer: "
            f"global_results-SUBSET.csv and per-sequence_results-SUBSET.csv. Give e.g. --csv {folder.parent}"
        )
    try:
        folder.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise UserError(f"cannot make the folder {folder}: {error.strerror}. Choose another with --csv DIR") from None


def _write(folder: Path, subset: str, means: Mapping[str, float], scores: Sequence[ObjectScores]) -> list[Path]:
    """Columns, names and decimals as evaluation_method.py of davis2017-evaluation, byte for byte."""
    from ssl_bench.system.files import write_atomically

    per_sequence = [(one.name, *(_decimals(one.measures()[name]) for name in ("J-Mean", "F-Mean"))) for one in scores]
    written = []
    for name, rows in (
        (f"global_results-{subset}.csv", [tuple(means), tuple(map(_decimals, means.values()))]),
        (f"per-sequence_results-{subset}.csv", [("Sequence", "J-Mean", "F-Mean"), *per_sequence]),
    ):
        write_atomically(folder / name, _csv(rows))
        written.append(folder / name)
    return written


def _csv(rows: Iterable[tuple[str, ...]]) -> bytes:
    text = io.StringIO()
    csv.writer(text, lineterminator="\n").writerows(rows)
    return text.getvalue().encode()


def _decimals(value: float) -> str:
    return f"{value:.3f}"
