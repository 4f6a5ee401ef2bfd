"""`sslbench plan`: how much memory a training step takes, by part, and what makes it fit; nothing is trained."""

from __future__ import annotations

import dataclasses
import json
from functools import partial
from typing import TYPE_CHECKING, Annotated

import typer

from ssl_bench.errors import UserError

if TYPE_CHECKING:
    from ssl_bench.planning.devices import Device
    from ssl_bench.planning.evaluation_memory import EvaluationMemory
    from ssl_bench.planning.step_memory import StepMemory
    from ssl_bench.recipes.resolve import Resolved

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
        as_json: Annotated[bool, typer.Option("--json", help="print one JSON document")] = False,
    ) -> None:
        """Predict the memory of a training step, and what makes it fit into a device that need not be here.

        The step is done on tensors without numbers, in seconds. Context and workspaces of the device are an allowance.
        """
        from ssl_bench.planning.stand_in import open_stand_in
        from ssl_bench.recipes.resolve import Request, resolve
        from ssl_bench.settings import parse_assignments

        target = _device(device, memory)
        values = parse_assignments(set_ or [])
        if batch_size is not None:
            values["training.batch_size"] = batch_size
        request = Request(method=method, arch=arch, data=data, preset=preset, values=values)
        resolved = resolve(request, open_stand_in if data is None else None)
        _show(resolved, target, as_json=as_json)


def _device(name: str | None, memory: str | None) -> Device:
    from ssl_bench.planning.devices import Device, card, parse_memory

    amount = None if memory is None else parse_memory(memory)
    if name == "cpu":
        if amount is None:
            raise UserError("--device cpu: give its --memory too, e.g. --memory 8GB")
        return Device("the CPU", amount, is_cpu=True)
    if name is None and amount is not None:
        return Device("a card", amount, bf16=False)
    known = card(name or DEFAULT_DEVICE)
    return known if amount is None else dataclasses.replace(known, memory=min(amount, known.memory))


def _show(resolved: Resolved, device: Device, *, as_json: bool) -> None:
    from ssl_bench.planning.choices import choices, largest_batch
    from ssl_bench.planning.devices import GB
    from ssl_bench.runs.predicting import StepPredictor

    batch = resolved.recipe.training.batch_size
    predictor = StepPredictor(resolved)
    rows = []
    for choice in choices(bf16=device.bf16):
        memory = predictor.memory(choice, batch)
        largest = largest_batch(partial(predictor.peak, choice), device.usable, batch, memory.peak)
        rows.append((choice, memory, largest))
    evaluation = predictor.evaluation()
    fitting = next((choice for choice, memory, _ in rows if memory.peak <= device.usable), None)
    if as_json:
        print(
            json.dumps(
                {
                    "method": resolved.recipe.method.name,
                    "arch": resolved.recipe.arch,
                    "batch_size": batch,
                    "device": device.name,
                    "memory_bytes": device.memory,
                    "usable_bytes": device.usable,
                    "note": predictor.note,
                    "evaluation": dataclasses.asdict(evaluation),
                    "ways": [
                        {
                            "precision": choice.precision,
                            "activation_checkpointing": choice.checkpointing,
                            "peak_bytes": memory.peak,
                            "parts": dict(memory.parts),
                            "fits": memory.peak <= device.usable,
                            "largest_batch": largest,
                        }
                        for choice, memory, largest in rows
                    ],
                },
                indent=1,
            )
        )
        return
    print(f"sslbench plan {resolved.recipe.method.name} --arch {resolved.recipe.arch}")
    print(
        f"  data      {resolved.dataset.name}, {len(resolved.training_split):,} images, {resolved.dataset.image_px} px"
    )
    print(f"  method    preset {resolved.preset} ({resolved.preset_reason}), batch {batch}")
    usable = f"{device.usable / GB:.1f} GB usable: an allowance of {device.allowance}"
    print(f"  memory    {device.memory / GB:.1f} GB of {device.name}, {usable}")
    if predictor.note:
        print(f"  measured  {predictor.note}")
    print()
    _print_ways([(choice.words, memory, largest) for choice, memory, largest in rows], batch, device.usable)
    held = rows[0][1].held
    _print_evaluation(evaluation, held, max(held, *(memory.peak for _, memory, _ in rows[:1])), device)
    print()
    if fitting is not None:
        print(f"fits: sslbench run ... --batch-size {batch} {fitting.settings}")
        return
    best, _, most = max(rows, key=lambda row: row[2])
    if most:
        print(f"batch {batch} does not fit. The largest that does: --batch-size {most} {best.settings}")
        print("A smaller batch changes a method that compares the images of a batch.")
    else:
        least = min(memory.parts["weights"] for _, memory, _ in rows)
        print(f"nothing fits, not even one image: the weights alone take {least / GB:.2f} GB. Take a smaller --arch.")


def _print_ways(ways: list[tuple[str, StepMemory, int]], batch: int, usable: int) -> None:
    from ssl_bench.planning.step_memory import PARTS

    width = max(len(words) for words, _, _ in ways) + 2
    print(" " * 28 + "".join(words.rjust(width) for words, _, _ in ways))
    lines = [(part, [f"{memory.parts[part] / 2**20:,.0f} MB" for _, memory, _ in ways]) for part in PARTS]
    lines.append((f"peak at batch {batch}", [f"{memory.peak / 2**20:,.0f} MB" for _, memory, _ in ways]))
    lines.append(("fits", ["yes" if memory.peak <= usable else "no" for _, memory, _ in ways]))
    lines.append(("largest batch, about", [f"{largest:,}" for _, _, largest in ways]))
    for name, cells in lines:
        print(f"  {name:<26}" + "".join(cell.rjust(width) for cell in cells))


def _print_evaluation(evaluation: EvaluationMemory, held: int, training: int, device: Device) -> None:
    """`held` bytes of weights and moments stay where they are while the trained network is evaluated."""
    from ssl_bench.planning.devices import GB

    extraction, search = held + evaluation.extraction, held + evaluation.search
    print(f"  evaluation  {extraction / GB:.1f} GB for features, which take {evaluation.features / GB:.1f} GB of RAM")
    on_card = search <= device.usable
    place = "" if on_card else ", so it is done in RAM"
    print(f"  k-NN        {search / GB:.1f} GB for the search{place}")
    parts = {"training": training, "evaluation": extraction, **({"k-NN": search} if on_card else {})}
    print(f"  largest     {max(parts, key=lambda name: parts[name])}")
