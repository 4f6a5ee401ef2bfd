"""`sslbench davis-video`: a network follows the objects of one sequence, shown beside the truth."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from ssl_bench.cli.network_source import ACCEPT_HELP, ARCH_HELP, AS_HELP, KEY_HELP, SECTIONS, NetworkSource
from ssl_bench.cli.options import DAVIS_HELP, RESULTS
from ssl_bench.errors import UserError, unknown_name

if TYPE_CHECKING:
    from ssl_bench.backbone import Backbone
    from ssl_bench.datasets.davis import DavisSequence
    from ssl_bench.evaluators.davis.video_masks import Propagation


def register(app: typer.Typer) -> None:
    """Add the verb."""

    @app.command(
        "davis-video", epilog="Example, after `sslbench run dino --arch deit_s16`: sslbench davis-video dino shapes-00"
    )
    def davis_video(
        words: Annotated[
            list[str],
            typer.Argument(
                metavar="[RUN] SEQUENCE",
                help="a run's id, the beginning of one, or its folder; then a sequence, e.g. shapes-00 or blackswan",
            ),
        ],
        weights: Annotated[
            Path | None, typer.Option(metavar="WEIGHTS", help="in place of a run: a file, Hugging Face folder or name")
        ] = None,
        arch: Annotated[str | None, typer.Option(help=ARCH_HELP)] = None,
        key: Annotated[str | None, typer.Option(metavar="NAME", help=KEY_HELP)] = None,
        as_: Annotated[str | None, typer.Option("--as", metavar="METHOD", help=AS_HELP)] = None,
        accept_mismatch: Annotated[bool, typer.Option("--accept-mismatch", help=ACCEPT_HELP)] = False,
        davis: Annotated[Path | None, typer.Option(metavar="DIR", help=DAVIS_HELP)] = None,
        frames: Annotated[int, typer.Option(help="rows of the strip", min=2)] = 5,
        set_: Annotated[
            list[str] | None,
            typer.Option(
                "--set",
                metavar="KEY=VALUE",
                help="evaluators.davis.* or machine.device; with --weights also backbone.*",
            ),
        ] = None,
        out: Annotated[
            Path | None,
            typer.Option(metavar="DIR", help="where to draw [default: the run's pictures/; here for --weights]"),
        ] = None,
        results: Annotated[Path, typer.Option(metavar="DIR", help="where runs are kept")] = RESULTS,
    ) -> None:
        """Draw what a network makes of one sequence: a strip (image, target, prediction) and an animation.

        Masks of an evaluation of the same network with the same settings are taken as they are; without one, this one
        sequence is propagated. Pictures of a run are written beside its record.
        """
        from functools import partial

        from ssl_bench.evaluation.evaluate import refuse_unsupported
        from ssl_bench.evaluators.davis.evaluator import Davis, DavisConfig, open_clips
        from ssl_bench.evaluators.davis.pictures import write_pictures
        from ssl_bench.evaluators.davis.results import read_result
        from ssl_bench.evaluators.davis.scores import score_sequence
        from ssl_bench.runs.machine import choose_device
        from ssl_bench.settings import parse_settings

        run, sequence = _run_and_sequence(words, weights)
        settings, device, of_network = _settings(set_ or [])
        source = NetworkSource(run, weights, arch, key, as_, tuple(of_network), accept_mismatch)
        if davis is not None:
            settings["path"] = str(davis)
        config = parse_settings(DavisConfig, settings, "evaluators.davis", "davis")
        if weights is None:  # a wrong name is told before clips are looked for
            _folder_of(source, results)
        clips = {one.name: one for one in open_clips(config).sequences}
        if sequence not in clips:
            hint = "the clips of shapes; DAVIS's with --davis DIR" if davis is None else f"of {davis}"
            raise unknown_name("sequence", sequence, clips, hint)
        tracker = _tracker(source, results, out)
        refuse_unsupported(tracker.backbone, tracker.arch, [("davis", Davis(config))])
        chosen, options = clips[sequence], config.propagation()
        tracker.backbone.to(choose_device(device))
        masks = _masks(tracker, chosen, options)
        scores = score_sequence(chosen, partial(read_result, masks, chosen, chosen.objects()))
        for path in write_pictures(tracker.pictures, chosen, masks, scores, by=tracker.name, frames=frames):
            print(f"written: {path}")


@dataclass(frozen=True)
class _Tracker:
    """The network that follows the objects."""

    backbone: Backbone
    arch: str
    name: str
    """What pictures call it."""
    evaluated: Path
    """The folder in which masks of its evaluations may lie."""
    pictures: Path


def _run_and_sequence(words: Sequence[str], weights: Path | None) -> tuple[str | None, str]:
    if weights is not None and len(words) == 1:
        return None, words[0]
    if weights is not None:
        raise UserError(f"with --weights give one sequence, not {' '.join(words)}: the weights are the network")
    if len(words) != 2:
        raise UserError(f"give a run and a sequence, or --weights WEIGHTS and a sequence, not {' '.join(words)!r}")
    return words[0], words[1]


def _folder_of(source: NetworkSource, results: Path) -> Path:
    from ssl_bench.runs.folder import find_run

    return find_run(source.run_name(), results)


def _tracker(source: NetworkSource, results: Path, out: Path | None) -> _Tracker:
    from ssl_bench.runs.networks import trained_backbone

    if source.weights is None:
        folder = _folder_of(source, results)
        backbone, record = trained_backbone(folder)
        return _Tracker(backbone, record.backbone.name, record.run_id, folder, out or folder / "pictures")
    loaded = source.load()
    name = loaded.recognized.stored.path.name
    return _Tracker(
        loaded.backbone, loaded.arch, name, results / "runs", out or Path(f"{name.partition('.')[0]}-davis")
    )


def _settings(texts: Sequence[str]) -> tuple[dict[str, Any], str, list[str]]:
    """Settings of the evaluator without their prefix, the device, and what is left for the network, as typed."""
    from ssl_bench.settings import parse_assignments

    settings, device = {}, "auto"
    of_network = [text for text in texts if text.partition(".")[0] in SECTIONS]
    for key, value in parse_assignments([text for text in texts if text not in of_network]).items():
        if key == "machine.device":
            device = str(value)
        elif key.startswith("evaluators.davis."):
            settings[key.removeprefix("evaluators.davis.")] = value
        else:
            raise UserError(f"{key!r} is not known here; davis-video takes evaluators.davis.* and machine.device")
    return settings, device, of_network


def _masks(tracker: _Tracker, sequence: DavisSequence, options: Propagation) -> Path:
    """The folder around the sequence's masks, of an earlier evaluation or made here."""
    from ssl_bench.evaluators.davis.masks import MADE_BY, kept_masks, masks_digest, network_digest, write_masks

    digest = masks_digest(network_digest(tracker.backbone), sequence, options)
    places = (tracker.evaluated, tracker.pictures)
    for made in sorted({file for place in places for file in place.rglob(f"{sequence.name}/{MADE_BY}")}):
        if kept_masks(made.parent, sequence, digest) is not None:
            print(f"masks of {made.parent}")
            return made.parent.parent
    masks = tracker.pictures / "masks"
    seconds = write_masks(
        masks / sequence.name, tracker.backbone, sequence, options, digest, lambda line: print(f"  ... {line}")
    )
    print(f"masks of {len(sequence)} frames, {seconds:.2f} s each: {masks / sequence.name}")
    return masks
