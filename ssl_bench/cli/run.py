"""`sslbench run`: train, evaluate and record one method on one architecture and one data set."""

from __future__ import annotations

import functools
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from ssl_bench import hints
from ssl_bench.errors import UserError, did_you_mean
from ssl_bench.hints import command, results_of, resume_command
from ssl_bench.signals import interrupting_signals

if TYPE_CHECKING:
    from ssl_bench.measurement import Measurement
    from ssl_bench.recipe import Recipe
    from ssl_bench.record import RunRecord
    from ssl_bench.request import Request, Resolved
    from ssl_bench.run_folder import Start

RESULTS = hints.RESULTS
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
    )(_stoppable(run))


def _stoppable(command: Callable[..., None]) -> Callable[..., None]:
    """The command with exit status 130 for every signal that ends it, also while it still starts."""

    @functools.wraps(command)
    def stoppable(**options: Any) -> None:
        with interrupting_signals():
            try:
                command(**options)
            except KeyboardInterrupt:
                if options["resume"] and options["method"]:
                    print(f"stopped. Resume with: {resume_command(Path(options['method']))}")
                else:
                    print("stopped before anything was trained; start it again with the same command")
                raise typer.Exit(130) from None

    return stoppable


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
    resume: Annotated[bool, typer.Option("--resume", help="resume a stopped run; give its folder")] = False,
    restart: Annotated[
        bool, typer.Option("--restart", help="replace an earlier run of this id once the new one has begun")
    ] = False,
    accept_changed_data: Annotated[
        bool, typer.Option("--accept-changed-data", help="resume although the data changed; the record says so")
    ] = False,
    run_id: Annotated[str | None, typer.Option(help="name of the run's folder [default: made from the recipe]")] = None,
    results: Annotated[Path, typer.Option(metavar="DIR", help="where runs and tables are kept")] = RESULTS,
    dry_run: Annotated[bool, typer.Option("--dry-run", help="print the complete recipe and stop")] = False,
    help_: Annotated[bool, typer.Option("--help", "-h", help="show this, or with a METHOD its settings")] = False,
) -> None:
    """Train a method, evaluate it beside its untrained self, and record the run."""
    if resume and method is None and recipe is None and not help_:
        raise UserError("--resume needs the run's folder: sslbench run --resume results/runs/RUN")
    if resume and restart:
        raise UserError("--resume continues a run and --restart replaces it: give one of them")
    if accept_changed_data and not resume:
        raise UserError(
            "--accept-changed-data is for a stopped run: sslbench run --resume FOLDER --accept-changed-data"
        )
    if help_ or (method is None and recipe is None):
        _help(context, method, arch, [name.strip() for name in (with_ or "").split(",") if name.strip()])
        return
    from ssl_bench import request as requests
    from ssl_bench.run_folder import Start
    from ssl_bench.runner import command_line

    flags: dict[str, Any] = {"training.epochs": epochs, "training.batch_size": batch_size, "training.seed": seed}
    more_evaluators, paths = mask_folders(voc, davis)
    values = {key: value for key, value in flags.items() if value is not None} | paths | parse_assignments(set_ or [])
    request = requests.Request(
        method=method,
        arch=arch,
        data=data,
        preset=preset,
        evaluators=evaluator_names(with_),
        more_evaluators=more_evaluators,
        values=values,
        recipe_file=recipe,
    )
    run_dir = None if method is None else _folder_of_run(method, resume, results)
    if run_dir is not None:
        if run_id is not None:
            raise UserError(f"--resume continues the run {run_dir.name} in its own folder: leave --run-id out")
        request = _request_of_run(run_dir, request)
    resolved = requests.resolve(request)
    if run_dir is not None:
        resolved = _named_as_before(run_dir, resolved)
    if dry_run:
        print(resolved.recipe.to_toml(resolved.preset), end="")
        return
    if run_dir is None:
        name = _free_run_id(resolved.recipe, results) if run_id is None else _checked_run_id(run_id)
        run_dir = results / "runs" / name
        if (
            run_id is None
            and not restart
            and (run_dir / "record.json").exists()
            and not (run_dir / "run.json").exists()
        ):
            run_dir = run_dir.with_name(f"{run_dir.name}-again")  # that record came with the checkout
        if resume and (run_dir / "run.json").exists():
            resolved = _named_as_before(run_dir, resolved)
    _require_utf8(run_dir)
    execute(resolved, Start(run_dir, resume, command_line(), restart, accept_changed_data))


def execute(resolved: Resolved, start: Start) -> None:
    """Run and report; exits with 130 after a stop, 1 after a failed run."""
    from ssl_bench import runner
    from ssl_bench.cli.display import TerminalDisplay
    from ssl_bench.cli.output import surviving_output
    from ssl_bench.restart import NothingReplaced
    from ssl_bench.run_state import RUN_FILE
    from ssl_bench.training import Stopped

    stopped = ""
    with surviving_output():
        with TerminalDisplay() as display:
            display.title(f"sslbench run {resolved.recipe.method.name} --arch {resolved.recipe.arch}")
            try:
                record = runner.run(resolved, start, display)
            except Stopped as stop:
                stopped = (
                    f"saved at step {stop.step:,} of {stop.total_steps:,} (checkpoint verified). "
                    f"Resume with: {resume_command(start.run_dir)}"
                )
            except NothingReplaced:
                stopped = "stopped before the new run began; the earlier one is back in its place"
            except KeyboardInterrupt:
                if (start.run_dir / RUN_FILE).exists():
                    stopped = f"stopped; what was trained is saved. Resume with: {resume_command(start.run_dir)}"
                else:
                    stopped = "stopped before anything was trained; start it again with the same command"
        if stopped:
            print(stopped)
            raise typer.Exit(130)
        show_result(record, start.run_dir)
        if record.status != "finished":
            print(f"{record.status}: {record.status_reason}")
            raise typer.Exit(1)


def show_result(record: RunRecord, run_dir: Path) -> None:
    """The run's row: untrained beside trained for every primary measurement."""
    from ssl_bench.measurement import within_noise

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
        ends = [interval_text(values[subject]) if subject in values else "" for subject in ("untrained", "trained")]
        if any(ends):
            noise = "the difference is within noise" if both and within_noise(*values.values()) else ""
            print(f"  {'  95 % interval':32}{ends[0]:>12}{ends[1]:>12}{'':10}   {noise}".rstrip())
    if record.backbone.pretrained:
        print(f"\nstart   {record.backbone.pretrained}")
    synthetic = " (synthetic: says nothing about real images)" if record.data.synthetic else ""
    print(f"\ndata    {record.data.name}{synthetic}")
    print(f"record  {run_dir / 'record.json'}")
    remark = below_untrained(primary)
    if remark:
        print(f"\nremark  {remark}")
    for label, advised in zip(("next", "", ""), next_commands(record, run_dir), strict=False):
        print(f"{label:8}{advised}")


def below_untrained(primary: Mapping[str, Mapping[str, Any]]) -> str:
    """What to say of a run whose training made every accuracy worse; "" where one is as good as untrained, or better.

    `primary` is name -> subject -> measurement. Evaluators of other kinds than k-NN and probe are left out where those
    two are there: masks and clips are known to fall while accuracy grows.
    """
    names = [name for name in primary if name.startswith(("knn ", "linear-probe "))]
    pairs = [primary[name] for name in names if {"untrained", "trained"} <= primary[name].keys()]
    falls = [pair["trained"].value < pair["untrained"].value for pair in pairs]
    if not falls or not all(falls):
        return ""
    return (
        "every accuracy is below the untrained network's: this training taught the network less than its random "
        "weights know. Common causes: too few steps (--epochs), a learning rate that does not suit the batch "
        "(--set optimizer.base_lr=...), crops too small to show the object, or a preset for other data (--preset)."
    )


def next_commands(record: RunRecord, run_dir: Path) -> list[str]:
    """What can be done with a run, as commands that work as they stand from the current folder."""
    kept = run_dir.parent.name == "runs"
    run = run_dir.name if kept else str(run_dir)
    results = results_of(run_dir) if kept else None
    commands = [command("show", run, results=results)]
    if kept:
        commands.append(command("table", results=results))
    if record.status == "finished" and record.recipe["evaluators"]:
        commands.append(command("eval", run, results=results))
    return commands


def interval_text(measurement: Measurement) -> str:
    """The ends of a measurement's interval, e.g. "54.5-58.9"; empty where it has none."""
    return "" if measurement.interval is None else "-".join(f"{end:.1f}" for end in measurement.interval)


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


def evaluator_names(text: str | None) -> tuple[str, ...] | None:
    """`--with`: "knn,linear-probe" to names; None where it was not given. Raises `UserError` where it names none."""
    if text is None:
        return None
    names = tuple(name.strip() for name in text.split(",") if name.strip())
    if not names:
        raise UserError("--with names no evaluator; see: sslbench list evaluators")
    return names


def _folder_of_run(text: str, resume: bool, results: Path) -> Path | None:
    """The folder of the run that the argument METHOD names, or None where it names a method.

    A registered method wins over a folder of its name; only with --resume is a folder of a run taken for one.
    """
    from ssl_bench import registry
    from ssl_bench.restart import is_run_folder
    from ssl_bench.run_folder import find_run

    if not text.strip():
        return None
    path = Path(text).expanduser()
    if resume and is_run_folder(path):
        return path
    if text in registry.names("method"):
        return None
    if is_run_folder(path):
        raise UserError(f"{text!r} is a run's folder, not a method. To resume it: {command('run', '--resume', text)}")
    known = registry.names("method")
    if "/" in text or path.is_dir():
        found = "a folder without a run in it (run.json)" if path.is_dir() else "no folder that exists"
        raise UserError(
            f"no method is called {text!r}.{did_you_mean(text, known)} Known: {', '.join(known)} (sslbench list). As a "
            f"path it is {found}; to resume a run: sslbench run --resume results/runs/RUN"
        )
    if resume:
        try:
            return find_run(text, results)
        except UserError as error:
            raise UserError(f"no method is called {text!r}.{did_you_mean(text, known)} And {error}") from None
    return None


def _free_run_id(recipe: Recipe, results: Path) -> str:
    """The recipe's run id, with more characters of the digest where another recipe has that folder already."""
    from ssl_bench.run_folder import digest_of

    names = [recipe.name_with(characters) for characters in (4, 8, 16, 64)]
    return next(name for name in names if digest_of(results / "runs" / name) in (None, recipe.digest))


def _named_as_before(run_dir: Path, resolved: Resolved) -> Resolved:
    """A resumed run with its data named as when it was started, wherever they lie now."""
    import dataclasses

    from ssl_bench.run_state import read_run_state

    name = read_run_state(run_dir).recipe.data.name
    resolved.dataset.name = name
    data = resolved.recipe.data.model_copy(update={"name": name})
    return dataclasses.replace(resolved, recipe=resolved.recipe.model_copy(update={"data": data}))


def _require_utf8(run_dir: Path) -> None:
    from ssl_bench.setting_types import absolute_path

    try:
        absolute_path(str(run_dir))
    except ValueError as error:
        raise UserError(f"--results: {error}") from None


def _request_of_run(run_dir: Path, given: Request) -> Request:
    import dataclasses

    from ssl_bench.request import request_of
    from ssl_bench.run_state import read_run_state

    if given.arch or given.preset or given.recipe_file or given.evaluators is not None:
        raise UserError(
            "--resume FOLDER takes everything from the run; leave --arch, --preset, --recipe and --with out"
        )
    for key in given.values:
        if not key.startswith("machine.") and not _is_evaluators_path(key):
            raise UserError(f"--resume continues the run's own recipe; only machine.* can change, not {key!r}")
    if (run_dir / "record.json").exists():
        raise UserError(f"the run {run_dir.name} is finished; see it with: {command('show', run_dir)}")
    if not (run_dir / "run.json").exists():
        raise UserError(f"{run_dir} holds no run that can be resumed: run.json is missing")
    state = read_run_state(run_dir)
    moved = {key: path for key, path in given.values.items() if _is_evaluators_path(key)}
    changes = {key.partition(".")[2]: value for key, value in given.values.items() if key not in moved}
    request = request_of(state.recipe, {**state.machine.model_dump(mode="json"), **changes})
    for key in moved:
        if key not in request.values:
            raise UserError(f"--resume continues with the run's own evaluators, and {key!r} is of none of them")
    request = dataclasses.replace(request, values={**request.values, **moved})
    return request if given.data is None else dataclasses.replace(request, data=given.data)


def _is_evaluators_path(key: str) -> bool:
    """Whether a setting says where an evaluator's data lie, which may change while a run is stopped."""
    return key.startswith("evaluators.") and key.endswith(".path")


def _checked_run_id(run_id: str) -> str:
    if run_id in ("", ".", "..") or "/" in run_id or "\\" in run_id:
        raise UserError(f"--run-id {run_id!r} is not a folder name; use letters, digits, '-', '_' and '.'")
    return run_id


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
