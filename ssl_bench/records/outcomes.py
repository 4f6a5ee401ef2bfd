"""What each test item scored, in a small file beside the record: a bit for right or wrong, else a float32.

A safetensors file with one array per metric: uint8 for packed bits (`numpy.packbits`; how many are items is in the
metadata `n`), float32 for scores, and `METRIC/clusters` where items were not drawn independently. The record holds the
file's SHA-256.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from ssl_bench.errors import UserError
from ssl_bench.measurement import Measurement, Outcomes
from ssl_bench.records.record import EvaluationRecord, OutcomesRecord, RunRecord
from ssl_bench.records.state_file import DamagedFile
from ssl_bench.system.files import cannot_write, write_atomically

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

SUFFIX = "-outcomes.safetensors"
CLUSTERS = "/clusters"

OutcomesSource = Callable[[RunRecord, EvaluationRecord, str], Outcomes | None]
"""Finds the outcomes of a metric of a run's evaluation; None where there are none."""


def no_outcomes(record: RunRecord, evaluation: EvaluationRecord, metric: str) -> None:
    """An `OutcomesSource` for records without the files beside them."""


def write_outcomes(folder: Path, place: str, measurements: Sequence[Measurement]) -> OutcomesRecord | None:
    """Write the outcomes of one evaluation to `folder`/`place` + `SUFFIX`; None, and no file, where there are none."""
    import numpy as np
    from safetensors.numpy import save

    arrays: dict[str, NDArray[np.generic]] = {}
    counts: dict[str, int] = {}
    for one in measurements:
        if one.outcomes is not None:
            values = one.outcomes.values
            arrays[one.metric] = np.packbits(values.astype(np.bool_)) if values.dtype == np.bool_ else values
            counts[one.metric] = len(values)
            if one.outcomes.clusters is not None:
                arrays[one.metric + CLUSTERS] = one.outcomes.clusters
    if not arrays:
        return None
    content = save(arrays, metadata={"n": json.dumps(counts, sort_keys=True)})
    path = folder / f"{place}{SUFFIX}"
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise cannot_write(path, error) from error
    write_atomically(path, content)
    return OutcomesRecord(file=f"{place}{SUFFIX}", sha256=_sha256(content), metrics=tuple(counts))


def read_outcomes(folder: Path, recorded: OutcomesRecord) -> dict[str, Outcomes]:
    """Metric -> outcomes, of an evaluation of the run in `folder`.

    Raises `DamagedFile` for a file that is not the one whose SHA-256 the record holds, `UserError` for a missing one.
    """
    import numpy as np
    from safetensors.numpy import load

    path = folder / recorded.file
    try:
        content = path.read_bytes()
    except OSError as error:
        raise UserError(f"cannot read the outcomes {path}: {error.strerror}") from None
    if _sha256(content) != recorded.sha256:
        raise DamagedFile(f"{path} is not the file that the record names: their SHA-256 differ. Restore it.")
    arrays = load(content)
    header = json.loads(content[8 : 8 + int.from_bytes(content[:8], "little")])
    found = {}
    for metric, n in json.loads(header["__metadata__"]["n"]).items():
        values = arrays[metric]
        if values.dtype == np.uint8:
            values = np.unpackbits(values, count=n).astype(np.bool_)
        found[metric] = Outcomes(values, arrays.get(metric + CLUSTERS))
    return found


class OutcomesOfRuns:
    """The outcomes of several runs, each file read once, when it is first asked for."""

    def __init__(self, folders: Mapping[str, Path]) -> None:
        self._folders = folders
        """Run id -> folder."""
        self._read: dict[tuple[str, str], dict[str, Outcomes]] = {}
        self.problems: list[str] = []
        """A line for each file that is not the one that its record names."""

    def __call__(self, record: RunRecord, evaluation: EvaluationRecord, metric: str) -> Outcomes | None:
        """None where an evaluation has none, and where its file is missing or changed."""
        recorded, folder = evaluation.outcomes, self._folders.get(record.run_id)
        if recorded is None or folder is None:
            return None
        key = (record.run_id, recorded.file)
        if key not in self._read:
            try:
                self._read[key] = read_outcomes(folder, recorded)
            except DamagedFile as damaged:
                self._read[key] = {}
                self.problems.append(str(damaged))
            except UserError:  # records can be kept without the files beside them
                self._read[key] = {}
        return self._read[key].get(metric)


def _sha256(content: bytes) -> str:
    return hashlib.sha256(content).hexdigest()
