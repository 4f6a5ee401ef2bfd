"""`sslbench davis-video`: a run's network follows the objects of one sequence, shown beside the truth."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

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
        run: Annotated[str, typer.Argument(metavar="RUN", help="a run's id, the beginning of one, or its folder")],
        sequence: Annotated[str, typer.Argument(metavar="SEQUENCE", help="a sequence, e.g. shapes-00 or blackswan")],
        davis: Annotated[Path | None, typer.Option(metavar="DIR", help=DAVIS_HELP)] = None,
        frames: Annotated[int, typer.Option(help="rows of the strip", min=2)] = 5,
        set_: Annotated[
            list[str] | None,
            typer.Option("--set", metavar="KEY=VALUE", help="evaluators.davis.SETTING or machine.device"),
        ] = None,
        results: Annotated[Path, typer.Option(metavar="DIR", help="where runs are kept")] = RESULTS,
    ) -> None:
        """Draw what a trained network makes of one sequence: a strip (image, target, prediction) and an animation.

        Masks of an evaluation with the same settings are taken as they are; without one, this one sequence is
        propagated. The pictures are written beside the run's record.
        """
        from functools import partial

        from ssl_bench.evaluation.evaluate import refuse_unsupported
        from ssl_bench.evaluators.davis.evaluator import Davis, DavisConfig, open_clips
        from ssl_bench.evaluators.davis.pictures import write_pictures
        from ssl_bench.evaluators.davis.results import read_result
        from ssl_bench.evaluators.davis.scores import score_sequence
        from ssl_bench.runs.folder import find_run
        from ssl_bench.runs.machine import choose_device
        from ssl_bench.runs.networks import trained_backbone
        from ssl_bench.settings import parse_settings

        folder = find_run(run, results)
        settings, device = _settings(set_ or [])
        if davis is not None:
            settings["path"] = str(davis)
        config = parse_settings(DavisConfig, settings, "evaluators.davis", "davis")
        clips = {one.name: one for one in open_clips(config).sequences}
        if sequence not in clips:
            hint = "the clips of shapes; DAVIS's with --davis DIR" if davis is None else f"of {davis}"
            raise unknown_name("sequence", sequence, clips, hint)
        backbone, record = trained_backbone(folder)
        refuse_unsupported(backbone, record.backbone.name, [("davis", Davis(config))])
        chosen, options = clips[sequence], config.propagation()
        masks = _masks(folder, backbone.to(choose_device(device)), chosen, options)
        scores = score_sequence(chosen, partial(read_result, masks, chosen, chosen.objects()))
        for path in write_pictures(folder / "pictures", chosen, masks, scores, by=record.run_id, frames=frames):
            print(f"written: {path}")


def _settings(texts: list[str]) -> tuple[dict[str, Any], str]:
    """Settings of the evaluator without their prefix, and the device."""
    from ssl_bench.settings import parse_assignments

    settings, device = {}, "auto"
    for key, value in parse_assignments(texts).items():
        if key == "machine.device":
            device = str(value)
        elif key.startswith("evaluators.davis."):
            settings[key.removeprefix("evaluators.davis.")] = value
        else:
            raise UserError(f"{key!r} is not known here; davis-video takes evaluators.davis.* and machine.device")
    return settings, device


def _masks(run_dir: Path, backbone: Backbone, sequence: DavisSequence, options: Propagation) -> Path:
    """The folder around the sequence's masks, of an earlier evaluation or made here."""
    from ssl_bench.evaluators.davis.masks import MADE_BY, kept_masks, masks_digest, network_digest, write_masks

    digest = masks_digest(network_digest(backbone), sequence, options)
    for made in sorted(run_dir.rglob(f"{sequence.name}/{MADE_BY}")):
        if kept_masks(made.parent, sequence, digest) is not None:
            print(f"masks of {made.parent}")
            return made.parent.parent
    masks = run_dir / "pictures" / "masks"
    seconds = write_masks(
        masks / sequence.name, backbone, sequence, options, digest, lambda line: print(f"  ... {line}")
    )
    print(f"masks of {len(sequence)} frames, {seconds:.2f} s each: {masks / sequence.name}")
    return masks
