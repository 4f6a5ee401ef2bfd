"""What lies under results/ of a study already: finished runs, stopped ones, and those that another process does."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from ssl_bench.records.recipe import EvaluatorPart, Recipe
from ssl_bench.records.record import RunRecord
from ssl_bench.runs.folder import digest_of, in_use
from ssl_bench.runs.state import RUN_FILE
from ssl_bench.runs.which_run import free_run_id
from ssl_bench.settings import DATA_PATH
from ssl_bench.studies.plan import StudyRun, training_digest


@dataclass(frozen=True)
class FolderOfRun:
    """Where a run of a study is or will be, and how far it is."""

    folder: Path
    missing: tuple[str, ...] = ()
    """Evaluators that a finished run with these networks still lacks."""

    @property
    def recorded(self) -> bool:
        """Whether it has ended: finished, collapsed or failed, as its record says."""
        return (self.folder / "record.json").exists()

    @property
    def done(self) -> bool:
        """Whether nothing of it is left to do."""
        return self.recorded and not self.missing

    @property
    def begun(self) -> bool:
        """Whether it was begun and can be resumed."""
        return (self.folder / RUN_FILE).exists() and not self.recorded

    @property
    def in_use(self) -> bool:
        """Whether another process is doing it now."""
        return not self.done and in_use(self.folder)


def folders_of(
    runs: Iterable[StudyRun], results: Path, records: Iterable[tuple[Path, RunRecord]] = ()
) -> dict[str, FolderOfRun]:
    """Digest -> the folder of each run, whatever the run is called; a run that was never begun gets its own name.

    Of several folders with one recipe a finished one counts, then one that can be resumed. A finished run of `records`
    (path and record) that trained the same networks stands for a run, too: with all its evaluators, or with its
    weights, so that the others can be caught up on.
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
    open_ones = {training_digest(run.recipe): run for digest, run in wanted.items() if _is_open(found.get(digest))}
    for path, record in records if open_ones else ():
        same = open_ones.get(training_digest_of(record))
        place = _with_same_networks(same, path.parent, record) if same else None
        if same and place:
            found[same.recipe.digest] = place
    taken = {place.folder.name for place in found.values()}
    for digest, run in wanted.items():
        if digest not in found:
            name = free_run_id(run.recipe, results, taken)
            taken.add(name)
            found[digest] = FolderOfRun(results / "runs" / name)
    return found


def training_digest_of(record: RunRecord) -> str:
    """`training_digest` of a record's recipe; "" for weights that were trained elsewhere."""
    return training_digest(Recipe.model_validate(record.recipe)) if record.weights is None else ""


def lacking(recipe: Recipe, record: RunRecord) -> tuple[str, ...]:
    """Evaluators of a recipe without a measurement of the record's network, with these settings on these data."""
    own = {record.data.fingerprint, *(one.fingerprint for one in record.eval_data)}
    measured = [one for one in record.evaluations if one.subject == "trained" or not record.steps]

    def is_there(part: EvaluatorPart) -> bool:
        return any(
            one.evaluator == part.name
            and _without_path(one.settings) == _without_path(part.settings)
            and one.data_fingerprint in (own if part.fingerprint is None else {part.fingerprint})
            for one in measured
        )

    return tuple(part.name for part in recipe.evaluators if not is_there(part))


def _is_open(place: FolderOfRun | None) -> bool:
    return place is None or not (place.recorded or place.begun)


def _with_same_networks(run: StudyRun, folder: Path, record: RunRecord) -> FolderOfRun | None:
    """A finished run that stands for `run`; None where it lacks evaluators and has no weights."""
    if record.status != "finished":  # its evaluators measured nothing, and none ever will
        return FolderOfRun(folder)
    missing = lacking(run.recipe, record)
    kept = not record.steps or (folder / "weights.safetensors").exists()
    return FolderOfRun(folder, missing) if kept or not missing else None


def _without_path(settings: Mapping[str, Any]) -> dict[str, Any]:
    return {key: value for key, value in settings.items() if key != DATA_PATH}
