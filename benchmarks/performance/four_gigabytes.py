"""Every method that trains, on two networks, planned for a card of 4 GB.

    python -m benchmarks.performance.four_gigabytes [--write]

224 px, ImageNet's size, an effective batch of 256, each method's preset for it, GTX 1050 Ti. Nothing is trained and no
card is needed: the memory is predicted as by `sslbench plan METHOD --arch ARCH --batch-size 256 --device 1050ti`.
`--write` writes the table to results/planning/.
"""

from __future__ import annotations

import argparse
from collections.abc import Iterator
from pathlib import Path

from ssl_bench import registry
from ssl_bench.planning.devices import GB, card
from ssl_bench.planning.stand_in import open_stand_in
from ssl_bench.recipes.request import Request
from ssl_bench.recipes.resolve import resolve
from ssl_bench.runs.planned_step import StepPlan, plan_step

WRITTEN = Path(__file__).parents[2] / "results" / "planning" / "four_gigabytes.md"
ARCHS = ("deit_s16", "resnet50")
DEVICE = "1050ti"
BATCH = 256
HEADER = (
    "| method | network | batch | peak GB | images at once | activations | precision | exact | time, relative |",
    "|---|---|--:|--:|--:|---|---|---|--:|",
)


def cases() -> Iterator[tuple[str, str, int]]:
    """(method, network, batch): all that trains at 256 images, and DINO as its authors' smallest example has it."""
    yield "dino", "deit_s16", 8
    for arch in ARCHS:
        for name in registry.names("method"):
            if name != "random":
                yield name, arch, BATCH


def row(name: str, arch: str, batch: int) -> str:
    """One line of the table."""
    resolved = resolve(Request(method=name, arch=arch, values={"training.batch_size": batch}), open_stand_in)
    return as_row(name, arch, batch, plan_step(resolved, card(DEVICE)))


def as_row(name: str, arch: str, batch: int, plan: StepPlan) -> str:
    """Of a plan. Time is relative to the whole batch at once without computing activations again."""
    if plan.chosen is None:
        return f"| {name} | {arch} | {batch} | | | | | does not fit | |"
    choice, memory = plan.chosen.choice, plan.chosen.memory
    time = plan.chosen.work / plan.tried[0].work
    cells = (
        f"{memory.peak / GB:.2f}",
        str(min(batch, choice.micro_batch or batch)),
        "computed again" if choice.checkpointing else "kept",
        choice.precision,
        f"no: {plan.approximate}" if plan.approximate else "yes",
        f"{time:.2f}",
    )
    return f"| {name} | {arch} | {batch} | {' | '.join(cells)} |"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--write", action="store_true", help=f"also write {WRITTEN.parent.name}/{WRITTEN.name}")
    arguments = parser.parse_args()
    device = card(DEVICE)
    rows = list(HEADER)
    print("\n".join(HEADER))
    for case in cases():
        rows.append(row(*case))
        print(rows[-1], flush=True)
    about = (
        "Written by `python -m benchmarks.performance.four_gigabytes --write`. "
        f"{device.name}: {device.memory / GB:.0f} GB, of which {device.usable / GB:.2f} GB are usable "
        f"({device.allowance}). Peaks are predicted; no card was at hand. Time is "
        "by floating point operations and passes, relative to the whole batch at once with activations "
        "kept, which needs more memory than the card has."
    )
    if arguments.write:
        WRITTEN.write_text("\n\n".join(["# Every method in 4 GB", about, "\n".join(rows)]) + "\n")


if __name__ == "__main__":
    main()
