"""A run's folder: opening one without losing what is there, and finding one by what a user types."""

from __future__ import annotations

import json
import os
import shutil
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING, Any

from filelock import FileLock, Timeout

from ssl_bench.errors import UserError, did_you_mean
from ssl_bench.records.recipe import OUTSIDE_DIGEST
from ssl_bench.records.record import DataRecord
from ssl_bench.runs.restart import LOCK, can_be_replaced, is_run_folder
from ssl_bench.runs.state import RUN_FILE, RunState, read_run_state, write_run_state
from ssl_bench.system.files import write_atomically
from ssl_bench.system.hints import command, resume_command

if TYPE_CHECKING:
    import torch

    from ssl_bench.method import Method
    from ssl_bench.recipes.resolve import Resolved
    from ssl_bench.records.recipe import Recipe

LAST = "last"
"""Names the run that was done last."""
SHOWN = 5
"""Runs that a message names."""


class RunInUse(UserError):
    """Another process is doing the run of this folder."""


@dataclass(frozen=True)
class Start:
    """How to begin in a run folder that may exist."""

    run_dir: Path
    resume: bool
    command: str
    restart: bool = False
    """Replace an earlier run, whatever its recipe."""
    accept_changed_data: bool = False
    """Resume although the data are no longer those that the run began with."""


def stopped_run(resolved: Resolved, start: Start, data: Sequence[DataRecord]) -> RunState | None:
    """What the stopped run of this folder decided; None for a new one.

    `data` are the training data, then the evaluation data. Raises `UserError` for every conflict, and writes nothing.
    """
    folder = start.run_dir
    if start.restart:
        if folder.exists() and not can_be_replaced(folder):
            raise UserError(f"{folder} is not a run's folder; --restart does not delete it")
        return None
    if (folder / "record.json").exists():
        other = ", of another recipe" if digest_of(folder) not in (None, resolved.recipe.digest) else ""
        raise UserError(
            f"the run {folder.name} is finished{other}: {folder / 'record.json'}. See it with: "
            f"{command('show', folder)}. To do this one: --run-id NAME for another folder, or --restart to discard the "
            "finished one."
        )
    if not (folder / RUN_FILE).exists():
        if start.resume:
            raise UserError(f"there is no run to resume in {folder} ({RUN_FILE} is missing). Leave --resume out.")
        return None
    state = read_run_state(folder)
    if not start.resume and state.before_training is None:  # before the first measurement nothing is lost
        return None
    if state.digest == resolved.recipe.digest:
        if not start.resume:
            raise UserError(
                f"the run {folder.name} was started and is not finished. Resume with: {resume_command(folder)}, "
                "or discard it with --restart."
            )
        return state
    changed = changed_settings(state.recipe, resolved.recipe)
    if start.resume and all(name.endswith("fingerprint") and name != "initial.fingerprint" for name in changed):
        change = _data_change((state.data, *state.eval_data), data, changed)
        if not start.accept_changed_data:
            raise UserError(
                f"the data of the run {folder.name} changed since it was started: {change}. Put them back as they "
                f"were, or continue on the data as they are with: {resume_command(folder)} --accept-changed-data "
                "(the record will say so), or start again with --restart."
            )
        note = f"resumed on changed data: {change}"
        return state.model_copy(
            update={
                "recipe": resolved.recipe, "digest": resolved.recipe.digest, "data": data[0],
                "eval_data": tuple(data[1:]), "notes": (*state.notes, note), "before_training": None,
            }
        )  # fmt: skip
    raise UserError(
        f"the run {folder.name} exists with another recipe, which differs in {', '.join(changed[:6])} (digest "
        f"{state.digest[:12]}, this one has {resolved.recipe.digest[:12]}). Give another --run-id, or --restart to "
        "discard it."
    )


def new_run(resolved: Resolved, data: Sequence[DataRecord], notes: Sequence[str] = ()) -> RunState:
    """The state of a run that begins now; `data` are the training data, then the evaluation data."""
    return RunState(
        recipe=resolved.recipe,
        digest=resolved.recipe.digest,
        machine=resolved.machine,
        data=data[0],
        eval_data=tuple(data[1:]),
        notes=tuple(notes),
        preset=resolved.preset,
        preset_reason=resolved.preset_reason,
        started_utc=datetime.now(UTC).isoformat(timespec="seconds"),
    )


def begin(folder: Path, state: RunState) -> None:
    """Write what a run goes by: its state, and its recipe for a reader."""
    write_run_state(folder, state)
    write_atomically(folder / "recipe.toml", state.recipe.to_toml(state.preset).encode())


def changed_settings(one: Recipe, other: Recipe) -> list[str]:
    """Names of the values in which two recipes differ; where data lie on the disk is no difference."""
    first, second = (_flat(recipe.model_dump(mode="json")) for recipe in (one, other))
    names = [name for name in {**first, **second} if first.get(name) != second.get(name)]
    names = [name for name in names if name not in ("initial.source", "initial.network")]
    return [name.replace(".settings.", ".") for name in names if name.rpartition(".")[2] not in OUTSIDE_DIGEST]


def _flat(value: Any, name: str = "") -> dict[str, Any]:
    if isinstance(value, Mapping):
        pairs = [(f"{name}.{key}" if name else key, inner) for key, inner in value.items()]
    elif isinstance(value, list) and any(isinstance(inner, Mapping) for inner in value):
        pairs = [(f"{name}.{inner.get('name', index)}", inner) for index, inner in enumerate(value)]
    else:
        return {name: value}
    return {key: leaf for key, inner in pairs for key, leaf in _flat(inner, key).items()}


def _data_change(before: Sequence[DataRecord], now: Sequence[DataRecord], changed: list[str]) -> str:
    """In words what changed of the training data, of evaluation data and of what evaluators read on their own."""
    counts = []
    for number, (one, other) in enumerate(zip(before, now, strict=True)):
        if one.fingerprint == other.fingerprint:
            continue
        of = f"evaluation data {one.name}: " if number else ""
        differing = [
            f"{of}{getattr(one, name):,} {words} before, {getattr(other, name):,} now"
            for name, words in (
                ("train_images", "training images"), ("test_images", "test images"), ("classes", "classes"),
            )
            if getattr(one, name) != getattr(other, name)
        ]  # fmt: skip
        same = f"{of or one.name + ' '}holds as many images as before, but their names, sizes or labels differ"
        counts += differing or [same]
    evaluators = [name.split(".")[1] for name in changed if name.startswith("evaluators.")]
    if evaluators:
        counts.append(f"what {' and '.join(evaluators)} reads is another set")
    return "; ".join(counts)


@contextmanager
def hold(folder: Path) -> Iterator[None]:
    """Make the folder and keep other processes from doing the same run meanwhile; a folder that is still empty at the
    end goes again. Raises `UserError` for either."""
    made = [path for path in (folder, *folder.parents) if not path.exists()]
    try:
        folder.mkdir(parents=True, exist_ok=True)
        lock = FileLock(folder / LOCK, timeout=0)
        lock.acquire()
    except Timeout:
        raise RunInUse(
            f"another process is doing the run {folder.name}. Wait for it; a new run beside it needs a --run-id of its "
            "own."
        ) from None
    except OSError as error:
        raise UserError(f"cannot make {folder}: {error.strerror}. Choose another place with --results PATH.") from None
    try:
        yield
    finally:
        if made and made[0] == folder and [entry.name for entry in folder.iterdir()] == [LOCK]:
            with suppress(OSError):  # still the only one here, so nobody waits for the lock
                (folder / LOCK).unlink()
                for path in made:
                    path.rmdir()
        lock.release()


def in_use(folder: Path) -> bool:
    """Whether another process is doing the run of this folder now."""
    if not (folder / LOCK).exists():
        return False
    lock = FileLock(folder / LOCK, timeout=0)
    try:
        lock.acquire()
    except (Timeout, OSError):
        return True
    lock.release()
    return False


def check_free_space(method: Method, optimizer: torch.optim.Optimizer, run_dir: Path) -> None:
    """Raises `UserError` when checkpoints would not fit. Three may exist at a time; those that are there need no more
    room, but one is always written beside them."""
    trained = sum(p.numel() * p.element_size() for group in optimizer.param_groups for p in group["params"])
    moments = 2 if type(optimizer).__name__ == "AdamW" else 1
    one = moments * trained + sum(t.numel() * t.element_size() for t in method.state_dict().values())
    there = sum(file.stat().st_size for file in (run_dir / "checkpoints").glob("step-*/*"))
    needed = max(one, 3 * one - there)
    free = shutil.disk_usage(run_dir).free
    if free < needed:
        raise UserError(
            f"{run_dir} has {free / 2**20:,.0f} MB free; checkpoints of this run need about {needed / 2**20:,.0f} MB. "
            "Free space or choose another folder with --results PATH."
        )


def digest_of(folder: Path) -> str | None:
    """The digest of the recipe of the run in a folder; None where there is no run, or one whose files are damaged."""
    for name in ("record.json", RUN_FILE):
        try:
            return str(json.loads((folder / name).read_text(encoding="utf-8"))["digest"])
        except (OSError, ValueError, KeyError, TypeError, RecursionError):
            continue
    return None


def is_stopped(folder: Path) -> bool:
    """Whether a run was begun in the folder and not finished."""
    return (folder / RUN_FILE).exists() and not (folder / "record.json").exists()


def last_written(folder: Path) -> float:
    """When the record of a run was written, or its beginning where there is none yet; 0 for a folder without a run."""
    for name in ("record.json", RUN_FILE):
        with suppress(OSError):
            return (folder / name).stat().st_mtime
    return 0.0


def find_run(text: str, results: Path, *, stopped: bool = False) -> Path:
    """The folder of a run: by its path, its name, the beginning of it, or `LAST` for the one that was done last.

    Of several that begin so those with weights are meant, or with `stopped` those that were begun and not finished.
    Raises `UserError` naming the nearest match, or the latest runs that begin so.
    """
    path = Path(os.path.expanduser(text))
    if path.name == "record.json":
        path = path.parent
    if is_run_folder(path):
        return path
    known = sorted(folder.name for folder in results.glob("runs/[!.]*") if folder.is_dir())
    text = text if text in known else text.replace(":", "_")  # as in the names of runs
    beginning = "" if text == LAST else text
    matches = [name for name in known if name == text] or [name for name in known if name.startswith(beginning)]
    if len(matches) > 1:  # records of others lie beside the runs made here: those have weights
        folders = {name: results / "runs" / name for name in matches}
        made_here = [name for name, folder in folders.items() if (folder / "weights.safetensors").exists()]
        left_unfinished = [name for name, folder in folders.items() if is_stopped(folder)]
        matches = (left_unfinished if stopped else made_here) or matches
    if len(matches) == 1:
        return results / "runs" / matches[0]
    if matches:
        latest = _latest_first(matches, results)
        if text == LAST:
            return results / "runs" / latest[0]
        raise UserError(
            f"{text!r} begins several runs, the latest first: {_some_of(latest)}. Give more of the name, or {LAST!r} "
            "for the run that was done last."
        )
    if not known:
        raise UserError(f"no run is called {text!r}. There are no runs in {results}.")
    listing = f"Runs in {results}, the latest first: {_some_of(_latest_first(known, results))}"
    raise UserError(f"no run is called {text!r}.{did_you_mean(text, known)} {listing}")


def _latest_first(names: Sequence[str], results: Path) -> list[str]:
    return sorted(names, key=lambda name: last_written(results / "runs" / name), reverse=True)


def _some_of(names: Sequence[str]) -> str:
    """The first few, and how many more."""
    more = f" and {len(names) - SHOWN} more" if len(names) > SHOWN else ""
    return f"{', '.join(names[:SHOWN])}{more}"
