"""A run's folder: opening one without losing what is there, and finding one by what a user types."""

from __future__ import annotations

import json
import os
import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING, Any

from filelock import FileLock, Timeout

from ssl_bench.errors import UserError, did_you_mean
from ssl_bench.record import write_atomically

if TYPE_CHECKING:
    from ssl_bench.method import Method
    from ssl_bench.request import Resolved

RUN_FILE = "run.json"
"""Recipe, machine settings and decisions of a started run: what `--resume` goes by."""


@dataclass(frozen=True)
class Start:
    """How to begin in a run folder that may exist."""

    run_dir: Path
    resume: bool
    command: str


def open_run(resolved: Resolved, start: Start) -> dict[str, Any]:
    """Create the run's folder, or read what a stopped run decided. Raises `UserError` for every conflict."""
    folder, file = start.run_dir, start.run_dir / RUN_FILE
    digest = resolved.recipe.digest
    if (folder / "record.json").exists():
        raise UserError(
            f"the run {folder.name} is finished: {folder / 'record.json'}. See it with: sslbench show {folder.name}. "
            "To do it again: --run-id NAME for another folder, or --restart to discard this one."
        )
    decided = _read_run_file(file) if file.exists() else {}
    if decided and (start.resume or "untrained" in decided):  # before the first measurement nothing is lost
        if decided["digest"] != digest:
            raise UserError(
                f"the run {folder.name} exists with another recipe (digest {decided['digest'][:12]}, this one has "
                f"{digest[:12]}). Give another --run-id, or --restart to discard it."
            )
        if not start.resume:
            raise UserError(
                f"the run {folder.name} was started and is not finished. Go on with: sslbench run --resume {folder}, "
                "or discard it with --restart."
            )
        return decided
    if start.resume:
        raise UserError(f"there is no run to resume in {folder} ({RUN_FILE} is missing). Leave --resume out.")
    decided = {
        "digest": digest,
        "recipe": resolved.recipe.model_dump(mode="json"),
        "machine": resolved.machine.model_dump(mode="json"),
        "preset": resolved.preset,
        "preset_reason": resolved.preset_reason,
        "started_utc": datetime.now(UTC).isoformat(timespec="seconds"),
    }
    write_run_file(folder, decided)
    write_atomically(folder / "recipe.toml", resolved.recipe.to_toml().encode())
    return decided


@contextmanager
def hold(folder: Path) -> Iterator[None]:
    """Make the folder and keep other processes from doing the same run meanwhile. Raises `UserError` for either."""
    try:
        folder.mkdir(parents=True, exist_ok=True)
        lock = FileLock(folder / ".lock", timeout=0)
        lock.acquire()
    except Timeout:
        raise UserError(
            f"another process is doing the run {folder.name}. Wait for it, or give another --run-id."
        ) from None
    except OSError as error:
        raise UserError(f"cannot make {folder}: {error.strerror}. Choose another place with --results PATH.") from None
    try:
        yield
    finally:
        lock.release()


def _read_run_file(file: Path) -> dict[str, Any]:
    try:
        decided: dict[str, Any] = json.loads(file.read_text())
        return {"digest": decided["digest"], **decided}
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise UserError(f"{file} is damaged ({error}). Discard the run with --restart.") from None


def write_run_file(folder: Path, decided: dict[str, Any]) -> None:
    """Keep what a run decided, atomically."""
    write_atomically(folder / RUN_FILE, (json.dumps(decided, indent=1) + "\n").encode())


def check_free_space(method: Method, run_dir: Path) -> None:
    """Raises `UserError` when checkpoints would not fit: each is about twice the method, and three may exist."""
    needed = 3 * 2 * sum(t.numel() * t.element_size() for t in method.state_dict().values())
    free = shutil.disk_usage(run_dir).free
    if free < needed:
        raise UserError(
            f"{run_dir} has {free / 2**20:,.0f} MB free; checkpoints of this run need about {needed / 2**20:,.0f} MB. "
            "Free space or choose another folder with --results PATH."
        )


def find_run(text: str, results: Path) -> Path:
    """The folder of a run. Raises `UserError` naming the nearest match, or all runs that begin so."""
    path = Path(os.path.expanduser(text))
    if path.name == "record.json":
        path = path.parent
    if (path / "record.json").exists() or (path / "run.json").exists():
        return path
    known = sorted(folder.name for folder in results.glob("runs/*") if folder.is_dir())
    matches = [name for name in known if name == text] or [name for name in known if name.startswith(text)]
    if len(matches) > 1:  # records of others lie beside the runs made here: those have weights
        matches = [name for name in matches if (results / "runs" / name / "weights.safetensors").exists()] or matches
    if len(matches) == 1:
        return results / "runs" / matches[0]
    if matches:
        raise UserError(f"{text!r} begins several runs: {', '.join(matches)}. Give more of the name.")
    listing = f" Runs in {results}: {', '.join(known)}" if known else f" There are no runs in {results}."
    raise UserError(f"no run is called {text!r}.{did_you_mean(text, known)}{listing}")
