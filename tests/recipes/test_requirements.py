"""What a method or an evaluator requires is compared with the architecture before any data are read."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from ssl_bench import registry
from ssl_bench.backbone import Capability
from ssl_bench.errors import UserError
from ssl_bench.recipes.request import Request
from ssl_bench.recipes.resolve import resolve
from ssl_bench.registry.capabilities import offer_of
from ssl_bench_plugins.backbones.timm_any import TimmAny, TimmSettings
from ssl_bench_plugins.methods.simclr import SimCLR
from tests.toy import ToyBackbone


@pytest.fixture(autouse=True)
def unread(monkeypatch: pytest.MonkeyPatch) -> None:
    """Data that are opened, and networks whose weights are drawn, fail the test."""

    def fail(*_: Any, **__: Any) -> None:
        raise AssertionError("data are opened")

    monkeypatch.setattr("ssl_bench.datasets.opening.find_dataset", fail)


@pytest.mark.parametrize(
    ("arch", "reason"),
    [("resnet18", "a convolutional network"), ("timm:test_resnet", "test_resnet"), ("timm:test_resnet.r160_in1k", "")],
)
def test_an_evaluator_is_refused_on_an_architecture_that_lacks_what_it_needs(arch: str, reason: str) -> None:
    with pytest.raises(UserError, match=rf"'voc-jaccard' needs attention, which {arch} does not have: .*{reason}"):
        resolve(Request(method="simclr", arch=arch, evaluators=("voc-jaccard",)))


@pytest.mark.parametrize("lacking", ["masking", "patch_tokens"])
def test_a_method_is_refused_so(monkeypatch: pytest.MonkeyPatch, lacking: str) -> None:
    monkeypatch.setattr(SimCLR, "requires", frozenset({lacking}))
    with pytest.raises(UserError, match=rf"the method 'simclr' needs {lacking}, which resnet18 does not have: it is a"):
        resolve(Request(method="simclr", arch="resnet18"))
    monkeypatch.setattr(SimCLR, "requires", frozenset({f"{lacking}s"}))
    with pytest.raises(UserError, match=f"Did you mean '{lacking}'"):
        resolve(Request(method="simclr", arch="deit_ti16"))


def test_what_the_architecture_has_is_let_through(tmp_path: Path) -> None:
    for arch in ("deit_ti16", "deit_s5", "timm:vit_tiny_patch16_224"):
        with pytest.raises(AssertionError, match="data are opened"):
            resolve(Request(method="simclr", arch=arch, evaluators=("voc-jaccard", "davis")))


def test_an_offer_is_that_of_the_built_network() -> None:
    for name in registry.names("backbone"):
        kind = registry.backbone(name)
        if "name" in kind.Config.model_fields:  # many networks
            continue
        assert offer_of(kind, kind.Config()) == (kind.supports, kind.why_not)
    network = TimmAny(TimmSettings(name="test_vit"), image_px=160)
    assert offer_of(TimmAny, TimmSettings(name="test_vit")) == (network.supports, network.why_not)
    attention: Capability = "attention"

    class ByInstance(ToyBackbone):
        def __init__(self, config: Any = None, *, image_px: int = 8, drop_path: float = 0.0) -> None:
            super().__init__(config, image_px=image_px)
            self.supports = frozenset({attention})

    assert offer_of(ByInstance, ByInstance.Config()) == (frozenset({attention}), {})

    class NeverBuilt(ToyBackbone):
        def __init__(self, *_: Any, **__: Any) -> None:
            raise RuntimeError

    assert offer_of(NeverBuilt, ToyBackbone.Config()) is None
