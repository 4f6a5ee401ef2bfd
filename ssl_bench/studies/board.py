"""How far a study is: one entry per run, which the scheduler moves on and the overview shows."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Literal

from ssl_bench.errors import UserError
from ssl_bench.records.reading import read_record, with_later_evaluations
from ssl_bench.records.record import RunRecord
from ssl_bench.studies.found import FolderOfRun, training_digest_of
from ssl_bench.studies.plan import StudyRun, training_digest
from ssl_bench.studies.worker import Working

Status = Literal[
    "waiting", "running", "elsewhere", "finished", "collapsed", "failed", "stopped", "refused", "broken", "over budget"
]
"""elsewhere: another process does it; stopped: saved and not finished; refused: it could not begin; broken: it ended
with an error or was killed; over budget: there is no time for it."""
RECORDED: tuple[Status, ...] = ("finished", "collapsed", "failed")
TROUBLE: tuple[Status, ...] = ("failed", "refused", "broken")


@dataclass
class Entry:
    """One run of the study as it stands."""

    run: StudyRun
    place: FolderOfRun
    status: Status = "waiting"
    done_before: bool = False
    """Whether its record was there when the study began."""
    working: Working | None = None
    """What its worker does now."""
    began: float = 0.0
    """Monotonic time at which its worker was started."""
    whole: bool = True
    """Whether its worker does all of it; False for a run that was resumed."""
    expected_seconds: float = 0.0
    """What was predicted of it when it was started; 0: nothing."""
    seconds: float = 0.0
    """What its worker took, once it has ended."""
    reason: str = ""
    """Why it failed, or what was saved of it."""

    record: RunRecord | None = None
    """Once the run has ended."""

    @property
    def name(self) -> str:
        """The row and seed, e.g. "dino-momentum, seed 0"."""
        return self.run.name

    def update_from_disk(self) -> None:
        """Recorded, done by another process at this moment, or still to be done; a stopped run is to be done."""
        self.status, self.reason = "elsewhere" if self.place.in_use else "waiting", ""
        if self.place.done:
            try:
                self.record = read_whole_record(self.place.folder)
            except UserError as error:
                self.status, self.reason = "broken", str(error)
            else:
                self.status, self.reason = self.record.status, self.record.status_reason
                if training_digest_of(self.record) != training_digest(self.run.recipe):
                    self.status, self.reason = "broken", f"{self.place.folder} holds another run"


def read_whole_record(folder: Path) -> RunRecord:
    """A run's record with the evaluations that were added later. Raises `UserError`."""
    return with_later_evaluations(read_record(folder / "record.json"), folder, [])


@dataclass
class Board:
    """All runs of a study, in the order in which they are done."""

    entries: Sequence[Entry]
    began: float
    """Monotonic time."""
    stopping: bool = field(default=False)
    """Whether the running ones are being saved."""

    def with_status(self, *statuses: Status) -> list[Entry]:
        """The entries that stand so."""
        return [entry for entry in self.entries if entry.status in statuses]

    @property
    def ended(self) -> list[Entry]:
        """Runs that have a record."""
        return self.with_status(*RECORDED)
