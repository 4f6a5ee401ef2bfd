"""`sslbench run`: train, evaluate and record one method on one architecture and one dataset."""

from __future__ import annotations

import functools
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from ssl_bench.cli.method_help import print_help
from ssl_bench.cli.options import DAVIS_HELP, DOWNLOAD_HELP, RESULTS, VOC_HELP, evaluator_names, logger_names
from ssl_bench.cli.result import show_result
from ssl_bench.errors import UserError
from ssl_bench.system.hints import resume_command
from ssl_bench.system.signals import interrupting_signals

if TYPE_CHECKING:
    from ssl_bench.recipes.resolve import Resolved
    from ssl_bench.runs.folder import Start

EXAMPLES = """Examples:

  sslbench run dino --arch deit_s16                     on the embedded set, about ten minutes on two cores

  sslbench run dino --arch resnet18 --data ~/photos     a folder with train/CLASS/IMAGE and val/CLASS/IMAGE

  sslbench run dino --arch resnet18 --data ~/unlabeled --eval-data ~/photos     trains without labels on any images

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
        str | None, typer.Argument(metavar="METHOD", help="a method (sslbench list); with --resume a run")
    ] = None,
    arch: Annotated[str | None, typer.Option(help="a backbone (sslbench list), or timm:NAME for any of timm")] = None,
    data: Annotated[
        str | None, typer.Option(metavar="NAME|PATH", help="what to train on: a name or a path [default: shapes]")
    ] = None,
    eval_data: Annotated[
        list[str] | None,
        typer.Option(metavar="NAME|PATH", help="labeled data to evaluate on; repeatable [default: those of --data]"),
    ] = None,
    download: Annotated[bool, typer.Option("--download", help=DOWNLOAD_HELP)] = False,
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
    init: Annotated[
        str | None,
        typer.Option(
            "--init",
            metavar="RUN|WEIGHTS",
            help="start every network of the method from a finished run's weights, a checkpoint or a published name",
        ),
    ] = None,
    eval_every: Annotated[
        int | None,
        typer.Option(
            metavar="N",
            help="evaluate every network of the method (k-NN) after each N-th epoch, on the first --eval-data",
        ),
    ] = None,
    log: Annotated[
        list[str] | None,
        typer.Option(metavar="NAME,NAME", help="tensorboard, wandb or mlflow: values also go there while it trains"),
    ] = None,
    memory: Annotated[
        str | None, typer.Option(metavar="AMOUNT", help="plan and cap the run at, e.g. 4GB [default: what is free]")
    ] = None,
    resume: Annotated[
        bool, typer.Option("--resume", help="resume a stopped run; give its name, the beginning of it, or its folder")
    ] = False,
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
        raise UserError("--resume needs a run: sslbench run --resume results/runs/RUN")
    if help_ or (method is None and recipe is None):
        print_help(context, method, arch, [name.strip() for name in (with_ or "").split(",") if name.strip()])
        return
    from ssl_bench.recipes.request import Request
    from ssl_bench.runs.asking import mask_folders, named_values, plan_run
    from ssl_bench.runs.plain_names import command_line
    from ssl_bench.settings import parse_assignments

    more_evaluators, paths = mask_folders(voc, davis)
    downloaded = {"data.download": True} if download else {}
    named = named_values(epochs=epochs, batch_size=batch_size, seed=seed, eval_every=eval_every, memory=memory)
    request = Request(
        method=method,
        arch=arch,
        data=data,
        eval_data=tuple(eval_data) if eval_data else None,
        preset=preset,
        evaluators=evaluator_names(with_),
        more_evaluators=more_evaluators,
        values=named | paths | parse_assignments(set_ or []) | logger_names(log) | downloaded,
        recipe_file=recipe,
        init=init,
    )
    resolved, start = plan_run(
        request, results=results, run_id=run_id, resume=resume, restart=restart,
        accept_changed_data=accept_changed_data, command=command_line(),
    )  # fmt: skip
    if dry_run:
        print(resolved.recipe.to_toml(resolved.preset), end="")
        return
    execute(resolved, start)


def execute(resolved: Resolved, start: Start) -> None:
    """Run and report; exits with 130 after a stop, 1 after a failed run."""
    from ssl_bench.cli.output import surviving_output
    from ssl_bench.runs import runner
    from ssl_bench.runs.display import TerminalDisplay
    from ssl_bench.runs.restart import NothingReplaced
    from ssl_bench.training.loop import Stopped

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
                stopped = _interrupted(start.run_dir)
        if stopped:
            print(stopped)
            raise typer.Exit(130)
        show_result(record, start.run_dir)
        if record.status != "finished":
            print(f"{record.status}: {record.status_reason}")
            raise typer.Exit(1)


def _interrupted(run_dir: Path) -> str:
    """What remains of a run that stopped outside of training, or while it saved: a second signal does not wait."""
    from ssl_bench.runs.state import RUN_FILE
    from ssl_bench.training.checkpoint import last_saved_step

    if not (run_dir / RUN_FILE).exists():
        return "stopped before anything was trained; start it again with the same command"
    step = last_saved_step(run_dir / "checkpoints")
    saved = f"saved up to step {step:,}" if step else "no training step is saved yet"
    return f"stopped; {saved}. Resume with: {resume_command(run_dir)}"
