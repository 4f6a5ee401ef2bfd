"""What differs between two runs, what matters first, and the difference of their numbers with its interval."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, replace
from typing import Any, NamedTuple

from ssl_bench.measurement import Measurement, Outcomes, Protocol, difference_interval
from ssl_bench.records.bootstrap import paired_interval
from ssl_bench.records.outcomes import OutcomesSource, no_outcomes
from ssl_bench.records.recipe import OUTSIDE_DIGEST
from ssl_bench.records.record import DataRecord, EvaluationRecord, RunRecord
from ssl_bench.tables.naming import NOT_RECORDED, setting_name
from ssl_bench.tables.paths import flatten, plain_text
from ssl_bench.tables.table import TableData, data_title

SECTIONS = ("method", "optimizer", "training", "backbone", "data", "eval_data", "initial", "evaluators")
"""Of a recipe, the ones whose settings move numbers most first."""
NAMED_BY_FACTS = {"method.name", "backbone.name", "data.name", "data.fingerprint", "initial.source"}
"""Settings that the facts of a run already name."""


class Difference(NamedTuple):
    """A value in which two runs differ, as texts."""

    name: str
    one: str
    other: str


@dataclass(frozen=True)
class Comparison:
    """A metric that both runs have."""

    evaluator: str
    subject: str
    """trained, untrained or pretrained."""
    data: TableData
    one: Measurement
    other: Measurement
    paired: tuple[float, float] | None = None
    """The 95 % interval of the difference, item by item; None where not both have outcomes of the same test items."""

    @property
    def protocols_differ(self) -> bool:
        """Whether the numbers are not comparable."""
        return self.one.protocol != self.other.protocol or self.one.unit != self.other.unit

    @property
    def difference(self) -> float | None:
        """Other minus one; None where they do not compare."""
        return None if self.protocols_differ else self.other.value - self.one.value

    @property
    def interval(self) -> tuple[float, float] | None:
        """The 95 % interval of the difference, paired where that is possible; None where there is none."""
        if self.protocols_differ:
            return None
        return self.paired or difference_interval(self.one, self.other)


def differences(one: RunRecord, other: RunRecord) -> list[Difference]:
    """Facts and settings in which two runs differ: what decides the numbers first, then machine, versions and cost."""
    found = _unlike(_deciding(one), _deciding(other))
    found += _unlike(*_settings(one, other))
    found += _unlike(_surroundings(one), _surroundings(other))
    return found


def compared(
    one: RunRecord,
    other: RunRecord,
    outcomes: tuple[OutcomesSource, OutcomesSource] = (no_outcomes, no_outcomes),
    *,
    primary_only: bool = True,
) -> list[Comparison]:
    """Each metric that both runs have on one dataset, of the network before and after training.

    Of several under one name the later counts, one of equal protocols before all others. `outcomes` finds those of
    either run.
    """
    measured_by_other = _measured(other, primary_only)
    found = []
    for key, of_one in _measured(one, primary_only).items():
        if of_other := measured_by_other.get(key):
            shared = [protocol for protocol in of_one if protocol in of_other]
            pairs = [(of_one[p], of_other[p]) for p in shared] or [(_last(of_one), _last(of_other))]
            for first, second in pairs:
                comparison = Comparison(*key[:2], key[3], first.measurement, second.measurement)
                if not comparison.protocols_differ:
                    items = outcomes[0](one, *first.place), outcomes[1](other, *second.place)
                    comparison = replace(comparison, paired=_paired(*items))
                found.append(comparison)
    return found


def _paired(one: Outcomes | None, other: Outcomes | None) -> tuple[float, float] | None:
    if one is None or other is None:
        return None
    try:
        return paired_interval([one], [other])
    except ValueError:  # e.g. a fingerprint of part of the content, and another number of images
        return None


def unlike_fields(one: Protocol, other: Protocol) -> list[Difference]:
    """In which fields two protocols differ; their texts where one of them has no fields."""
    if not one.fields or not other.fields:
        return [Difference("protocol", one.text, other.text)]
    return _unlike(*({name: plain_text(value) for name, value in p.fields.items()} for p in (one, other)))


class _Measured(NamedTuple):
    evaluation: EvaluationRecord
    measurement: Measurement

    @property
    def place(self) -> tuple[EvaluationRecord, str]:
        """Where its outcomes are found."""
        return self.evaluation, self.measurement.metric


def _last(measurements: Mapping[Protocol, _Measured]) -> _Measured:
    return list(measurements.values())[-1]


_Key = tuple[str, str, str, TableData]


def _measured(record: RunRecord, primary_only: bool) -> dict[_Key, dict[Protocol, _Measured]]:
    """(evaluator, subject, metric, data) -> protocol -> the later measurement."""
    found: dict[_Key, dict[Protocol, _Measured]] = {}
    for evaluation in sorted(record.evaluations, key=lambda one: one.made_utc):
        subject = record.backbone.start if evaluation.before_training else "trained"
        for one in evaluation.measurements:
            if one.primary or not primary_only:
                key = (evaluation.evaluator, subject, one.metric, TableData.measured_on(evaluation))
                found.setdefault(key, {})[one.protocol] = _Measured(evaluation, one)
    return found


def _unlike(one: Mapping[str, str], other: Mapping[str, str]) -> list[Difference]:
    names = dict.fromkeys([*one, *other])
    pairs = [Difference(name, one.get(name, NOT_RECORDED), other.get(name, NOT_RECORDED)) for name in names]
    return [pair for pair in pairs if pair.one != pair.other]


def _deciding(record: RunRecord) -> dict[str, str]:
    reason = f": {record.status_reason}" if record.status_reason else ""
    return {
        "ended": record.status + reason,
        "method": record.method,
        "network": record.backbone.name,
        "starts from": record.backbone.pretrained or "random weights",
        "parameters": f"{record.backbone.parameters:,}",
        "training data": _data_text(record.data),
        "evaluation data": "; ".join(map(_data_text, record.eval_data)) or "the training data",
    }


def _data_text(data: DataRecord) -> str:
    return f"{data_title(data.name, data.synthetic)}, {data.train_images:,} images, fingerprint {data.fingerprint[:8]}"


def _settings(one: RunRecord, other: RunRecord) -> tuple[dict[str, str], dict[str, str]]:
    """Settings of both, in the order of `SECTIONS`; of two methods or networks only the settings that both have."""
    found = [_recipe(record) for record in (one, other)]
    for section, same in (
        ("method.", one.method == other.method),
        ("backbone.", one.backbone.name == other.backbone.name),
    ):
        shared = {name for name in found[0] if name in found[1]}
        if not same:
            found = [{n: v for n, v in flat.items() if n in shared or not n.startswith(section)} for flat in found]
    return found[0], found[1]


def _recipe(record: RunRecord) -> dict[str, str]:
    flat: dict[str, Any] = {}
    for section in SECTIONS:
        content = record.recipe.get(section)
        if section == "evaluators":
            for part in content or ():
                flat |= flatten(part.get("settings") or {}, f"evaluators.{part['name']}")
        elif isinstance(content, list | tuple):
            for number, part in enumerate(content, start=1):
                flat |= flatten(part, f"{section}.{number}")
        elif content is not None:
            flat |= flatten(content, section)
    named = {setting_name(name): value for name, value in flat.items()}
    outside = tuple(f".{name}" for name in OUTSIDE_DIGEST)
    return {
        name: plain_text(value) or "none"
        for name, value in named.items()
        if name not in NAMED_BY_FACTS and not (name.startswith(("data.", "eval_data.")) and name.endswith(outside))
    }


def _surroundings(record: RunRecord) -> dict[str, str]:
    """What should not decide a number, and what the run cost."""
    machine, training = record.machine, record.training
    return {
        "precision": machine.precision,
        "TF32": "not known" if machine.tf32 is None else "on" if machine.tf32 else "off",
        "compiled": "yes" if machine.compiled else "no",
        "color of views": f"on the {machine.augment_on}" if machine.augment_on == "device" else "in the workers",
        "device": machine.device,
        "threads": str(machine.threads),
        "method plugin": record.method_plugin,
        "backbone plugin": record.backbone.plugin,
        **{f"version of {name}": version for name, version in record.versions.items()},
        "commit": record.git_commit or "none",
        "platform": machine.platform,
        "training time": f"{training.seconds:,.0f} s" if training else "trained elsewhere",
        "training speed": f"{training.images_per_second:,.1f} images/s" if training else "trained elsewhere",
        "peak memory": f"{training.peak_memory_mb:,.0f} MiB" if training else "trained elsewhere",
    }


def protocol_note(comparison: Comparison) -> str:
    """Why two numbers do not compare, e.g. "temperature 0.07 and 0.1"."""
    unlike = unlike_fields(comparison.one.protocol, comparison.other.protocol)
    if comparison.one.unit != comparison.other.unit:
        unlike.append(Difference("unit", comparison.one.unit or "none", comparison.other.unit or "none"))
    return "; ".join(_pair(one) for one in unlike)


def _pair(one: Difference) -> str:
    return f"{one.name} {one.one} and {one.other}"


def texts(comparisons: Iterable[Comparison]) -> list[tuple[str, str, str, str, str]]:
    """Name, both values, their difference with its interval, and a note.

    The note says why they do not compare, or whether the interval is paired and holds 0 ("within noise").
    """
    rows = []
    for one in comparisons:
        name = f"{one.evaluator} {one.one.metric} ({one.subject}) on {one.data.title}"
        values = (f"{one.one.value:.2f}", f"{one.other.value:.2f}")
        if one.difference is None:
            rows.append((name, *values, "", f"not comparable: {protocol_note(one)}"))
            continue
        ends = one.interval
        note = ""
        change = f"{one.difference:+.2f} {one.one.unit_text}".rstrip()
        if ends is not None:
            change += f" [{ends[0]:+.2f}, {ends[1]:+.2f}]"
            noise = ends[0] <= 0 <= ends[1]
            note = ", ".join(["paired"] * (one.paired is not None) + ["within noise"] * noise)
        rows.append((name, *values, change, note))
    return rows
