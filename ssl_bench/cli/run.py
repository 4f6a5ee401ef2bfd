"""`sslbench run`: train, evaluate and record one method on one architecture and one data set."""

from __future__ import annotations

import os
import shutil
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from ssl_bench.errors import UserError, did_you_mean

if TYPE_CHECKING:
    from ssl_bench.record import RunRecord
    from ssl_bench.request import Request, Resolved

RESULTS = Path(os.environ.get("SSLBENCH_RESULTS", "results"))
VOC_HELP = "VOCdevkit of VOC 2012: adds the evaluator voc-jaccard, which without it reads the masks of shapes"
DAVIS_HELP = "DAVIS of 2017: adds the evaluator davis, which without it reads the clips of shapes"
EXAMPLES = """Examples:

  sslbench run dino --arch deit_s16                     on the embedded set, about ten minutes on two cores

  sslbench run dino --arch resnet18 --data ~/photos     a folder with train/CLASS/IMAGE and val/CLASS/IMAGE

  sslbench run dino --help                              the settings of DINO"""


def register(app: typer.Typer) -> None:
    """Add the verb to the command line."""
    app.command(
        "run",
        help="Train a method, evaluate it beside its untrained self, and record the run.",
        epilog=EXAMPLES,
        context_settings={"help_option_names": []},
    )(run)


def run(
    context: typer.Context,
    method: Annotated[
        str | None, typer.Argument(metavar="METHOD", help="a method (sslbench list); with --resume also a run's folder")
    ] = None,
    arch: Annotated[str | None, typer.Option(help="a backbone (sslbench list), or timm:NAME for any of timm")] = None,
    data: Annotated[
        str | None, typer.Option(metavar="NAME|PATH", help="a data set by name or folder [default: shapes]")
    ] = None,
    epochs: Annotated[int | None, typer.Option(help="passes over the training set [default: the preset's]")] = None,
    batch_size: Annotated[int | None, typer.Option(help="images per step [default: the preset's]")] = None,
    seed: Annotated[int | None, typer.Option(help="seed of weights, order and augmentation [default: 0]")] = None,
    preset: Annotated[
        str | None, typer.Option(help="a named set of values; none for the bare defaults [default: by data size]")
    ] = None,
    set_: Annotated[
        list[str] | None, typer.Option("--set", metavar="KEY=VALUE", help="any setting, e.g. optimizer.base_lr=1e-3")
    ] = None,
    recipe: Annotated[Path | None, typer.Option(metavar="FILE", help="a TOML recipe, as every run leaves one")] = None,
    with_: Annotated[
        str | None, typer.Option("--with", metavar="NAME,NAME", help="evaluators [default: knn,linear-probe]")
    ] = None,
    voc: Annotated[Path | None, typer.Option(metavar="DIR", help=VOC_HELP)] = None,
    davis: Annotated[Path | None, typer.Option(metavar="DIR", help=DAVIS_HELP)] = None,
    resume: Annotated[bool, typer.Option("--resume", help="go on with a stopped run")] = False,
    restart: Annotated[bool, typer.Option("--restart", help="discard an earlier run of this id first")] = False,
    run_id: Annotated[str | None, typer.Option(help="name of the run's folder [default: made from the recipe]")] = None,
    results: Annotated[Path, typer.Option(metavar="DIR", help="where runs and tables are kept")] = RESULTS,
    dry_run: Annotated[bool, typer.Option("--dry-run", help="print the complete recipe and stop")] = False,
    help_: Annotated[bool, typer.Option("--help", "-h", help="show this, or with a METHOD its settings")] = False,
) -> None:
    """Train a method, evaluate it beside its untrained self, and record the run."""
    if help_ or (method is None and recipe is None):
        _help(context, method, arch, [name.strip() for name in (with_ or "").split(",") if name.strip()])
        return
    from ssl_bench import request as requests

    flags: dict[str, Any] = {"training.epochs": epochs, "training.batch_size": batch_size, "training.seed": seed}
    more_evaluators, paths = mask_folders(voc, davis)
    values = {key: value for key, value in flags.items() if value is not None} | paths | parse_assignments(set_ or [])
    request = requests.Request(
        method=method,
        arch=arch,
        data=data,
        preset=preset,
        evaluators=None if with_ is None else tuple(name.strip() for name in with_.split(",") if name.strip()),
        more_evaluators=more_evaluators,
        values=values,
        recipe_file=recipe,
    )
    run_dir = None
    if method is not None and ("/" in method or Path(method).is_dir()):
        if not resume:
            raise UserError(f"{method!r} is a folder, not a method. To go on with its run add --resume.")
        run_dir = Path(method)
        request = _request_of_run(run_dir, request)
    resolved = requests.resolve(request)
    if dry_run:
        print(resolved.recipe.to_toml(), end="")
        return
    if run_dir is None:
        run_dir = results / "runs" / _checked_run_id(run_id or resolved.recipe.run_id)
        if (
            run_id is None
            and not restart
            and (run_dir / "record.json").exists()
            and not (run_dir / "run.json").exists()
        ):
            run_dir = run_dir.with_name(f"{run_dir.name}-again")  # that record came with the checkout
    if restart and run_dir.exists():
        if resume:
            raise UserError("--resume goes on with a run and --restart discards it: give one of them")
        _discard(run_dir)
    execute(resolved, run_dir, resume)


def execute(resolved: Resolved, run_dir: Path, resume: bool) -> None:
    """Run and report; exits with 130 after a stop, 1 after a failed run."""
    from ssl_bench import runner
    from ssl_bench.cli.display import TerminalDisplay
    from ssl_bench.run_folder import Start
    from ssl_bench.training import Stopped

    with TerminalDisplay() as display:
        display.title(f"sslbench run {resolved.recipe.method.name} --arch {resolved.recipe.backbone.name}")
        try:
            record = runner.run(resolved, Start(run_dir, resume, runner.command_line()), display)
        except Stopped as stopped:
            display.close()
            print(
                f"saved at step {stopped.step:,} of {stopped.total_steps:,} (checkpoint verified). "
                f"Go on with: sslbench run --resume {run_dir}"
            )
            raise typer.Exit(130) from None
        except KeyboardInterrupt:
            display.close()
            print(f"stopped. Go on with: sslbench run --resume {run_dir}")
            raise typer.Exit(130) from None
    show_result(record, run_dir)
    if record.status != "finished":
        print(f"{record.status}: {record.status_reason}")
        raise typer.Exit(1)


def show_result(record: RunRecord, run_dir: Path) -> None:
    """The run's row: untrained beside trained for every primary measurement."""
    primary: dict[str, dict[str, Any]] = {}
    data: dict[str, str] = {}
    for evaluation in record.evaluations:
        for one in evaluation.measurements:
            if one.primary:
                name = f"{evaluation.evaluator} ({one.metric})"
                primary.setdefault(name, {})[evaluation.subject] = one
                data[name] = "test" if evaluation.data == record.data.name else evaluation.data
    print()
    print(f"{'':34}{record.backbone.start:>12}{'trained':>12}{'change':>10}")
    for name, values in primary.items():
        both = "untrained" in values and "trained" in values
        change = f"{values['trained'].value - values['untrained'].value:+.1f}" if both else ""
        cells = [f"{values[subject].value:.1f}" if subject in values else "" for subject in ("untrained", "trained")]
        unit = next(iter(values.values()))
        print(f"  {name:32}{cells[0]:>12}{cells[1]:>12}{change:>10}   {data[name]} {unit.unit}, n {unit.n:,}")
    if record.backbone.pretrained:
        print(f"\nstart   {record.backbone.pretrained}")
    synthetic = " (synthetic: says nothing about real images)" if record.data.synthetic else ""
    print(f"\ndata    {record.data.name}{synthetic}")
    print(f"record  {run_dir / 'record.json'}")
    print("next    sslbench table   ·   sslbench run ... --data PATH   ·   sslbench list")


def mask_folders(voc: Path | None, davis: Path | None) -> tuple[tuple[str, ...], dict[str, Any]]:
    """The evaluators that `--voc` and `--davis` ask for, and their folders as settings."""
    given = {name: str(path) for name, path in (("voc-jaccard", voc), ("davis", davis)) if path is not None}
    return tuple(given), {f"evaluators.{name}.path": path for name, path in given.items()}


def parse_assignments(texts: Sequence[str]) -> dict[str, Any]:
    """`["a.b=1"]` to `{"a.b": 1}`. Raises `UserError` for a text without "=" or a key given twice."""
    from ssl_bench.settings import parse_text

    values: dict[str, Any] = {}
    for text in texts:
        key, equals, value = text.partition("=")
        if not equals or not key.strip():
            raise UserError(f"--set {text!r} is not KEY=VALUE, e.g. --set method.teacher_temperature=0.05")
        if key.strip() in values:
            raise UserError(f"--set gives {key.strip()!r} twice")
        values[key.strip()] = parse_text(value.strip())
    return values


def _request_of_run(run_dir: Path, given: Request) -> Request:
    import dataclasses
    import json

    from ssl_bench.recipe import Recipe
    from ssl_bench.request import request_of
    from ssl_bench.run_folder import RUN_FILE

    if given.arch or given.preset or given.recipe_file or given.evaluators is not None:
        raise UserError(
            "--resume FOLDER takes everything from the run; leave --arch, --preset, --recipe and --with out"
        )
    for key in given.values:
        if not key.startswith("machine."):
            raise UserError(f"--resume goes on with the run's own recipe; only machine.* can change, not {key!r}")
    if (run_dir / "record.json").exists():
        raise UserError(f"the run {run_dir.name} is finished; see it with: sslbench show {run_dir}")
    try:
        decided = json.loads((run_dir / RUN_FILE).read_text())
        recipe = Recipe.model_validate(decided["recipe"])
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise UserError(f"{run_dir} holds no run that can be resumed ({RUN_FILE}: {error})") from None
    request = request_of(recipe, {**decided["machine"], **{k.partition(".")[2]: v for k, v in given.values.items()}})
    return dataclasses.replace(request, data=given.data) if given.data else request


def _checked_run_id(run_id: str) -> str:
    if run_id in ("", ".", "..") or "/" in run_id or "\\" in run_id:
        raise UserError(f"--run-id {run_id!r} is not a folder name; use letters, digits, '-', '_' and '.'")
    return run_id


def _discard(run_dir: Path) -> None:
    known = {"run.json", "record.json"}
    if not any((run_dir / name).exists() for name in known) and any(run_dir.iterdir()):
        raise UserError(f"{run_dir} is not a run's folder; --restart does not delete it")
    shutil.rmtree(run_dir)


def _help(context: typer.Context, method: str | None, arch: str | None, evaluators: Sequence[str]) -> None:
    if method is None:
        print(context.get_help())
        return
    from ssl_bench import registry
    from ssl_bench.optimizers import OptimizerSettings
    from ssl_bench.recipe import MachineSettings, TrainingSettings
    from ssl_bench.settings import Settings, describe

    if method.startswith("-"):
        raise UserError(f"{method!r} is not a method.{did_you_mean(method, registry.names('method'))}")
    plugin = registry.find("method", method)
    kind = plugin.load()
    summary, paper = plugin.describe()
    print(f"{method}: {summary} ({paper or 'no paper named'}; {plugin.origin})\n")
    sections: list[tuple[str, type[Settings]]] = [("method", kind.Config)]
    if arch:
        sections.append(("backbone", registry.backbone(arch.partition(":")[0]).Config))
    sections += [(f"evaluators.{name}", registry.evaluator(name).Config) for name in evaluators]
    sections += [("optimizer", OptimizerSettings), ("training", TrainingSettings), ("machine", MachineSettings)]
    for section, model in sections:
        print(f"Settings '{section}.*' (--set {section}.NAME=VALUE)")
        for name, default, unit, meaning, source in describe(model):
            print(
                f"  {name:28} {default + (' ' + unit if unit else ''):24} {meaning}"
                + (f" [{source}]" if source else "")
            )
        print()
    print("Presets (--preset NAME; their values are laid over the defaults above)")
    for name, preset in kind.presets.items():
        print(f"  {name:28} {preset.summary}")
        for label, values in (("", preset.values), ("convnets: ", preset.convnet_values)):
            if values:
                print(f"      {label}" + ", ".join(f"{key}={value}" for key, value in values.items()))
    if not evaluators:
        print("\nSettings of evaluators: add --with knn,linear-probe,voc-jaccard,davis to this command")
    print(f"\nAll options: sslbench run --help. Example: sslbench run {method} --arch deit_s16 --epochs 2")
