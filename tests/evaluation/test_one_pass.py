"""All evaluators of a network together send each image through it once, whatever the network."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from ssl_bench import registry
from ssl_bench.backbone import Backbone
from ssl_bench.evaluation.evaluate import build_evaluators, evaluate_network
from ssl_bench.evaluation.features import FeatureStore
from ssl_bench.evaluator import FeatureKind
from ssl_bench.testing.backbone_bench import Subject
from tests.contract.test_backbone_contract import CASES
from tests.toy import ToyBackbone, ToyDataset

QUICK: dict[str, dict[str, Any]] = {
    "knn": {"neighbors": [3], "reported": 3},
    "linear-probe": {"min_steps": 2},
}
KINDS: tuple[FeatureKind, ...] = ("features", "probe_features")
EVALUATORS = [plugin.name for plugin in registry.plugins("evaluator") if plugin.distribution == registry.HOME]
TRAIN, TEST = 12, 12


class ProbeOfItsOwn(ToyBackbone):
    """A third-party backbone that has `forward` and `probe_features`, and no `both_features`."""

    def probe_features(self, images: Tensor) -> Tensor:
        return torch.cat([self(images), images.mean(dim=(2, 3))], dim=1)


def count_images(network: nn.Module) -> list[int]:
    """A list that gets the batch size of each call of the network's first layer."""
    layers = (one for one in network.modules() if not list(one.children()) and list(one.parameters()))
    calls: list[int] = []
    next(layers, network).register_forward_pre_hook(lambda _, given: calls.append(len(given[0])))
    return calls


def evaluate(network: Backbone, names: list[str], folder: Path) -> None:
    evaluators = build_evaluators([(name, QUICK.get(name, {})) for name in names])
    evaluate_network(
        network, "trained", evaluators, ToyDataset(count=TRAIN, px=network.image_px), seed=0,
        device=torch.device("cpu"), workers=0, run_dir=folder, places=names,
    )  # fmt: skip


@pytest.mark.parametrize(("name", "settings"), CASES, ids=[settings.get("name", name) for name, settings in CASES])
def test_each_image_goes_through_a_registered_network_once(name: str, settings: dict[str, Any], tmp_path: Path) -> None:
    network = Subject(registry.backbone(name), settings).build()
    calls = count_images(network)
    evaluate(network, ["knn", "linear-probe"], tmp_path)
    assert sum(calls) == TRAIN + TEST


@pytest.mark.parametrize("name", EVALUATORS)
def test_a_registered_evaluator_that_reads_features_declares_their_kinds(name: str) -> None:
    """That it reads those and no others is a check of the contract (`feature_kinds_are_those_read`)."""
    evaluator = registry.evaluator(name)
    assert evaluator.reads_images or evaluator.feature_kinds


def store(network: Backbone, **changes: Any) -> FeatureStore:
    settings: dict[str, Any] = {
        "image_px": network.image_px, "device": torch.device("cpu"), "autocast_dtype": None, "batch_size": 5,
        "workers": 0,
    }  # fmt: skip
    return FeatureStore(network, ToyDataset(count=TRAIN, px=network.image_px), **(settings | changes))


@pytest.mark.parametrize("name", ["deit_s16", "vit_b16", "resnet18", "own"])
@pytest.mark.parametrize("cached", [(), ("features",), ("probe_features",), ("features", "probe_features")])
def test_one_pass_gives_the_bits_of_two(
    name: str, cached: tuple[FeatureKind, ...], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Also where a run before has left one kind or both in the cache."""
    monkeypatch.setenv("SSLBENCH_CACHE", str(tmp_path))
    monkeypatch.setenv("SSLBENCH_CACHE_GB", "1")
    torch.manual_seed(0)
    network = ProbeOfItsOwn(image_px=32) if name == "own" else Subject(registry.backbone(name), {}).build()
    alone = store(network, keep=False)
    expected = {kind: alone("train", kind).vectors for kind in KINDS}
    for kind in cached:
        store(network)("train", kind)
    lines: list[str] = []
    together = store(network, kinds=KINDS, say=lines.append)
    for kind in KINDS:
        assert torch.equal(together("train", kind).vectors, expected[kind])
    if name == "resnet18":  # both kinds are the same vectors
        return
    extracted = [line for line in lines if "from the cache" not in line]
    missing = [kind for kind in KINDS if kind not in cached]
    assert [line.partition(" of train")[0] for line in extracted] == ([" and ".join(missing)] if missing else [])


def test_a_subclass_with_another_forward_does_not_inherit_features_of_the_old_one() -> None:
    class Doubled(registry.backbone("deit_ti16")):  # type: ignore[misc]
        def forward(self, images: Tensor) -> Tensor:
            return 2 * super().forward(images)

    class OfDoubled(Doubled):
        pass

    for kind in (Doubled, OfDoubled):
        network = Subject(kind, {}).build()
        images = torch.randn(2, 3, network.image_px, network.image_px)
        both = network.both_features(images)
        assert torch.equal(both.features, network(images))
        assert torch.equal(both.probe_features, network.probe_features(images))


def test_a_kind_that_no_evaluator_declared_is_still_extracted() -> None:
    network = ProbeOfItsOwn(image_px=32).eval()
    calls = count_images(network)
    features = store(network, kinds=("features",))
    assert features("train").vectors.shape == (TRAIN, 6)
    assert features("train", "probe_features").vectors.shape == (TRAIN, 9)
    assert sum(calls) == 2 * TRAIN
