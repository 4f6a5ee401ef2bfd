"""The checks of an evaluator, on a narrow network and a small dataset with masks and clips."""

from __future__ import annotations

import math
import random
import tempfile
from collections.abc import Mapping
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
import torch

from ssl_bench.backbone import Backbone
from ssl_bench.evaluation.features import FeatureStore
from ssl_bench.evaluator import Evaluation, Evaluator, FeatureKind, Features, Measurement, SplitName
from ssl_bench.settings import Settings, parse_settings
from ssl_bench.testing import common, subjects
from ssl_bench.testing.method_bench import moved, some, state_of
from ssl_bench.testing.outcomes import CheckFailed, CheckSkipped, require

CHANCE_AT_MOST = 75.0
"""Accuracy in % on 48 test images of 3 classes with labels drawn at random: chance is 33 with a deviation of 7."""


class Subject:
    """An evaluator class with its measurements of an untrained network."""

    def __init__(self, plugin: type[Evaluator], settings: Mapping[str, Any], path: Path | None = None) -> None:
        self.plugin, self.settings = plugin, dict(settings)
        self.kinds_read: set[FeatureKind] = set()
        """Of the features that every evaluation so far asked for."""

    @cached_property
    def config(self) -> Settings:
        """The defaults with the settings given."""
        return parse_settings(self.plugin.Config, self.settings, "evaluator", self.plugin.__name__)

    def configs(self) -> list[Settings]:
        """What goes through JSON."""
        return [self.config]

    def network(self) -> Backbone:
        """A narrow network that supports what the evaluator requires, untrained, in eval mode."""
        torch.manual_seed(0)
        return subjects.networks(self.plugin.requires)[0]().eval()

    def measure(
        self, network: Backbone, *, seed: int = 0, told: bool = True, labeled: bool = True
    ) -> list[Measurement]:
        """One evaluation, with every global generator at `seed`; `told` and `labeled` as in `SmallData`."""
        data = subjects.SmallData(told=told, labeled=labeled)
        store = FeatureStore(
            network, data, image_px=data.image_px, device=torch.device("cpu"), autocast_dtype=None,
            batch_size=48, workers=0,
        )  # fmt: skip

        def features(split: SplitName, kind: FeatureKind = "features") -> Features:
            self.kinds_read.add(kind)
            return store(split, kind)

        random.seed(seed)
        np.random.seed(seed)
        torch.manual_seed(seed)
        with tempfile.TemporaryDirectory() as folder:
            return list(self.plugin(self.config).evaluate(Evaluation(network, features, data, 0, Path(folder) / "out")))

    @cached_property
    def measurements(self) -> list[Measurement]:
        """The first evaluation. Raises `CheckSkipped` where it fails: `it measures` says so."""
        try:
            return self.measure(self.network())
        except Exception as error:
            raise CheckSkipped(f"it does not measure yet ({type(error).__name__})") from error


def it_measures(subject: Subject) -> None:
    """`evaluate` gives a list of measurements of a narrow, untrained network."""
    found = subject.measure(subject.network())
    require(
        bool(found) and all(isinstance(one, Measurement) for one in found),
        "evaluate() gives no list of Measurement: return [Measurement(metric=..., value=..., ...)]",
    )
    names = [one.metric for one in found]
    require(len(set(names)) == len(names), f"two measurements have one name: {names}")


def exactly_one_measurement_is_primary(subject: Subject) -> None:
    """One measurement is the one that tables show."""
    primary = [one.metric for one in subject.measurements if one.primary]
    require(len(primary) == 1, f"{len(primary)} measurements are primary {primary}: mark exactly one primary=True")


def values_are_finite(subject: Subject) -> None:
    """Every value is a finite number over at least one test item."""
    for one in subject.measurements:
        require(math.isfinite(one.value), f"{one.metric} is {one.value}: raise UserError where nothing can be measured")
        require(one.n > 0, f"{one.metric} is over n = {one.n} items: n counts the test items")


def protocol_and_unit_are_named(subject: Subject) -> None:
    """Every measurement says what decides its comparability, and its unit; texts tell protocols apart."""
    fields: dict[str, dict[str, Any]] = {}
    for one in subject.measurements:
        require(
            fields.setdefault(one.protocol.text, one.protocol.fields) == one.protocol.fields,
            f"{one.metric} shares the text of its protocol with another of other fields: make both with Protocol.of",
        )
        require(
            bool(one.protocol.text.strip()) and "\n" not in one.protocol.text,
            f"{one.metric} has no protocol in one line: name all that two numbers must share to be compared",
        )
        require(bool(one.unit.strip()), f'{one.metric} has no unit: e.g. "%", "s" or "1" for a pure number')


def the_same_input_gives_the_same_numbers(subject: Subject) -> None:
    """A second evaluation, with other global random numbers, measures the same."""
    first = [(one.metric, one.value, one.protocol) for one in subject.measurements]
    second = [(one.metric, one.value, one.protocol) for one in subject.measure(subject.network(), seed=1)]
    changed = [one[0] for one, other in zip(first, second, strict=False) if one != other]
    require(
        first == second,
        f"{some(changed)} is measured differently the second time: draw from a generator seeded with evaluation.seed",
    )


def the_network_is_left_as_it_is(subject: Subject) -> None:
    """Weights, running statistics and eval mode are the same afterwards, and no weight has a gradient."""
    network = subject.network()
    before = state_of(network, statistics=True)
    subject.measure(network)
    changed = moved(before, state_of(network, statistics=True))
    require(not changed, f"evaluate() changes {some(changed)}: fine-tune a copy.deepcopy of evaluation.backbone")
    require(not network.training, "evaluate() leaves the network in training mode: put it back with eval()")
    graded = [name for name, one in network.named_parameters() if one.grad is not None]
    require(not graded, f"evaluate() leaves a gradient on {some(graded)}: run the network under torch.no_grad()")


def test_labels_are_not_learned(subject: Subject) -> None:
    """With labels drawn at random an accuracy stays near chance: nothing was fitted to the test labels."""
    rates = [one for one in subject.measurements if one.unit == "%" and one.higher_is_better and one.n == 48]
    if not rates or subject.plugin.requires:
        raise CheckSkipped("there is no accuracy on the test images")
    for one in subject.measure(subject.network(), told=False):
        if one.metric in {rate.metric for rate in rates}:
            require(
                one.value <= CHANCE_AT_MOST,
                f"{one.metric} is {one.value:.0f} % where labels are random (chance: 33 %): fit on the training split, "
                "and read test labels only to count",
            )


def needs_labels_is_declared(subject: Subject) -> None:
    """An evaluator that declares `needs_labels = False` measures images without labels and without a test split."""
    if subject.plugin.needs_labels:
        return
    try:
        subject.measure(subject.network(), labeled=False)
    except Exception as error:
        raise CheckFailed(
            f"it declares needs_labels = False and fails on images without labels ({type(error).__name__}: {error}): "
            'read neither labels nor features("test") where evaluation.dataset.labeled is False, or leave it True'
        ) from error


def feature_kinds_are_those_read(subject: Subject) -> None:
    """An evaluator that declares `feature_kinds` asks for features of these kinds, and of no others."""
    declared = subject.plugin.feature_kinds
    if subject.kinds_read and not declared:
        raise CheckSkipped("it declares no feature_kinds: features that it asks for may take a pass of their own")
    assert subject.measurements
    require(
        declared == subject.kinds_read,
        f"it declares feature_kinds = {sorted(declared)} and reads {sorted(subject.kinds_read)}: declare what it reads",
    )


CHECKS = (
    common.docstring_present,
    common.settings_are_described,
    common.functions_take_what_they_are_given,
    common.required_capabilities_exist,
    it_measures,
    common.settings_round_trip_through_json,
    exactly_one_measurement_is_primary,
    values_are_finite,
    protocol_and_unit_are_named,
    the_same_input_gives_the_same_numbers,
    the_network_is_left_as_it_is,
    needs_labels_is_declared,
    feature_kinds_are_those_read,
    test_labels_are_not_learned,
)
