"""Which runs fill a table: the part `[runs]` of a description, one variant per row, and the sizes it can be run in.

    [runs]
    include = ["included/sizes.toml"]

    [[runs.variant]]
    name = "without multi-crop"
    method = "dino"
    arch = "deit_s16"
    set = { "method.local_views" = 0 }
    show = { multicrop = "no" }

A size (`[size.NAME]` in an included file, `[runs.size.NAME]` in the table) says on which data, for how long and with
which smaller network the same rows are run. `Runs.run` puts both together: an ordinary run, the one that
`sslbench run METHOD --arch ARCH --set ...` makes.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Annotated, Any, Self

from pydantic import BaseModel, BeforeValidator, ConfigDict, Field

from ssl_bench.errors import unknown_name
from ssl_bench.tables.paths import flatten

VARIANT = "variant"
"""Where a row reads what the variants show: `variant.ID`, and `variant.name`."""


class DescriptionPart(BaseModel):
    """Base of what stands in a description: immutable, no unknown keys."""

    model_config = ConfigDict(frozen=True, extra="forbid", populate_by_name=True)


def _flat(value: Any) -> Any:
    return flatten(value) if isinstance(value, Mapping) else value


SettingValues = Annotated[dict[str, Any], BeforeValidator(_flat)]
"""Names that `--set` takes -> values; `training.epochs = 3` without quotes, which TOML nests, means the same."""


class Changes(DescriptionPart):
    """What a size changes for one architecture, one method or one variant; empty: nothing."""

    arch: str = ""
    """The architecture that takes the place of the table's."""
    data: str = ""
    preset: str | None = None
    set: SettingValues = Field(default_factory=dict)

    def over(self, base: Changes) -> Changes:
        """`base` with these changes laid over it."""
        given = {name: getattr(self, name) for name in self.model_fields_set}
        return base.model_copy(update=given | {"set": {**base.set, **self.set}})


class Variant(DescriptionPart):
    """One row of a table as the run that fills it."""

    name: str = Field(min_length=1)
    """Unique in the table."""
    method: str
    arch: str
    """The table's architecture, for which a size may put a smaller one."""
    preset: str | None = None
    """The method's preset where it is not the size's."""
    set: SettingValues = Field(default_factory=dict)
    show: dict[str, str] = Field(default_factory=dict)
    """Row id -> text, for the rows of the description that have no `from`; it also joins the published file."""


class Size(DescriptionPart):
    """How large the runs of a table are: data, seeds, evaluators, and settings for all of them."""

    about: str = ""
    """What it needs, in a sentence."""
    data: str = ""
    """What is trained on, as `--data` takes it."""
    eval_data: tuple[str, ...] = ()
    """What is evaluated on, as `--eval-data` takes it; empty: the training data."""
    seeds: int = Field(3, ge=1, le=1000)
    """Number of runs of each variant, with the seeds 0, 1, 2, ..."""
    preset: str | None = None
    """The methods' preset; None: the one that `sslbench run` would choose."""
    evaluators: tuple[str, ...] | None = Field(None, alias="with")
    """As `--with` takes them; None: the ones that `sslbench run` would choose."""
    image_px_at_most: int | None = Field(None, ge=8)
    """Of data given in place of the size's: larger images are seen at this size; None: as they would be alone."""
    images_at_most: int | None = Field(None, ge=1)
    """Of data given in place of the size's: of more training images a share is used; None: all."""
    set: SettingValues = Field(default_factory=dict)
    arch: dict[str, Changes] = Field(default_factory=dict)
    """The table's architecture -> what is changed for it."""
    method: dict[str, Changes] = Field(default_factory=dict)
    """Method -> what is changed for it."""
    variant: dict[str, Changes] = Field(default_factory=dict)
    """Name of a variant -> what this size changes of it, e.g. a smaller patch on smaller images."""

    def over(self, base: Self | None) -> Self:
        """`base` with what this size says laid over it, setting by setting."""
        if base is None:
            return self
        given = {name: getattr(self, name) for name in self.model_fields_set}
        given["set"] = {**base.set, **self.set}
        for name in ("arch", "method", "variant"):
            before: dict[str, Changes] = getattr(base, name)
            changed: dict[str, Changes] = getattr(self, name)
            given[name] = before | {key: one.over(before.get(key, Changes())) for key, one in changed.items()}
        return base.model_copy(update=given)


class IncludedSizes(DescriptionPart):
    """A file of sizes that descriptions include."""

    size: dict[str, Size] = Field(min_length=1)


@dataclass(frozen=True)
class VariantRun:
    """A variant in one size: what `sslbench run` would be given, but for the seed."""

    variant: Variant
    size: str
    method: str
    arch: str
    data: str
    eval_data: tuple[str, ...]
    preset: str | None
    evaluators: tuple[str, ...] | None
    settings: Mapping[str, Any]
    """Names that `--set` takes -> values."""
    seeds: int


class Runs(DescriptionPart):
    """The part `[runs]` of a description."""

    include: tuple[str, ...] = ()
    """Files of sizes, beside the description or in benchmarks/tables."""
    variant: tuple[Variant, ...] = Field(min_length=1)
    size: dict[str, Size] = Field(default_factory=dict)
    """With the included ones once a description is loaded."""

    def run(self, variant: Variant, size: str) -> VariantRun:
        """A variant in a size. Settings, later ones win: the size's, its changes for the architecture, for the method,
        the variant's own, the size's changes for the variant.

        Raises `UserError` for an unknown size.
        """
        if size not in self.size:
            raise unknown_name("size", size, self.size)
        chosen = self.size[size]
        of_arch, of_method, of_variant = (
            changes.get(name, Changes())
            for changes, name in (
                (chosen.arch, variant.arch),
                (chosen.method, variant.method),
                (chosen.variant, variant.name),
            )
        )
        changes = (of_variant, of_method, of_arch)  # the first that says something wins
        presets = (of_variant.preset, variant.preset, of_method.preset, of_arch.preset, chosen.preset)
        return VariantRun(
            variant=variant,
            size=size,
            method=variant.method,
            arch=next((one.arch for one in changes if one.arch), variant.arch),
            data=next((one.data for one in changes if one.data), chosen.data),
            eval_data=chosen.eval_data,
            preset=next((preset for preset in presets if preset is not None), None),
            evaluators=chosen.evaluators,
            settings={**chosen.set, **of_arch.set, **of_method.set, **variant.set, **of_variant.set},
            seeds=chosen.seeds,
        )

    def all_runs(self, size: str) -> tuple[VariantRun, ...]:
        """Every variant in a size, in the table's order."""
        return tuple(self.run(variant, size) for variant in self.variant)
