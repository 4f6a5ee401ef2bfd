"""Predicted memory of an evaluation against the same forward pass on real tensors, for every kind of backbone."""

from __future__ import annotations

import pytest
import torch

from ssl_bench import registry
from ssl_bench.backbone import Backbone
from ssl_bench.planning.evaluation_memory import FLOAT, SEARCH_BLOCKS, predict_evaluation
from ssl_bench.planning.live_memory import LiveMemory
from ssl_bench.planning.stand_in import StandIn
from ssl_bench.settings import parse_settings

SMALL = {
    "deit_ti16": {"depth": 2, "dim": 64, "heads": 2, "patch_px": 8},
    "resnet18": {"width": 0.125},
    "timm": {"name": "test_convnext"},
}
DATA = StandIn(StandIn.Config(image_px=32, train_images=100))


def built(arch: str) -> Backbone:
    kind = registry.backbone(arch)
    config = parse_settings(kind.Config, SMALL[arch], "backbone", arch)
    return kind(kind.fill(config, 32, {}), image_px=32)


@pytest.mark.parametrize("arch", SMALL)
def test_prediction_is_the_real_pass(arch: str) -> None:
    """Within 2 %, as for a training step."""
    network = built(arch).train()
    predicted = predict_evaluation(network, DATA, 16)
    memory = LiveMemory()
    memory.add([*network.parameters(), *network.buffers()], "weights")
    network.eval()
    with torch.no_grad(), memory:
        images = torch.zeros(16, 3, 32, 32)
        dims = [network(images).shape[1], network.probe_features(images).shape[1]]
    assert predicted.extraction == pytest.approx(memory.at_peak["activations"], rel=0.02)
    if type(network).probe_features is Backbone.probe_features:
        dims = dims[:1]
    assert predicted.features == 50_100 * sum(dims) * FLOAT
    assert predicted.search == (100 + 2 * 50_000) * dims[0] * FLOAT + SEARCH_BLOCKS


def test_a_network_that_looks_at_numbers_is_measured(monkeypatch: pytest.MonkeyPatch) -> None:
    """Along a straight line from a pass of two images, within 5 %: every tensor of this network grows with them."""
    network = built("resnet18")
    truth = predict_evaluation(network, DATA, 16).extraction
    forward = type(network).forward

    def looks(self: Backbone, images: torch.Tensor) -> torch.Tensor:
        assert images.sum().item() == 0
        return forward(self, images)

    monkeypatch.setattr(type(network), "forward", looks)
    assert predict_evaluation(network, DATA, 16).extraction == pytest.approx(truth, rel=0.05)
