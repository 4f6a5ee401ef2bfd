"""How long a study still takes and how much memory it needs, and which of its runs fit into a budget."""

from __future__ import annotations

import re
import time
from collections.abc import Iterable
from dataclasses import dataclass

from ssl_bench.errors import UserError
from ssl_bench.studies.board import Board, Entry
from ssl_bench.studies.costs import Cost, Costs
from ssl_bench.training.batches import steps_per_epoch
from ssl_bench.training.checkpoint import last_saved_step

UNITS = {"s": 1.0, "m": 60.0, "min": 60.0, "h": 3600.0, "d": 86400.0}


@dataclass(frozen=True)
class Forecast:
    """What is left of a study."""

    seconds: float
    """Until everything is done, with the runs that go on side by side."""
    memory_mb: float
    """Of the runs that go on side by side at the worst moment."""
    guessed: int
    """Number of runs whose time is a guess."""
    unknown: int
    """Number of runs of which nothing is known; they are left out of `seconds`."""


def forecast(board: Board, costs: Costs, jobs: int) -> Forecast:
    """What is left, with `jobs` runs side by side."""
    left, memory, guessed, unknown = [], [], 0, 0
    for entry in board.with_status("waiting", "running"):
        cost = costs.of(entry.run.recipe)
        if cost is None:
            unknown += 1
            continue
        left.append(seconds_left(entry, cost))
        memory.append(cost.memory_mb or 0.0)
        guessed += cost.basis != "measured"
    together = max(sum(left) / jobs, max(left, default=0.0))
    return Forecast(together, sum(sorted(memory)[-jobs:]), guessed, unknown)


def seconds_left(entry: Entry, cost: Cost) -> float:
    """Seconds left of a run that is waiting or under way."""
    if entry.status != "running" and entry.place.missing:
        return cost.other_seconds
    if entry.status != "running":
        return cost.seconds * (1 - trained_share(entry))
    training = entry.working.seconds_left if entry.working else None
    return max(entry.expected_seconds - (time.monotonic() - entry.began), training or 0.0, 1.0)


def trained_share(entry: Entry) -> float:
    """How much of a stopped run's training is saved, from 0 to 1."""
    recipe = entry.run.recipe
    steps = recipe.training.epochs * steps_per_epoch(recipe.data.train_images or 0, recipe.training.batch_size)
    saved = last_saved_step(entry.place.folder / "checkpoints") if entry.place.begun else 0
    return min(1.0, (saved or 0) / steps) if steps else 0.0


def parse_budget(text: str) -> float:
    """Seconds of "90s", "30m", "2h", "1.5d" or "1h30m". Raises `UserError`."""
    parts = re.findall(r"([0-9]*\.?[0-9]+)\s*([a-z]+)", text.strip().lower())
    whole = "".join(number + unit for number, unit in parts)
    if not parts or whole != re.sub(r"\s", "", text.lower()) or any(unit not in UNITS for _, unit in parts):
        raise UserError(f"--budget {text!r} is not a time: give a number with s, m, h or d, e.g. 45m, 2h or 1h30m")
    seconds = sum(float(number) * UNITS[unit] for number, unit in parts)
    if seconds <= 0:
        raise UserError(f"--budget {text!r} leaves no time: give e.g. 45m or 2h")
    return seconds


def duration(seconds: float) -> str:
    """In words a person reads at a glance: "40 s", "12 min", "3 h 05"."""
    if seconds < 90:
        return f"{max(1, round(seconds))} s"
    minutes = round(seconds / 60)
    return f"{minutes} min" if minutes < 90 else f"{minutes // 60} h {minutes % 60:02}"


def require_time_for_one(waiting: Iterable[Entry], costs: Costs, budget: float) -> None:
    """Raises `UserError` where the budget is less than the shortest of the runs, saying what would fit."""
    entries = list(waiting)
    known = [(seconds_left(entry, cost), entry) for entry in entries if (cost := costs.of(entry.run.recipe))]
    if not known or len(known) < len(entries):
        return
    shortest, entry = min(known, key=lambda pair: pair[0])
    if shortest > budget:
        raise UserError(
            f"a budget of {duration(budget)} is less than the shortest run that is missing: {entry.name} takes about "
            f"{duration(shortest)}. Give --budget {duration(shortest * 1.2).replace(' ', '')} or more, or shorter "
            "runs, e.g. --set training.epochs=1"
        )
