"""Predicted memory of a step against the same step on real tensors, for every registered method."""

from __future__ import annotations

import pytest
import torch

from ssl_bench.blocks.optimizers import OptimizerSettings
from ssl_bench.errors import UserError
from ssl_bench.method import Batch, Method, Progress, StepOutput
from ssl_bench.planning import step_memory
from ssl_bench.planning.choices import Choice
from ssl_bench.planning.live_memory import LiveMemory
from ssl_bench.planning.stand_in import open_stand_in
from ssl_bench.planning.step_memory import PARTS, HowToStep, StepMemory, measure_step, predict_step, view_shapes
from ssl_bench.planning.without_numbers import shape_tensors
from ssl_bench.recipes.request import Request
from ssl_bench.recipes.resolve import Resolved, resolve
from ssl_bench.runs.building import build_method
from ssl_bench.runs.predicting import StepPredictor
from tests.methods import WITH_SETTINGS

TRAINED = [name for name in WITH_SETTINGS if name != "random"]
SMALL = {
    "deit_ti16": {"backbone.depth": 2, "backbone.dim": 64, "backbone.heads": 2, "backbone.patch_px": 8},
    "resnet18": {"backbone.width": 0.125},
    "timm": {},
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


@pytest.mark.parametrize(
    ("method", "arch"), [*((name, "deit_ti16") for name in TRAINED), ("simclr", "resnet18"), ("mocov2", "resnet18")]
)
def test_prediction_in_micro_batches_is_the_real_step(method: str, arch: str) -> None:
    """Two of eight micro-batches are computed; the real step computes all. Operations are counted exactly."""
    parts = built(recipe(method, arch, **{"training.batch_size": 16}))
    how = HowToStep(micro_batch=2)
    predicted, measured = predict_step(*parts, how), measure_step(*parts, how)
    assert predicted.peak == pytest.approx(measured.peak, rel=0.02)
    assert predicted.operations == pytest.approx(measured.operations, rel=1e-9)


def test_a_gpu_holds_the_views_of_one_micro_batch() -> None:
    """2 views of 3 x 32 x 32 float32 of each image: 24 KB an image."""
    parts = built(recipe("simclr", "deit_ti16", **{"training.batch_size": 16}))
    views = {
        (micro_batch, on_device): predict_step(*parts, HowToStep(micro_batch, None, on_device)).parts["views"] // 24576
        for micro_batch, on_device in ((None, True), (None, False), (4, True), (4, False))
    }
    assert views == {(None, True): 16, (None, False): 16, (4, True): 16, (4, False): 4}


def test_half_precision_is_the_real_step() -> None:
    """Weights that autocast converts count until the backward pass is over: within 2 %, like single precision."""
    parts, how = built(recipe("byol", "deit_ti16")), HowToStep(autocast_dtype=torch.float16)
    predicted, measured = predict_step(*parts, how), measure_step(*parts, how)
    assert predicted.peak == pytest.approx(measured.peak, rel=0.02)
    assert predicted.operations == pytest.approx(measured.operations, rel=1e-9)


def test_what_shapes_cannot_follow_is_predicted_by_fake_tensors(monkeypatch: pytest.MonkeyPatch) -> None:
    """A tensor that gets another size, while little else is there: the step takes what it takes without it."""
    resolved = recipe("supervised", "resnet18")
    plain = predict_step(*built(resolved))
    step = resolved.method.step

    def resizes(self: Method, batch: Batch, progress: Progress) -> StepOutput:
        resized = torch.zeros(1).resize_(1024)
        output = step(self, batch, progress)
        return StepOutput(output.loss + resized.sum(), output.logs, output.carry)

    monkeypatch.setattr(resolved.method, "step", resizes)
    assert predict_step(*built(resolved)).peak == pytest.approx(plain.peak, rel=1e-3)
    monkeypatch.setattr(step_memory, "KINDS", (shape_tensors,))
    with pytest.raises(UserError, match="changes the shape of a tensor in place"):
        predict_step(*built(resolved))


def test_operations_of_a_step_by_hand() -> None:
    """A patch embedding of 2 views of 8 images, 16 patches of 192 values to 64: forward 2 operations each, and the
    gradient of the weights as many again (none of the images)."""
    counted = LiveMemory()
    layer = torch.nn.Linear(192, 64)
    with counted:
        layer(torch.zeros(2 * 8, 16, 192)).sum().backward()
    assert counted.operations == 2 * (2 * 2 * 8 * 16 * 192 * 64)


def test_attention_counts_on_a_cpu() -> None:
    """(batch, heads, tokens, dim) = (2, 3, 10, 4): two products of 10 x 10 x 4 forward; four and the scores again
    backward."""
    counted = LiveMemory()
    query, key, value = (torch.zeros(2, 3, 10, 4, requires_grad=True) for _ in range(3))
    with counted:
        attended = torch.nn.functional.scaled_dot_product_attention(query, key, value)
        forward = counted.operations
        attended.sum().backward()
    assert forward == 2 * 3 * 2 * (2 * 10 * 10 * 4)
    assert counted.operations - forward == 2 * 3 * 5 * (2 * 10 * 10 * 4)


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


def test_checkpointing_micro_batches_and_smaller_batches_need_less() -> None:
    resolved = recipe("dino", "deit_ti16", **{"backbone.depth": 3, "training.batch_size": 32, "method.out_dim": 64})
    predictor = StepPredictor(resolved, batch_on_device=False)
    plain = predictor.memory(Choice("fp32", False))
    recomputed = predictor.memory(Choice("fp32", True))
    in_parts = predictor.memory(Choice("fp32", False, micro_batch=8))
    assert recomputed.peak < plain.peak
    assert 1.1 * plain.operations < recomputed.operations < 4 / 3 * plain.operations
    assert in_parts.peak < plain.peak
    assert in_parts.operations == pytest.approx(plain.operations, rel=1e-9)
    assert predictor.note == ""
    assert not any(getattr(module, "grad_checkpointing", False) for module in predictor.method.modules())


def test_a_batch_on_the_host_is_not_counted() -> None:
    """Four times the images in micro-batches of the same size take only what each micro-batch leaves behind."""

    def peak(images: int) -> int:
        values = {"backbone.depth": 3, "training.batch_size": images, "method.out_dim": 64}
        resolved = recipe("dino", "deit_ti16", **values)
        return StepPredictor(resolved, batch_on_device=False).memory(Choice("fp32", False, micro_batch=8)).peak

    of_the_image = 3 * 32**2 * 4  # one view
    assert 0 <= peak(128) - peak(32) < 96 * of_the_image


def test_a_step_that_reads_numbers_is_measured(monkeypatch: pytest.MonkeyPatch) -> None:
    """Along the line through batches of 2 and 4; a convnet's memory is such a line within 5 %."""
    resolved = recipe("supervised", "resnet18", **{"training.batch_size": 16})
    choices = Choice("fp32", False), Choice("fp32", False, micro_batch=8)
    truth = [StepPredictor(resolved, batch_on_device=False).memory(choice) for choice in choices]
    step = resolved.method.step

    def reads(self: Method, batch: Batch, progress: Progress) -> StepOutput:
        output = step(self, batch, progress)
        assert output.loss.item() is not None
        return output

    monkeypatch.setattr(resolved.method, "step", reads)
    predictor = StepPredictor(resolved, batch_on_device=False)
    for choice, true in zip(choices, truth, strict=True):
        assert predictor.memory(choice).peak == pytest.approx(true.peak, rel=0.05)
        assert predictor.memory(choice).operations == pytest.approx(true.operations, rel=0.01)
    assert "cannot be predicted" in predictor.note
    assert "2 and 4 images were measured" in predictor.note


def test_between_two_measurements() -> None:
    def memory(size: int) -> StepMemory:
        return StepMemory({"weights": 100, "activations": size})

    assert StepMemory.on_line((2, memory(20)), (4, memory(44)), 10).parts == {"weights": 100, "activations": 116}
    assert StepMemory.on_line((2, memory(20)), (4, memory(44)), 0).parts["activations"] == 0
