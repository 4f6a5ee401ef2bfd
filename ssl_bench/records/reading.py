"""Reading records: one run's, one evaluation's, or all under results/, whole or only what tables show of them."""

from __future__ import annotations

from collections.abc import Collection
from pathlib import Path
from typing import Any

from pydantic import ValidationError

from ssl_bench.errors import UserError
from ssl_bench.measurement import Protocol
from ssl_bench.records.odd_values import require_usable
from ssl_bench.records.older import TEXT_PROTOCOLS_SCHEMA, current_metric, respelled
from ssl_bench.records.recipe import arch_text
from ssl_bench.records.record import SCHEMA_VERSION, UNSEALED_SCHEMA, EvaluationRecord, RunRecord
from ssl_bench.records.state_file import as_model, read_sealed
from ssl_bench.system.memory import cycles_uncollected

Metrics = Collection[tuple[str, str]]
"""(evaluator, metric) of the measurements that are read; an evaluator's main one is always among them."""


def read_record(path: Path) -> RunRecord:
    """Read a record. Raises `UserError` for a damaged file or one of a newer schema, saying which."""
    return _Reader().record(path)


def read_evaluation(path: Path) -> EvaluationRecord:
    """Read an evaluation that `sslbench eval` wrote beside a record; errors as `read_record`."""
    return _Reader().evaluation(path)


def read_all(results: Path, metrics: Metrics | None = None) -> tuple[list[tuple[Path, RunRecord]], list[str]]:
    """Every record under `results/runs/*/record.json`, later evaluations joined in, and one line per unreadable file.

    A damaged or newer file spoils nothing but itself. Hidden folders are what `--restart` moved aside. Sorted by run
    id. With `metrics` other measurements are left out: a third of the memory, and less time.
    """
    reader = _Reader(metrics)
    records: list[tuple[Path, RunRecord]] = []
    problems: list[str] = []
    with cycles_uncollected():
        for path in sorted(results.glob("runs/*/record.json")):
            if path.parent.name.startswith("."):
                continue
            try:
                record = reader.record(path)
            except UserError as error:
                problems.append(str(error))
                continue
            records.append((path, reader.with_later_evaluations(record, path.parent, problems)))
    return records, problems


def read_usable(results: Path, metrics: Metrics | None = None) -> tuple[list[tuple[Path, RunRecord]], list[str]]:
    """`read_all` without the records that hold an odd value, each with a line among the problems."""
    found, problems = read_all(results, metrics)
    usable = []
    for path, record in found:
        try:
            require_usable(record, path)
            usable.append((path, record))
        except UserError as error:
            problems.append(str(error))
    return usable, problems


def with_later_evaluations(record: RunRecord, folder: Path, problems: list[str]) -> RunRecord:
    """The record with what `sslbench eval` added to its folder; a line in `problems` for each unreadable file."""
    return _Reader().with_later_evaluations(record, folder, problems)


class _Reader:
    """Reads records and evaluations; equal protocols of all that it reads are one object."""

    def __init__(self, metrics: Metrics | None = None) -> None:
        self._metrics = metrics
        self._protocols: dict[str, tuple[Any, Protocol]] = {}
        """Text -> a protocol as it stood in a file, and the object for it."""

    def record(self, path: Path) -> RunRecord:
        content = read_sealed(path, SCHEMA_VERSION, unsealed_schema=UNSEALED_SCHEMA)
        evaluations = content.get("evaluations")
        for one in evaluations if isinstance(evaluations, list) else ():
            self._shorten(one)
        record = as_model(content, RunRecord, path)
        # earlier versions wrote the network's name without its plugin, e.g. "resnet18" for "timm:resnet18"
        part = record.recipe.get("backbone")
        settings = part.get("settings") if isinstance(part, dict) else None
        if not isinstance(part, dict) or not isinstance(settings, dict):
            return record
        arch = arch_text(str(part.get("name")), settings)
        if not arch.endswith(f":{record.backbone.name}"):
            return record
        return record.model_copy(update={"backbone": record.backbone.model_copy(update={"name": arch})})

    def evaluation(self, path: Path) -> EvaluationRecord:
        content = read_sealed(path, SCHEMA_VERSION, unsealed_schema=UNSEALED_SCHEMA)
        self._shorten(content)
        return as_model(content, EvaluationRecord, path)

    def with_later_evaluations(self, record: RunRecord, folder: Path, problems: list[str]) -> RunRecord:
        later = []
        for path in sorted(folder.glob("evaluations/*.json")):
            try:
                later.append(self.evaluation(path))
            except UserError as error:
                problems.append(str(error))
        return record.model_copy(update={"evaluations": (*record.evaluations, *later)}) if later else record

    def _shorten(self, evaluation: Any) -> None:
        """Leave out the measurements that nobody asked for, and put one object in the place of equal protocols."""
        measurements = evaluation.get("measurements") if isinstance(evaluation, dict) else None
        if not isinstance(measurements, list) or not all(isinstance(one, dict) for one in measurements):
            return  # damaged, which the model will say
        if self._metrics is not None:
            wanted, evaluator = self._metrics, evaluation.get("evaluator")
            measurements = [
                one
                for one in measurements
                if one.get("primary") is True or (evaluator, current_metric(evaluation, one)) in wanted
            ]
            evaluation["measurements"] = measurements
        version = evaluation.get("schema_version")
        older = isinstance(version, int) and version <= TEXT_PROTOCOLS_SCHEMA
        for one in measurements:
            if "protocol" in one:
                one["protocol"] = self._shared(respelled(one["protocol"]) if older else one["protocol"])

    def _shared(self, protocol: Any) -> Any:
        text = protocol.get("text") if isinstance(protocol, dict) else protocol
        if not isinstance(text, str):
            return protocol
        given, shared = self._protocols.get(text, (None, None))
        if given == protocol:
            return shared
        try:
            shared = Protocol.model_validate(protocol)
        except ValidationError:
            return protocol
        self._protocols[text] = protocol, shared
        return shared
