"""curves.json: what was measured during training, one series of numbers per network and metric; beside the record."""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from pathlib import Path

from pydantic import model_validator

from ssl_bench.measurement import Measurement, Protocol
from ssl_bench.records.part import RecordPart
from ssl_bench.records.record import CurvesRecord, CurveSummary, EvaluationRecord
from ssl_bench.records.state_file import DamagedFile, read_model, sealed
from ssl_bench.system.files import write_atomically

CURVES_FILE = "curves.json"
SCHEMA_VERSION = 2
"""2: a protocol has fields, where it was one text."""


class Series(RecordPart):
    """One metric of one network over training: `steps`, `epochs` and `values` are columns of one length, in order."""

    network: str
    """Its name in the method's `networks()`."""
    evaluator: str
    metric: str
    unit: str
    higher_is_better: bool
    n: int
    """Test items behind each value."""
    protocol: Protocol
    primary: bool
    steps: tuple[int, ...]
    """Optimizer steps done."""
    epochs: tuple[int, ...]
    """Epochs done."""
    values: tuple[float, ...]

    @model_validator(mode="after")
    def _columns_fit(self) -> Series:
        if not len(self.steps) == len(self.epochs) == len(self.values):
            raise ValueError("steps, epochs and values differ in length")
        if any(later <= earlier for earlier, later in zip(self.steps, self.steps[1:], strict=False)):
            raise ValueError("steps do not grow")
        return self

    def is_of(self, network: str, evaluator: str, measurement: Measurement) -> bool:
        """Whether the measurement continues this series."""
        key = (self.network, self.evaluator, self.metric, self.protocol, self.n)
        return key == (network, evaluator, measurement.metric, measurement.protocol, measurement.n)

    @property
    def best(self) -> int:
        """Index of the best value; of equal ones the first."""
        best = max(self.values) if self.higher_is_better else min(self.values)
        return self.values.index(best)


class Curves(RecordPart):
    """All series of a run, and the steps at which everything was measured that could be."""

    schema_version: int = SCHEMA_VERSION
    evaluated_steps: tuple[int, ...] = ()
    series: tuple[Series, ...] = ()

    def up_to(self, step: int) -> Curves:
        """The curves without what was measured after `step`, as a run resumed there finds them."""
        cut = []
        for series in self.series:
            kept = sum(one <= step for one in series.steps)
            columns = {name: getattr(series, name)[:kept] for name in ("steps", "epochs", "values")}
            if kept:
                cut.append(series.model_copy(update=columns))
        steps = tuple(one for one in self.evaluated_steps if one <= step)
        return self.model_copy(update={"evaluated_steps": steps, "series": tuple(cut)})

    def with_evaluations(self, step: int, epoch: int, evaluations: Sequence[EvaluationRecord]) -> Curves:
        """The curves with the measurements of every network after `step` steps and `epoch` epochs."""
        grown = list(self.series)
        for evaluation in evaluations:
            assert evaluation.network is not None
            for m in evaluation.measurements:
                known = [one.is_of(evaluation.network, evaluation.evaluator, m) for one in grown]
                if True not in known:
                    grown.append(
                        Series(
                            network=evaluation.network, evaluator=evaluation.evaluator, metric=m.metric, unit=m.unit,
                            higher_is_better=m.higher_is_better, n=m.n, protocol=m.protocol, primary=m.primary,
                            steps=(step,), epochs=(epoch,), values=(m.value,),
                        )
                    )  # fmt: skip
                else:
                    place = known.index(True)
                    one = grown[place]
                    columns = {
                        "steps": (*one.steps, step),
                        "epochs": (*one.epochs, epoch),
                        "values": (*one.values, m.value),
                    }
                    grown[place] = one.model_copy(update=columns)
        return self.model_copy(update={"evaluated_steps": (*self.evaluated_steps, step), "series": tuple(grown)})


def write_curves(folder: Path, curves: Curves) -> None:
    """Replace a run's curves, atomically."""
    write_atomically(folder / CURVES_FILE, sealed(curves, indent=None))


def read_curves(folder: Path, sha256: str | None = None) -> Curves:
    """A run's curves; none where it has no such file and no record says that it had.

    Raises `UserError` for a file that is damaged, of a newer version, or not the one whose SHA-256 the record holds.
    """
    path = folder / CURVES_FILE
    if not path.exists():
        if sha256 is not None:
            raise DamagedFile(f"{path} is missing: the record has its SHA-256. Restore it.")
        return Curves()
    curves = read_model(path, Curves, SCHEMA_VERSION)
    if sha256 is not None and _sha256(path) != sha256:
        raise DamagedFile(f"{path} is not the file that the record names: their SHA-256 differ. Restore it.")
    return curves


def summarize_curves(folder: Path) -> CurvesRecord | None:
    """What the record says of a run's curves: the file's SHA-256, and the main metric of every network."""
    curves = read_curves(folder)
    if not curves.evaluated_steps:
        return None
    return CurvesRecord(
        file=CURVES_FILE,
        sha256=_sha256(folder / CURVES_FILE),
        evaluated_steps=curves.evaluated_steps,
        summaries=tuple(
            CurveSummary(
                network=one.network, evaluator=one.evaluator, metric=one.metric, unit=one.unit,
                first=one.values[0], last=one.values[-1], best=one.values[one.best], best_step=one.steps[one.best],
                points=len(one.values),
            )
            for one in curves.series
            if one.primary
        ),
    )  # fmt: skip


def _sha256(path: Path) -> str:
    return hashlib.sha256(path.read_bytes()).hexdigest()
