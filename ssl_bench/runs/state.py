"""run.json: what `--resume` goes by, the recipe of a started run and what was measured before its first step."""

from __future__ import annotations

from pathlib import Path

from ssl_bench.records.cost import MemoryRecord, SpeedRecord
from ssl_bench.records.part import RecordPart
from ssl_bench.records.recipe import MachineSettings, Recipe
from ssl_bench.records.record import DataRecord, EvaluationRecord
from ssl_bench.records.state_file import read_model, sealed
from ssl_bench.system.files import write_atomically

RUN_FILE = "run.json"
SCHEMA_VERSION = 2
"""1 had neither a fingerprint nor fixed fields, and is not resumed."""


class BeforeTraining(RecordPart):
    """What was decided and measured before the first step, and must stand for all sessions of a run."""

    precision: str
    precision_reason: str
    threads: int
    """Sums depend on how they are split among threads."""
    speed: SpeedRecord
    untrained: tuple[EvaluationRecord, ...]
    memory: MemoryRecord | None = None
    """How a step is done; None where nothing is trained."""
    devices: tuple[str, ...] = ()
    """That the run was begun on and, where that is another one, resumed on, in this order; empty in earlier files."""


class RunState(RecordPart):
    """A run that has a folder and no record yet."""

    schema_version: int = SCHEMA_VERSION
    recipe: Recipe
    digest: str
    machine: MachineSettings
    data: DataRecord
    eval_data: tuple[DataRecord, ...] = ()
    preset: str
    preset_reason: str
    started_utc: str
    notes: tuple[str, ...] = ()
    before_training: BeforeTraining | None = None
    """None until all of it is measured; nothing is lost before."""


def read_run_state(folder: Path) -> RunState:
    """Raises `UserError` for a run.json that cannot be read, is not whole, or is of another version."""
    return read_model(folder / RUN_FILE, RunState, SCHEMA_VERSION)


def write_run_state(folder: Path, state: RunState) -> None:
    """Replace run.json, atomically."""
    write_atomically(folder / RUN_FILE, sealed(state))
