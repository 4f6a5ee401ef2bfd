"""Methods that break their contract, as an impatient author runs them: one clear message each."""

from __future__ import annotations

import json
import re
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from ssl_bench import registry
from ssl_bench.errors import UserError
from ssl_bench.evaluation.evaluate import refuse_unsupported
from ssl_bench.registry.preflight import why_no_plugin, wrong_hook
from ssl_bench.testing.checking import CONTRACTS, checks_of
from ssl_bench.testing.outcomes import CheckFailed
from tests.conftest import Command
from tests.end_to_end.test_end_to_end import data  # noqa: F401
from tests.toy import ToyBackbone

SOURCE = '''"""Methods that break their contract (unpublished)."""
import torch
from torch import nn
from ssl_bench.method import Method, Preset, StepOutput
from ssl_bench.settings import Settings, setting
from ssl_bench.blocks.views import Crop, MultiCrop

class Base(Method):
    """Base."""
    class Config(Settings):
        size: int = setting(3, "A size.")
    def __init__(self, config, make_backbone):
        Method.__init__(self, config, make_backbone)
        self.backbone = make_backbone()
        self.head = nn.Linear(self.backbone.feature_dim, 4)
    @classmethod
    def make_views(cls, config):
        return MultiCrop([(Crop(16, (0.3, 1.0)), 1)])
    def step(self, batch, progress):
        return StepOutput(self.head(self.backbone(batch.views[0])).square().mean())
    def networks(self):
        return {"backbone": self.backbone}

class NoConfig(Method):
    make_views, step, networks = Base.make_views, Base.step, Base.networks

class PlainConfig(Base):
    class Config:
        size = 3

class WrongDefault(Base):
    class Config(Settings):
        size: int = setting("three", "A size.")

class NoStep(Method):
    Config, __init__, make_views = Base.Config, Base.__init__, Base.make_views
    networks = Base.networks

class NoViews(Method):
    Config, __init__, step, networks = Base.Config, Base.__init__, Base.step, Base.networks

class OnlyLoss(Base):
    def step(self, batch, progress):
        return super().step(batch, progress).loss

class LossOfEach(Base):
    def step(self, batch, progress):
        return StepOutput(self.head(self.backbone(batch.views[0])).square().mean(dim=1))

class NaNLoss(Base):
    def step(self, batch, progress):
        return StepOutput(super().step(batch, progress).loss * float("nan"))

class NoGradient(Base):
    @torch.no_grad()
    def step(self, batch, progress):
        return super().step(batch, progress)

class LogsVector(Base):
    def step(self, batch, progress):
        return StepOutput(super().step(batch, progress).loss, {"norms": torch.zeros(4)})

class CarriesNumber(Base):
    def step(self, batch, progress):
        return StepOutput(super().step(batch, progress).loss, {}, {"mean": torch.zeros(())})

class NoFunction(Base):
    @classmethod
    def make_views(cls, config):
        pass

class Uneven(Base):
    @classmethod
    def make_views(cls, config):
        return lambda image, rng: (torch.zeros(3, 16, rng.randint(14, 18)),)

class NoBackbone(Base):
    def networks(self):
        return {"head": self.head}

class FillsNothing(Base):
    @classmethod
    def fill(cls, config, situation):
        pass

class WrongPreset(Base):
    presets = {"small-data": Preset("", {"method.sise": 3})}

class Patches(Base):
    requires = frozenset({"patch_tokens"})

class Crashes(Base):
    def __init__(self, config, make_backbone):
        raise KeyError("weights")

class NoNetworks(Base):
    def networks(self):
        return {}

class OddNames(Base):
    def networks(self):
        return {"the teacher": self.backbone}

class FirstContract(Base):
    def evaluation_backbone(self):
        return self.backbone

class WrongHook(Base):
    def prepare(self):
        pass

class PlainHook(Base):
    def batch_views(self, config, views, rng):
        return views

class TrainsTokenizer(Base):
    frozen = frozenset({"head"})

class RaisesInPrepare(Base):
    def prepare(self, batches):
        raise RuntimeError("the vocabulary is empty")

class CrashesLater(Base):
    def update(self, carry, progress):
        if progress.step == 3:
            raise ZeroDivisionError("by nothing")
'''
CASES = {
    "NoConfig": "the method 'noconfig' of bad-bench 1.0 (outside_bad:NoConfig) has no Config: add a class attribute",
    "PlainConfig": "has a Config that is not a settings model: make Config a subclass of ssl_bench.settings.Settings",
    "WrongDefault": "'method.size' = 'three': input should be a valid integer",
    "NoStep": "has no step(): write def step(self, batch, progress), which returns StepOutput(loss, logs, carry); or,",
    "NoViews": "has no make_views(): write it. The augmentation of one image",
    "OnlyLoss": "the method 'onlyloss': step() gives a tensor of shape (). Return StepOutput(loss, logs, carry)",
    "LossOfEach": "as its loss a tensor of shape (8,). Reduce it to one number, e.g. loss.mean()",
    "NaNLoss": "the loss nan before anything is trained",
    "NoGradient": "a loss without a gradient. Compute it outside of torch.no_grad()",
    "LogsVector": "as logs['norms'] a tensor of shape (4,). Log one number",
    "CarriesNumber": "as carry['mean'] a tensor of shape (). Give it a leading dimension",
    "NoFunction": "make_views() gives None. Return a function of (image, Random)",
    "Uneven": "views differ in shape from image to image",
    "NoBackbone": "networks()['head'] is Linear(",
    "NoNetworks": 'networks() gives {}. Return e.g. {"teacher": self.teacher',
    "OddNames": "networks() names a network 'the teacher'. Give it letters",
    "WrongHook": "has prepare(self), which is not how it is called: write def prepare(self, batches)",
    "PlainHook": "write @classmethod def batch_views(cls, config, views, rng)",
    "TrainsTokenizer": "names 'head' as frozen, and head.weight requires a gradient: call self.head.requires_grad_(",
    "RaisesInPrepare": "prepare() of RaisesInPrepare fails: a plugin of bad-bench 1.0 fails: RuntimeError: the",
    "FirstContract": "has evaluation_backbone(), which networks() replaced: write def networks(self)",
    "FillsNothing": "fill() gives None. Return the settings",
    "WrongPreset": "'method.sise' is not a setting of wrongpreset. Did you mean 'method.size'?",
    "Patches": "the method 'patches' needs patch_tokens, which resnet18 does not have",
    "Crashes": "a plugin of bad-bench 1.0 fails: KeyError: 'weights' (outside_bad.py, line 94)",
}


@pytest.fixture
def bad_bench(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    """The distribution bad-bench with all of them, under their names in lower case."""
    names = ["Base", "CrashesLater", *CASES]
    info = tmp_path / "bad_bench-1.0.dist-info"
    info.mkdir()
    (info / "METADATA").write_text("Metadata-Version: 2.1\nName: bad-bench\nVersion: 1.0\n")
    targets = "".join(f"{name.lower()} = outside_bad:{name}\n" for name in names)
    (info / "entry_points.txt").write_text(f"[ssl_bench.methods.v1]\n{targets}")
    (tmp_path / "outside_bad.py").write_text(SOURCE)
    monkeypatch.syspath_prepend(str(tmp_path))
    registry.refresh()
    yield tmp_path
    registry.refresh()
    sys.modules.pop("outside_bad", None)


def arguments(name: str, images: Path) -> list[str]:
    sets = ("--set", "backbone.width=0.125", "--set", "training.precision=fp32", "--batch-size", "8", "--epochs", "1")
    return ["run", name.lower(), "--arch", "resnet18", "--data", str(images), "--with", "knn", *sets]


def test_the_method_that_the_broken_ones_are_made_from_works(
    sslbench: Command,
    data: Path,  # noqa: F811
    bad_bench: Path,
) -> None:
    assert sslbench(*arguments("Base", data))[0] == 0


@pytest.mark.parametrize("name", CASES)
def test_a_broken_method_is_one_clear_message_before_training(
    sslbench: Command,
    data: Path,  # noqa: F811
    bad_bench: Path,
    name: str,
) -> None:
    status, _, err = sslbench(*arguments(name, data))
    assert status == 2
    assert CASES[name] in err
    assert err.count("error:") == 1
    assert not list(bad_bench.glob("results/runs/*/metrics.jsonl"))


def test_what_crashes_while_it_trains_names_the_plugin_and_its_line(
    sslbench: Command,
    data: Path,  # noqa: F811
    bad_bench: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    status, _, err = sslbench(*arguments("CrashesLater", data))
    assert status == 2
    assert "a plugin of bad-bench 1.0 fails: ZeroDivisionError: by nothing (outside_bad.py, line 126)" in err
    assert "sslbench check NAME" in err
    monkeypatch.setenv("SSLBENCH_DEBUG", "1")
    with pytest.raises(ZeroDivisionError):
        sslbench(*arguments("CrashesLater", data), "--restart")


def test_the_first_step_is_tried_without_a_trace(
    sslbench: Command,
    data: Path,  # noqa: F811
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """Running statistics are put back: a run whose first step was tried is the run without."""
    from ssl_bench.runs import beginning

    lines = []
    for run_id in ("tried", "untried"):
        if run_id == "untried":
            monkeypatch.setattr(beginning, "first_step", lambda *_: None)
            monkeypatch.setattr(beginning, "require_step_output", lambda *_: None)
        assert sslbench(*arguments("byol", data), "--run-id", run_id)[0] == 0
        lines.append((tmp_path / "results" / "runs" / run_id / "metrics.jsonl").read_text())
    assert lines[0] == lines[1]
    assert json.loads(lines[0].splitlines()[0])["loss"] > 0


# capabilities


@pytest.mark.parametrize("kind", ["method", "evaluator"])
@pytest.mark.parametrize(
    ("required", "said"),
    [
        (frozenset({"pach_tokens"}), "Did you mean 'patch_tokens'?"),
        ({"attention", "attentoin"}, "Did you mean 'attention'?"),
        (frozenset({"crystal balls"}), "Known: patch_tokens, attention, masking, feature_maps"),
        ("attention", "requires 'attention': write requires = frozenset"),
        (["attention"], "write requires = frozenset"),
        (frozenset({3}), "write requires = frozenset"),
    ],
)
def test_a_capability_that_no_backbone_has_is_refused_when_loaded_and_fails_the_checks(
    kind: registry.Kind, required: Any, said: str
) -> None:
    official = registry.find(kind, "simclr" if kind == "method" else "knn").load()
    plugin = type("Wrong", (official,), {"__doc__": official.__doc__, "requires": required})
    assert said in why_no_plugin(plugin, CONTRACTS[kind])
    check = next(one for one in checks_of(kind) if one.name == "required capabilities exist")
    with pytest.raises(CheckFailed, match=re.escape(said)):
        check(plugin)
    assert why_no_plugin(official, CONTRACTS[kind]) == ""
    check(official)


@pytest.mark.parametrize(
    ("kind", "official", "name", "written", "said"),
    [
        ("evaluator", "knn", "evaluate", lambda self, backbone, others: [], "write def evaluate(self, evaluation)"),
        ("evaluator", "knn", "data", property(lambda self: None), "write def data(self, dataset)"),
        ("backbone", "deit_ti16", "forward", lambda self: None, "write def forward(self, images)"),
        ("backbone", "resnet18", "token_count", lambda self, side: 1, "write def token_count(self, height, width)"),
        ("dataset", "image-folder", "recognizes", lambda cls, path: True, "without @classmethod"),
        ("method", "simclr", "update", lambda self, carry: None, "write def update(self, carry, progress)"),
    ],
)
def test_a_function_with_a_wrong_signature_is_refused_when_loaded_and_fails_the_checks(
    kind: registry.Kind, official: str, name: str, written: Any, said: str
) -> None:
    base = registry.find(kind, official).load()
    plugin = type("Wrong", (base,), {"__doc__": base.__doc__, name: written})
    assert said in why_no_plugin(plugin, CONTRACTS[kind])
    check = next(one for one in checks_of(kind) if one.name == "functions take what they are given")
    with pytest.raises(CheckFailed, match=re.escape(said)):
        check(plugin)


@pytest.mark.parametrize("kind", registry.KINDS)
def test_every_official_plugin_takes_what_it_is_given(kind: registry.Kind) -> None:
    for plugin in (registry.find(kind, name) for name in registry.names(kind)):
        assert plugin.lacking() or wrong_hook(plugin.load(), CONTRACTS[kind].__name__) == ""


def test_an_evaluator_that_decides_by_its_settings_what_it_requires_is_refused_before_training() -> None:
    class Picky(registry.evaluator("knn")):  # type: ignore[misc]
        @property
        def requires(self) -> frozenset[str]:
            return frozenset({"atention"})

    assert why_no_plugin(Picky, CONTRACTS["evaluator"]) == ""
    with pytest.raises(UserError, match="Did you mean 'attention'"):
        refuse_unsupported(ToyBackbone(), "toy", [("picky", Picky(Picky.Config()))])
