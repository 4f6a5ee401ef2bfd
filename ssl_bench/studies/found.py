"""What lies under results/ of a study already: finished runs, stopped ones, and those that another process does."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path

from ssl_bench.runs.folder import digest_of, in_use
from ssl_bench.runs.state import RUN_FILE
from ssl_bench.runs.which_run import free_run_id
from ssl_bench.studies.plan import StudyRun


@dataclass(frozen=True)
class FolderOfRun:
    """Where a run of a study is or will be, and how far it is."""

    folder: Path

    @property
    def recorded(self) -> bool:
        """Whether it has ended: finished, collapsed or failed, as its record says."""
        return (self.folder / "record.json").exists()

    @property
    def begun(self) -> bool:
        """Whether it was begun and can be resumed."""
        return (self.folder / RUN_FILE).exists() and not self.recorded

    @property
    def in_use(self) -> bool:
        """Whether another process is doing it now."""
        return not self.recorded and in_use(self.folder)


def folders_of(runs: Iterable[StudyRun], results: Path) -> dict[str, FolderOfRun]:
    """Digest -> the folder of each run, whatever the run is called; a run that was never begun gets its own name.

    Of several folders with one recipe a finished one counts, then one that can be resumed.
    """
    wanted = {run.recipe.digest: run for run in runs}
    found: dict[str, FolderOfRun] = {}
    for folder in sorted(results.glob("runs/[!.]*")):
        digest = digest_of(folder)
        if digest not in wanted:
            continue
        here, before = FolderOfRun(folder), found.get(digest)
        if before is None or (here.recorded, here.begun) > (before.recorded, before.begun):
            found[digest] = here
    for digest, run in wanted.items():
        if digest not in found:
            found[digest] = FolderOfRun(results / "runs" / free_run_id(run.recipe, results))
    return found
