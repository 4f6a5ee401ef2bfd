"""Which variant of a table a run is: by its method, architecture and the settings in which the variants differ.

A run that somebody typed by hand counts like one that `sslbench bench` started. What it changes beyond its variant,
e.g. the number of epochs, is its base: variants compare where their base is the same. A value that the preset of today
has itself is no change, and one that only an earlier version of the preset had makes a run an older one of its row
(`todays_preset`).
"""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass, field

from ssl_bench.records.record import RunRecord
from ssl_bench.tables.todays_preset import Changes, changes_of, recorded_setting, same_setting
from ssl_bench.tables.variants import Runs, VariantRun

NOT_COMPARED = ("machine.", "evaluators.", "eval_data.", "training.eval_every")
"""Settings that no training depends on."""


Base = tuple[tuple[str, str], ...]


@dataclass(frozen=True)
class Candidate:
    """A variant in a size, and the settings that tell it from the others."""

    position: int
    """Its place in the table."""
    run: VariantRun
    compared: frozenset[str]
    """Names of settings that some variant of the table sets, in any size or in this one, or that tell networks of it
    apart."""

    @property
    def texts(self) -> dict[str, str]:
        """What rows read under the path `variant`."""
        return {"name": self.run.variant.name, **self.run.variant.show}


@dataclass(frozen=True)
class Match:
    """A run as a variant."""

    candidate: Candidate
    base: Base
    """What it changes beyond the variant in its size, and its preset: sorted names with values as text."""
    older: frozenset[str] = frozenset()
    """Settings in which only an earlier version of the preset explains its value."""


@dataclass
class Matcher:
    """Finds the variants of runs."""

    runs: Runs
    by_network: dict[tuple[str, str], list[Candidate]] = field(default_factory=dict)
    """(method, architecture) -> candidates."""

    def __post_init__(self) -> None:
        of_variants = {name for variant in self.runs.variant for name in variant.set}
        for size, chosen in self.runs.size.items():
            runs = self.runs.all_runs(size)
            of_size = {name for changes in chosen.variant.values() for name in changes.set}
            of_size |= {name for arch in _sharing_a_network(runs) for name in chosen.arch[arch].set}
            compared = frozenset(name for name in of_variants | of_size if not name.startswith(NOT_COMPARED))
            for position, run in enumerate(runs):
                candidate = Candidate(position, run, compared)
                self.by_network.setdefault((run.method, run.arch), []).append(candidate)

    def find(self, record: RunRecord, changes: Changes | None = None) -> Match | None:
        """The variant that a run is; None for a run of no variant, and for weights that were trained elsewhere.

        `changes` is what it changes of today's preset; None: of the preset as it was.
        Of several sizes in which it fits, the one from which it changes least decides, then the one of its data.
        """
        candidates = self.by_network.get((record.method, record.backbone.name), ())
        if not candidates or record.weights is not None:
            return None
        changed = changes or changes_of(record)
        fitting = [
            Match(one, _base(record, one, changed.by_hand), changed.older - one.run.settings.keys())
            for one in candidates
            if _fits(record, one, changed.by_hand)
        ]
        return min(
            fitting, key=lambda match: (len(match.base), match.candidate.run.data != record.data.name), default=None
        )


def most_covered(bases: Mapping[Base, Collection[int]]) -> set[Base]:
    """The bases that have at least half as many variants as the one with most: a study, not a run of another one."""
    most = max((len(variants) for variants in bases.values()), default=0)
    return {base for base, variants in bases.items() if 2 * len(variants) >= most}


def _sharing_a_network(runs: Sequence[VariantRun]) -> set[str]:
    """The table's architectures for which one network stands with different settings, e.g. patches of 16 and 8 px."""
    tables: dict[str, set[str]] = {}
    for run in runs:
        tables.setdefault(run.arch, set()).add(run.variant.arch)
    return {arch for network, archs in tables.items() if len(archs) > 1 for arch in archs if arch != network}


def _fits(record: RunRecord, candidate: Candidate, by_hand: Collection[str]) -> bool:
    """Whether a run has every setting that the variant sets, and its preset's value of each that only others set."""
    for name in candidate.compared:
        if name in candidate.run.settings:
            if not same_setting(recorded_setting(record.recipe, name), candidate.run.settings[name]):
                return False
        elif name in by_hand:
            return False
    return True


def _base(record: RunRecord, candidate: Candidate, by_hand: Collection[str]) -> Base:
    changed: dict[str, str] = {}
    if candidate.run.preset not in (None, record.preset):
        changed["preset"] = record.preset
    for name in {*by_hand, *candidate.run.settings} - candidate.compared:
        if name.startswith(NOT_COMPARED):
            continue
        value = recorded_setting(record.recipe, name)
        if name not in candidate.run.settings or not same_setting(value, candidate.run.settings[name]):
            changed[name] = repr(value)
    return tuple(sorted(changed.items()))
