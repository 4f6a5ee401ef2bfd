"""Predicted memory of a step against the same step on real tensors, for every registered method."""

from __future__ import annotations

import pytest
import torch

from ssl_bench.blocks.optimizers import OptimizerSettings
from ssl_bench.method import Method
from ssl_bench.planning.choices import Choice
from ssl_bench.planning.stand_in import open_stand_in
from ssl_bench.planning.step_memory import PARTS, StepMemory, measure_step, predict_step, view_shapes
from ssl_bench.recipes.resolve import Request, Resolved, resolve
from ssl_bench.runs.building import build_method
from ssl_bench.runs.predicting import StepPredictor
from tests.methods import WITH_SETTINGS

TRAINED = [name for name in WITH_SETTINGS if name != "random"]
SMALL = {
    "deit_ti16": {"backbone.depth": 2, "backbone.dim": 64, "backbone.heads": 2, "backbone.patch_px": 8},
    "resnet18": {"backbone.width": 0.125},
}


def recipe(method: str, arch: str, **values: object) -> Resolved:
    given = {"data.image_px": 32, "data.train_images": 4000, "training.batch_size": 8, **SMALL[arch], **values}
    return resolve(Request(method=method, arch=arch, values=given), open_stand_in)


def built(resolved: Resolved) -> tuple[Method, OptimizerSettings, list[tuple[torch.Size, torch.dtype]]]:
    method = build_method(resolved)
    make_views = method.make_views(resolved.method_config)
    views = view_shapes(method, make_views, resolved.recipe.training.batch_size, resolved.dataset.image_px)
    return method, OptimizerSettings(**resolved.recipe.optimizer), views


@pytest.mark.parametrize(
    ("method", "arch"), [*((name, "deit_ti16") for name in TRAINED), ("simclr", "resnet18"), ("mocov2", "resnet18")]
)
def test_prediction_is_the_real_step(method: str, arch: str) -> None:
    """Within 2 %: kernels of the CPU allocate a little that their fake twins do not."""
    parts = built(recipe(method, arch))
    predicted, measured = predict_step(*parts), measure_step(*parts)
    assert predicted.peak == pytest.approx(measured.peak, rel=0.02)
    weights = sum(4 * p.numel() for p in parts[0].parameters() if p.requires_grad)
    assert predicted.parts["weights"] == pytest.approx(weights, rel=0.05)  # rounded up to blocks
    assert set(predicted.parts) == set(PARTS)


def test_the_method_is_left_as_it_was() -> None:
    method, optimizer, views = built(recipe("mocov2", "resnet18"))
    method.eval()
    before = {name: value.clone() for name, value in method.state_dict().items()}
    random = torch.get_rng_state()
    predict_step(method, optimizer, views)
    assert torch.equal(torch.get_rng_state(), random)
    assert not method.training
    for name, value in method.state_dict().items():
        assert type(value) is torch.Tensor
        assert torch.equal(value, before[name]), name
    assert all(parameter.grad is None for parameter in method.parameters())


def test_checkpointing_and_smaller_batches_need_less() -> None:
    predictor = StepPredictor(recipe("dino", "deit_ti16", **{"backbone.depth": 3}))
    plain, checkpointed = Choice("fp32", False), Choice("fp32", True)
    assert predictor.memory(checkpointed, 32).peak < predictor.memory(plain, 32).peak
    assert predictor.memory(plain, 8).peak < predictor.memory(plain, 32).peak
    assert predictor.note == ""


def test_a_step_that_reads_numbers_is_measured(monkeypatch: pytest.MonkeyPatch) -> None:
    """Along the line through batches of 2 and 4; a convnet's memory is such a line within 5 %."""
    resolved = recipe("simclr", "resnet18")
    truth = StepPredictor(resolved).memory(Choice("fp32", False), 16).peak
    step = resolved.method.step

    def reads(self: Method, batch: object, progress: object) -> object:
        output = step(self, batch, progress)  # type: ignore[arg-type]
        assert output.loss.item() is not None
        return output

    monkeypatch.setattr(resolved.method, "step", reads)
    predictor = StepPredictor(resolved)
    assert predictor.memory(Choice("fp32", False), 16).peak == pytest.approx(truth, rel=0.05)
    assert "cannot be predicted" in predictor.note
    assert "2 and 4 images were measured" in predictor.note


def test_between_two_measurements() -> None:
    def memory(size: int) -> StepMemory:
        return StepMemory({"weights": 100, "activations": size})

    assert StepMemory.on_line((2, memory(20)), (4, memory(44)), 10).parts == {"weights": 100, "activations": 116}
    assert StepMemory.on_line((2, memory(20)), (4, memory(44)), 0).parts["activations"] == 0
