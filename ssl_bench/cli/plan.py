"""`sslbench plan`: how much memory a training step takes, by part, and what makes it fit; nothing is trained."""

from __future__ import annotations

import dataclasses
import json
import shlex
from typing import TYPE_CHECKING, Annotated

import typer

from ssl_bench.errors import UserError

if TYPE_CHECKING:
    from ssl_bench.planning.choices import Choice
    from ssl_bench.planning.devices import Device
    from ssl_bench.recipes.resolve import Resolved
    from ssl_bench.runs.planned_step import StepPlan

DEFAULT_DEVICE = "1050ti"


def register(app: typer.Typer) -> None:
    """Add the verb."""

    @app.command(epilog="Example: sslbench plan dino --arch deit_s16 --batch-size 8 --device 1050ti")
    def plan(
        method: Annotated[str, typer.Argument(metavar="METHOD", help="a method, see sslbench list")],
        arch: Annotated[str, typer.Option(metavar="ARCH", help="a backbone")],
        data: Annotated[
            str | None,
            typer.Option(metavar="NAME|PATH", help="training data [default: a stand-in of ImageNet's size at 224 px]"),
        ] = None,
        preset: Annotated[str | None, typer.Option(help="the method's preset")] = None,
        batch_size: Annotated[int | None, typer.Option(help="images per optimizer step")] = None,
        set_: Annotated[list[str] | None, typer.Option("--set", metavar="KEY=VALUE", help="any setting")] = None,
        memory: Annotated[str | None, typer.Option(metavar="AMOUNT", help="of the device, e.g. 4GB")] = None,
        device: Annotated[
            str | None, typer.Option(metavar="NAME", help=f"a card, e.g. 1050ti, or cpu [default: {DEFAULT_DEVICE}]")
        ] = None,
        measure: Annotated[
            bool, typer.Option("--measure", help="with --device cpu: do a few steps here, for the time of an epoch")
        ] = False,
        as_json: Annotated[bool, typer.Option("--json", help="print one JSON document")] = False,
    ) -> None:
        """Predict the memory of a training step, and what makes it fit into a device that need not be here.

        The step is done on tensors without numbers, in seconds. Context and workspaces of the device are an allowance,
        the time of an epoch on a card is an estimate from its published peak.
        """
        from ssl_bench.planning.stand_in import open_stand_in
        from ssl_bench.recipes.request import Request
        from ssl_bench.recipes.resolve import resolve
        from ssl_bench.settings import parse_assignments

        target = _device(device, memory)
        if measure and not target.is_cpu:
            raise UserError("--measure times steps on this machine's CPU: give --device cpu and its --memory too")
        values = parse_assignments(set_ or [])
        if batch_size is not None:
            values["training.batch_size"] = batch_size
        typed = _typed(method, arch, data, preset, batch_size)
        request = Request(method=method, arch=arch, data=data, preset=preset, values=values)
        resolved = resolve(request, open_stand_in if data is None else None)
        _show(resolved, target, typed, set_ or [], measure=measure, as_json=as_json)


def _typed(method: str, arch: str, data: str | None, preset: str | None, batch_size: int | None) -> list[str]:
    """What was typed of the run itself but its settings, as `sslbench run` takes it too."""
    words = [method, "--arch", arch]
    for option, value in (("--data", data), ("--preset", preset), ("--batch-size", batch_size)):
        words += [] if value is None else [option, str(value)]
    return words


def _command(verb: str, typed: list[str], settings: list[str]) -> str:
    options = [word for setting in settings for word in ("--set", setting)]
    return shlex.join(["sslbench", verb, *typed, *options])


def _run_command(typed: list[str], settings: list[str], choice: Choice) -> str:
    """The run as planned: what the plan decides stands in place of what was typed for it."""
    kept = [setting for setting in settings if setting.partition("=")[0].strip() not in choice.settings]
    return _command("run", typed, kept + [f"{key}={value}" for key, value in choice.settings.items()])


def _device(name: str | None, memory: str | None) -> Device:
    from ssl_bench.planning.devices import PASCAL, Device, card, parse_memory
    from ssl_bench.runs.precision import cpu_has_bf16

    amount = None if memory is None else parse_memory(memory)
    if name == "cpu":
        if amount is None:
            raise UserError("--device cpu: give its --memory too, e.g. --memory 8GB")
        return Device("the CPU", amount, ("fp32", "bf16") if cpu_has_bf16() else ("fp32",), is_cpu=True)
    if name is None and amount is not None:
        return Device("a card", amount, PASCAL)
    known = card(name or DEFAULT_DEVICE)
    return known if amount is None else dataclasses.replace(known, memory=min(amount, known.memory))


def _show(
    resolved: Resolved, device: Device, typed: list[str], settings: list[str], *, measure: bool, as_json: bool
) -> None:
    from ssl_bench.runs.planned_step import plan_step

    plan = plan_step(resolved, device)
    measured = _measured_epoch(resolved, plan) if measure else None
    if as_json:
        from ssl_bench.cli.plan_text import as_document

        print(json.dumps(as_document(plan, resolved, measured), indent=1))
        return
    from ssl_bench.cli.plan_text import lines

    run = _run_command(typed, settings, plan.chosen.choice) if plan.chosen else ""
    print(_command("plan", typed, settings))
    for line in lines(plan, resolved, run, measured):
        print(line)


def _measured_epoch(resolved: Resolved, plan: StepPlan) -> float | None:
    """Seconds of an epoch done as planned, from a few steps; None where nothing fits."""
    from ssl_bench.studies.trial import epoch_seconds

    if plan.chosen is None:
        return None
    recipe = resolved.recipe.model_copy(
        update={"training": resolved.recipe.training.model_copy(update={"precision": plan.chosen.choice.precision})}
    )
    machine = resolved.machine.model_copy(
        update={"device": "cpu", "activation_checkpointing": plan.chosen.choice.checkpointing}
    )
    return epoch_seconds(dataclasses.replace(resolved, recipe=recipe, machine=machine))
