"""RunRecord: what a finished run leaves behind, one immutable JSON file; tables are folded from these alone."""

from __future__ import annotations

import json
import os
import tempfile
from pathlib import Path
from typing import Any, Literal, TypeVar

from pydantic import BaseModel, ConfigDict, ValidationError

from ssl_bench.errors import UserError
from ssl_bench.measurement import Measurement

SCHEMA_VERSION = 1


class _Part(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid", ser_json_inf_nan="strings")


class EvaluationRecord(_Part):
    """One evaluator's measurements of one network of a run."""

    schema_version: int = SCHEMA_VERSION
    evaluator: str
    subject: Literal["trained", "untrained"]
    """The same architecture and seed before the first step is "untrained"."""
    settings: dict[str, Any]
    data: str
    """Name of the data set the evaluator read."""
    data_fingerprint: str
    synthetic: bool
    image_px: int
    measurements: tuple[Measurement, ...]
    seconds: float
    plugin: str
    """Distribution and version that provided the evaluator."""
    pictures: tuple[str, ...] = ()
    """What it drew, as paths below the run's folder."""
    made_utc: str


class DataRecord(_Part):
    """The training data as it was."""

    name: str
    plugin: str
    fingerprint: str
    synthetic: bool
    train_images: int
    test_images: int
    classes: int
    image_px: int


class BackboneRecord(_Part):
    """The evaluated network."""

    name: str
    plugin: str
    kind: str
    parameters: int
    """Of the extractor only, no head."""
    tokens: int | None
    """Tokens per image including CLS, registers and the like; None for a network without tokens."""
    inference_images_per_second: float | None
    """At `inference_batch` images per forward pass, fp32, on the run's device."""
    inference_batch: int | None
    pretrained: str = ""
    """The weights it started from where those were not random; the subject "untrained" then has these weights."""

    @property
    def start(self) -> Literal["untrained", "pretrained"]:
        """What the network is called before the first step."""
        return "pretrained" if self.pretrained else "untrained"


class MachineRecord(_Part):
    """Where it ran."""

    device: str
    cores: int
    threads: int
    precision: str
    """fp32 or bf16 (autocast), as chosen; `precision_reason` says why."""
    precision_reason: str
    platform: str


class TrainingRecord(_Part):
    """What training cost and how it ended."""

    steps: int
    epochs: float
    seconds: float
    """Of training steps and data loading, over all sessions of a resumed run; evaluation not included."""
    images_per_second: float
    peak_memory_mb: float
    """Highest resident memory of the main process on a CPU, of the allocator on a GPU; in 2^20 bytes."""
    resumed: int
    """How many times the run was stopped and gone on with."""
    final_logs: dict[str, float]
    """Mean of each logged value over the last epoch."""


class RunRecord(_Part):
    """Everything a table or a sceptic needs to know of one run."""

    schema_version: int = SCHEMA_VERSION
    run_id: str
    status: Literal["finished", "collapsed", "failed"]
    status_reason: str = ""
    preset: str
    preset_reason: str
    recipe: dict[str, Any]
    digest: str
    """Of the recipe and the data's fingerprint: equal digests mean the same run up to hardware."""
    seed: int
    method: str
    method_plugin: str
    backbone: BackboneRecord
    data: DataRecord
    machine: MachineRecord
    training: TrainingRecord
    evaluations: tuple[EvaluationRecord, ...]
    versions: dict[str, str]
    git_commit: str | None
    """Of the working directory's checkout of sslbench when it is one, with "+changes" when it was dirty."""
    command: str
    started_utc: str
    finished_utc: str


def write_record(record: BaseModel, path: Path) -> None:
    """Write a record once: temporary file, fsync, rename, fsync of the folder. An existing file is never replaced."""
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        exists = path.exists()
    except OSError as error:
        raise _cannot_write(path, error) from error
    if exists:
        raise UserError(f"{path} exists; records are never overwritten. Give the run another --run-id or remove it.")
    write_atomically(path, (record.model_dump_json(indent=1) + "\n").encode())


def write_atomically(path: Path, content: bytes) -> None:
    """Either the whole new content stands under `path` afterwards or nothing changed. Raises `UserError` on a full
    disk or without permission, naming the path."""
    try:
        handle, temporary = tempfile.mkstemp(dir=path.parent, prefix=f".{path.name}.")
    except OSError as error:
        raise _cannot_write(path, error) from error
    try:
        with os.fdopen(handle, "wb") as stream:
            stream.write(content)
            stream.flush()
            os.fsync(stream.fileno())
        os.chmod(temporary, 0o644)
        os.replace(temporary, path)
        sync_folder(path.parent)
    except OSError as error:
        Path(temporary).unlink(missing_ok=True)
        raise _cannot_write(path, error) from error
    except BaseException:
        Path(temporary).unlink(missing_ok=True)
        raise


def sync_folder(folder: Path) -> None:
    """Make a rename inside `folder` survive a power cut."""
    descriptor = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def read_record(path: Path) -> RunRecord:
    """Read a record. Raises `UserError` for a damaged file or one of a newer schema, saying which."""
    return _read(path, RunRecord)


def read_evaluation(path: Path) -> EvaluationRecord:
    """Read an evaluation that `sslbench eval` wrote beside a record; errors as `read_record`."""
    return _read(path, EvaluationRecord)


def read_all(results: Path) -> tuple[list[tuple[Path, RunRecord]], list[str]]:
    """Every record under `results/runs/*/record.json`, later evaluations joined in, and one line per unreadable file.

    A damaged or newer file spoils nothing but itself. Sorted by run id.
    """
    records: list[tuple[Path, RunRecord]] = []
    problems: list[str] = []
    for path in sorted(results.glob("runs/*/record.json")):
        try:
            record = read_record(path)
        except UserError as error:
            problems.append(str(error))
            continue
        records.append((path, with_later_evaluations(record, path.parent, problems)))
    return records, problems


def with_later_evaluations(record: RunRecord, folder: Path, problems: list[str]) -> RunRecord:
    """The record with what `sslbench eval` added to its folder; a line in `problems` for each unreadable file."""
    later = []
    for path in sorted(folder.glob("evaluations/*.json")):
        try:
            later.append(read_evaluation(path))
        except UserError as error:
            problems.append(str(error))
    return record.model_copy(update={"evaluations": (*record.evaluations, *later)})


AnyRecord = TypeVar("AnyRecord", bound=BaseModel)


def _read(path: Path, model: type[AnyRecord]) -> AnyRecord:
    try:
        content = json.loads(path.read_text(encoding="utf-8"))
    except OSError as error:
        raise UserError(f"cannot read {path}: {error.strerror}") from None
    except (ValueError, RecursionError) as error:
        raise UserError(f"{path} is damaged (not JSON: {error}). Restore it or remove its folder.") from None
    version = content.get("schema_version") if isinstance(content, dict) else None
    if isinstance(version, int) and version > SCHEMA_VERSION:
        raise UserError(
            f"{path} was written by a newer sslbench (record schema {version}; this one reads up to "
            f"{SCHEMA_VERSION}). Update sslbench: pip install -U sslbench"
        )
    try:
        return model.model_validate(content)
    except ValidationError as error:
        first = error.errors()[0]
        where = ".".join(str(part) for part in first["loc"])
        raise UserError(f"{path} is damaged ({where}: {first['msg']}). Restore it or remove its folder.") from None


def _cannot_write(path: Path, error: OSError) -> UserError:
    return UserError(
        f"cannot write {path}: {error.strerror or error}. Free space or choose another folder with --results PATH; "
        "what was saved before is untouched."
    )
