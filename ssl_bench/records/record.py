"""RunRecord: what a finished run leaves behind, one immutable JSON file; tables are folded from these alone."""

from __future__ import annotations

from pathlib import Path
from typing import Any, Literal

from pydantic import BaseModel, ValidationInfo, field_validator, model_validator

from ssl_bench.errors import UserError
from ssl_bench.measurement import Measurement
from ssl_bench.records.cost import MachineRecord, SpeedRecord, TrainingRecord
from ssl_bench.records.elsewhere import FeaturesOrigin, WeightsOrigin, WeightsRecipe
from ssl_bench.records.older import TEXT_PROTOCOLS_SCHEMA, in_current_form
from ssl_bench.records.part import Amount, RecordPart
from ssl_bench.records.recipe import Recipe
from ssl_bench.records.renamed_settings import assignments_with_current_names, with_current_names
from ssl_bench.records.state_file import sealed
from ssl_bench.system.files import cannot_write, write_atomically

SCHEMA_VERSION = 4
"""2: a file carries a fingerprint of itself (`state_file`), and a record may have notes. 3: evaluations name their
network and step, and a record its curves. 4: a protocol has fields, where it was one text."""
UNSEALED_SCHEMA = 1
"""The last version without a fingerprint; still read."""


class OutcomesRecord(RecordPart):
    """The file that holds what each test item scored."""

    file: str
    """Path below the run's folder."""
    sha256: str
    metrics: tuple[str, ...]
    """Those of the measurements that have outcomes."""


class EvaluationRecord(RecordPart):
    """One evaluator's measurements of one network of a run."""

    schema_version: int = SCHEMA_VERSION
    evaluator: str
    subject: Literal["trained", "untrained", "pretrained"]
    """Before the first step a network is "untrained", or "pretrained" where it starts from weights of another training
    ("untrained" in records of earlier versions)."""
    network: str | None = None
    """Its name in the method's `networks()`; None in records of schema 1 and 2."""
    step: int | None = None
    """Optimizer steps done; None in records of schema 1 and 2."""
    settings: dict[str, Any]
    data: str
    """Name of the dataset the evaluator read."""
    data_fingerprint: str
    synthetic: bool
    image_px: int
    measurements: tuple[Measurement, ...]
    seconds: Amount
    """Less where features or images were read from the cache."""
    plugin: str
    """Distribution and version that provided the evaluator."""
    pictures: tuple[str, ...] = ()
    """What it drew, as paths below the run's folder."""
    outcomes: OutcomesRecord | None = None
    """None where the evaluator gives none, and in records of earlier versions."""
    notes: tuple[str, ...] = ()
    """What a reader of the numbers must know, e.g. that test images were trained on; a run's own notes say it of its
    own evaluations."""
    made_utc: str

    @property
    def before_training(self) -> bool:
        """Whether the network is the one before the first step."""
        return self.subject != "trained"

    @model_validator(mode="before")
    @classmethod
    def _of_older_schema(cls, given: Any) -> Any:
        older = isinstance(given, dict) and given.get("schema_version", SCHEMA_VERSION) <= TEXT_PROTOCOLS_SCHEMA
        return in_current_form(given) if older else given

    @field_validator("settings")
    @classmethod
    def _current_settings(cls, settings: dict[str, Any], info: ValidationInfo) -> dict[str, Any]:
        return with_current_names(f"evaluators.{info.data.get('evaluator')}", settings)


class DataRecord(RecordPart):
    """A dataset as it was."""

    name: str
    plugin: str
    fingerprint: str
    synthetic: bool
    train_images: int
    """Images that the method trained on; of evaluation data those that evaluators fitted on."""
    test_images: int
    classes: int
    image_px: int
    notes: tuple[str, ...] = ()
    """How the data were read, e.g. which files were passed over."""


class BackboneRecord(SpeedRecord):
    """The evaluated network."""

    name: str
    plugin: str
    kind: str
    parameters: int
    """Of the extractor only, no head."""
    tokens: int | None
    """Tokens per image including CLS, registers and the like; None for a network without tokens."""
    pretrained: str = ""
    """The weights it started from where those were not random."""

    @property
    def start(self) -> Literal["untrained", "pretrained"]:
        """What the network is called before the first step."""
        return "pretrained" if self.pretrained else "untrained"


class CurveSummary(RecordPart):
    """The main metric of one evaluator on one network over training."""

    network: str
    evaluator: str
    metric: str
    unit: str
    first: float
    last: float
    best: float
    best_step: int
    points: int


class CurvesRecord(RecordPart):
    """What was measured during training, which stands in a file beside the record."""

    file: str
    sha256: str
    evaluated_steps: tuple[int, ...]
    summaries: tuple[CurveSummary, ...]


class StepCurvesRecord(RecordPart):
    """What training logged at each step, which stands in a file beside the record."""

    file: str
    sha256: str
    steps_per_row: int
    """Steps that a row of the file is the mean of."""
    rows: int
    names: tuple[str, ...]
    """The logged values, in the file's order."""


class RunRecord(RecordPart):
    """One run: its recipe, data, machine, cost and every measurement with its protocol."""

    schema_version: int = SCHEMA_VERSION
    run_id: str
    status: Literal["finished", "collapsed", "failed"]
    status_reason: str = ""
    notes: tuple[str, ...] = ()
    """What a reader of the numbers must know, e.g. that the data changed between two sessions."""
    preset: str
    preset_reason: str
    changed_settings: dict[str, Any] | None = None
    """What the recipe changes of its preset, e.g. {"method.local_views": 0}; None in records of version 0.1."""
    recipe: dict[str, Any]
    digest: str
    """Of the recipe and the data's fingerprint: equal digests mean the same run up to hardware."""
    seed: int
    method: str
    method_plugin: str
    backbone: BackboneRecord
    data: DataRecord
    eval_data: tuple[DataRecord, ...] = ()
    """What was evaluated on where that was not the training data; empty in records of schema 1 to 3."""
    machine: MachineRecord
    training: TrainingRecord | None
    """None for weights that were trained elsewhere."""
    weights: WeightsOrigin | None = None
    """Where the weights come from that were trained elsewhere; None for a run."""
    features: FeaturesOrigin | None = None
    """Where features come from that were made elsewhere; None where a network was evaluated."""
    evaluations: tuple[EvaluationRecord, ...]
    curves: CurvesRecord | None = None
    """None for a run without `training.eval_every`."""
    step_curves: StepCurvesRecord | None = None
    """None for a run without a training step, and in records of earlier versions."""
    versions: dict[str, str]
    git_commit: str | None
    """Of the working directory's checkout of sslbench when it is one, with "+changes" when it was dirty."""
    command: str
    started_utc: str
    finished_utc: str

    @property
    def steps(self) -> int:
        """Optimizer steps done here; 0 for weights that were trained elsewhere."""
        return 0 if self.training is None else self.training.steps

    @model_validator(mode="before")
    @classmethod
    def _current_changed_settings(cls, content: Any) -> Any:
        changed = content.get("changed_settings") if isinstance(content, dict) else None
        if not isinstance(changed, dict):
            return content
        return content | {"changed_settings": assignments_with_current_names(changed, str(content.get("method")))}

    @field_validator("recipe")
    @classmethod
    def _is_a_recipe(cls, recipe: dict[str, Any]) -> dict[str, Any]:
        """Also gives its settings today's names."""
        if "weights" in recipe:
            WeightsRecipe.model_validate(recipe)
            return recipe
        parsed = Recipe.model_validate(recipe)
        evaluators = zip(recipe["evaluators"], parsed.evaluators, strict=True)
        return recipe | {
            "method": recipe["method"] | {"settings": parsed.method.settings},
            "evaluators": [stored | {"settings": part.settings} for stored, part in evaluators],
        }


def write_record(record: BaseModel, path: Path) -> None:
    """Write a record once: temporary file, fsync, rename, fsync of the folder. An existing file is never replaced."""
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        exists = path.exists()
    except OSError as error:
        raise cannot_write(path, error) from error
    if exists:
        raise UserError(f"{path} exists; records are never overwritten. Give the run another --run-id or remove it.")
    write_atomically(path, sealed(record))
