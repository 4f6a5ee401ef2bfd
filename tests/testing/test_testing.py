"""The contract checks: a sound plugin passes them all, and each fails on a plugin broken in just that way."""

from __future__ import annotations

import copy
import random
import sys
import time
from collections.abc import Callable, Mapping
from dataclasses import replace
from functools import partialmethod
from pathlib import Path
from random import Random
from typing import Any

import pytest
import torch
from PIL import Image
from torch import Tensor, nn

from ssl_bench import registry
from ssl_bench.backbone import Backbone
from ssl_bench.blocks import ema
from ssl_bench.blocks.views import Crop, MultiCrop
from ssl_bench.dataset import Dataset
from ssl_bench.errors import UserError
from ssl_bench.evaluator import Evaluation, Evaluator, Measurement
from ssl_bench.method import Batch, MakeViews, Method, ParameterGroup, Preset, Progress, Sign, StepOutput
from ssl_bench.settings import Settings, setting
from ssl_bench.testing import CheckFailed, CheckSkipped, checks_of, kind_of, parametrize_with_checks, run_checks
from ssl_bench.testing.subjects import Pictures, SmallData, Unlabeled


def failure(kind: registry.Kind, plugin: type, name: str, **given: Any) -> str:
    (check,) = [check for check in checks_of(kind, **given) if check.name == name]
    with pytest.raises(CheckFailed) as caught:
        check(plugin)
    return str(caught.value)


def assert_sound(kind: registry.Kind, plugin: type, **given: Any) -> dict[str, str]:
    results = run_checks(kind, plugin, **given)
    assert not [one for one in results if one.outcome == "failed"]
    return {one.name: one.outcome for one in results}


# ---------------------------------------------------------------- methods


class SoundMethod(Method):
    """A student that follows a centered teacher (unpublished)."""

    class Config(Settings):
        """Settings."""

        crop_px: int = setting(32, "Side of both views.", unit="px", ge=8)
        width: int = setting(16, "Length of the outputs.", ge=4)

    presets: Mapping[str, Preset] = {"small-data": Preset("small", {"method.width": 8})}
    mean_over_images = True

    def __init__(self, config: Any, make_backbone: Any) -> None:
        super().__init__(config, make_backbone)
        self.config = config
        self.student = make_backbone()
        self.head = nn.Linear(self.student.feature_dim, config.width)
        self.teacher = nn.ModuleList([copy.deepcopy(self.student), copy.deepcopy(self.head)]).requires_grad_(False)
        self.register_buffer("center", torch.zeros(config.width))

    @classmethod
    def make_views(cls, config: Any) -> MakeViews:
        return MultiCrop([(Crop(config.crop_px, (0.3, 1.0)), 2)])

    def target(self, view: Tensor) -> Tensor:
        with torch.no_grad():
            return self.teacher[1](self.teacher[0](view))

    def step(self, batch: Batch, progress: Progress) -> StepOutput:
        target = self.target(batch.views[1])
        loss = (self.head(self.student(batch.views[0])) - (target - self.center) - 1).square().mean()
        return StepOutput(loss, {}, {"target": target})

    def batch_logs(self, carry: Mapping[str, Tensor]) -> dict[str, Tensor]:
        return {"spread": carry["target"].std(dim=0).mean()}

    def update(self, carry: Mapping[str, Tensor], progress: Progress) -> None:
        self.center.lerp_(carry["target"].mean(dim=0), 0.1)
        ema.move_towards(self.teacher[0], self.student, 0.9)
        ema.move_towards(self.teacher[1], self.head, 0.9)

    def signs(self, batch_size: int) -> tuple[Sign, ...]:
        return (Sign({"spread": (0.0, 0.01)}, "the teacher says the same of every image", "--set ..."),)

    def networks(self) -> dict[str, Backbone]:
        return {"teacher": self.teacher[0], "student": self.student}


def test_a_sound_method_passes_every_check() -> None:
    outcomes = assert_sound("method", SoundMethod)
    assert {name for name, outcome in outcomes.items() if outcome != "ok"} == {
        "prepare moves nothing that is trained",
        "batch views depend only on their random numbers",
        "frozen parts never move",
    }
    assert len(outcomes) == 34


def test_a_sound_method_with_every_hook_passes_every_check() -> None:
    assert set(assert_sound("method", Hooked).values()) == {"ok"}


class Hooked(SoundMethod):
    """A student that also learns to say what a frozen tokenizer says (unpublished)."""

    frozen = frozenset({"tokenizer"})

    def __init__(self, config: Any, make_backbone: Any) -> None:
        super().__init__(config, make_backbone)
        tokenizer = nn.Sequential(nn.AdaptiveAvgPool2d(4), nn.BatchNorm2d(3), nn.Flatten(), nn.Linear(48, config.width))
        self.tokenizer = tokenizer.requires_grad_(False)
        self.register_buffer("mean", torch.zeros(config.width))

    @classmethod
    def batch_views(cls, config: Any, views: Any, rng: Random) -> Any:
        masked = rng.sample(range(len(views[0])), len(views[0]) // 2)
        return *views, torch.tensor([float(row in masked) for row in range(len(views[0]))])

    def prepare(self, batches: Any) -> None:
        for batch in batches:
            self.mean.copy_(self.tokenizer(batch.views[0]).mean(dim=0))

    def step(self, batch: Batch, progress: Progress) -> StepOutput:
        output = super().step(batch, progress)
        target = self.tokenizer(batch.views[0]) - self.mean
        difference = (self.head(self.student(batch.views[0])) - target).square().mean(dim=1)
        return replace(output, loss=output.loss + (difference * batch.views[2]).mean())


class ComparesImages(SoundMethod):
    """Unpublished."""

    def step(self, batch: Batch, progress: Progress) -> StepOutput:
        output = self.head(self.student(batch.views[0]))
        return StepOutput((output - output.mean(dim=0) - 1).square().mean(), {}, {"target": output.detach()})


class EmbedsTogether(SoundMethod):
    """Unpublished."""

    mean_over_images = False
    step = Method.step

    def embed(self, batch: Batch) -> dict[str, Tensor]:
        output = self.head(self.student(batch.views[0]))
        return {"output": output - output.mean(dim=0)}

    def loss(self, embeddings: Mapping[str, Tensor], progress: Progress) -> StepOutput:
        output = embeddings["output"]
        return StepOutput((output - 1).square().mean(), {}, {"target": output.detach()})


class CarriesMean(SoundMethod):
    """Unpublished."""

    def step(self, batch: Batch, progress: Progress) -> StepOutput:
        output = super().step(batch, progress)
        return replace(output, carry={"target": output.carry["target"].mean(dim=0, keepdim=True)})

    def batch_logs(self, carry: Mapping[str, Tensor]) -> dict[str, Tensor]:
        return {}


class LogsSpread(SoundMethod):
    """Unpublished."""

    def step(self, batch: Batch, progress: Progress) -> StepOutput:
        output = super().step(batch, progress)
        return replace(output, logs={"deviation": output.carry["target"].std(correction=0)})


class Claimless(SoundMethod):
    """Unpublished."""

    mean_over_images = False


class WrongHook(Hooked):
    """Unpublished."""

    def prepare(self, batches: Any, epochs: int) -> None:
        pass


class PreparesWeights(Hooked):
    """Unpublished."""

    def prepare(self, batches: Any) -> None:
        self.head.weight.mul_(2)


class PreparesAtRandom(Hooked):
    """Unpublished."""

    def prepare(self, batches: Any) -> None:
        self.mean.copy_(torch.tensor([Random().random() for _ in self.mean]))


class DrawsElsewhere(Hooked):
    """Unpublished."""

    @classmethod
    def batch_views(cls, config: Any, views: Any, rng: Random) -> Any:
        return *views, torch.rand(len(views[0]))


class DrawsOneNumber(Hooked):
    """Unpublished."""

    @classmethod
    def batch_views(cls, config: Any, views: Any, rng: Random) -> Any:
        return *views, torch.tensor(rng.random())


class TrainsTokenizer(Hooked):
    """Unpublished."""

    def __init__(self, config: Any, make_backbone: Any) -> None:
        super().__init__(config, make_backbone)
        self.tokenizer.requires_grad_(True)


class MovesTokenizer(Hooked):
    """Unpublished."""

    def update(self, carry: Mapping[str, Tensor], progress: Progress) -> None:
        super().update(carry, progress)
        self.tokenizer[3].weight.mul_(0.9)


class Wordless(SoundMethod):
    __doc__ = None


class Uncited(SoundMethod):
    """A student that follows a teacher."""


class Silent(SoundMethod):
    """Unpublished."""

    class Config(SoundMethod.Config):
        mystery: float = 0.5


class Changing(SoundMethod):
    """Unpublished."""

    class Config(SoundMethod.Config):
        anything: Any = setting((1, 2), "A tuple that JSON makes a list.")


class WrongPreset(SoundMethod):
    """Unpublished."""

    presets: Mapping[str, Preset] = {"paper": Preset("", {"method.widht": 3})}


class NeedsMore(SoundMethod):
    """Unpublished."""

    def __init__(self, config: Any, make_backbone: Any, more: int) -> None:
        super().__init__(config, make_backbone)


class Growing(SoundMethod):
    """Unpublished."""

    @classmethod
    def fill(cls, config: Any, situation: Any) -> Any:
        return config.model_copy(update={"width": 2 * config.width})


class Uncropped(SoundMethod):
    """Unpublished."""

    @classmethod
    def make_views(cls, config: Any) -> MakeViews:
        return lambda image, rng: (torch.zeros(3, image.height, image.width),)


class GlobalDraws(SoundMethod):
    """Unpublished."""

    @classmethod
    def make_views(cls, config: Any) -> MakeViews:
        return lambda image, rng: (torch.full((3, 32, 32), random.random()),) * 2


class SecretDraws(SoundMethod):
    """Unpublished."""

    @classmethod
    def make_views(cls, config: Any) -> MakeViews:
        own = Random(3)
        return lambda image, rng: (torch.full((3, 32, 32), own.random()),) * 2


class WithoutNumber(SoundMethod):
    """Unpublished."""

    def step(self, batch: Batch, progress: Progress) -> StepOutput:
        output = super().step(batch, progress)
        return replace(output, loss=output.loss * float("nan"))


class Unreduced(SoundMethod):
    """Unpublished."""

    def step(self, batch: Batch, progress: Progress) -> StepOutput:
        output = super().step(batch, progress)
        return replace(output, loss=output.loss[None])


class OnlyLoss(SoundMethod):
    """Unpublished."""

    def step(self, batch: Batch, progress: Progress) -> Any:
        return super().step(batch, progress).loss


class Detached(SoundMethod):
    """Unpublished."""

    def step(self, batch: Batch, progress: Progress) -> StepOutput:
        output = super().step(batch, progress)
        return replace(output, loss=output.loss.detach())


class Ascending(SoundMethod):
    """Unpublished."""

    def step(self, batch: Batch, progress: Progress) -> StepOutput:
        output = super().step(batch, progress)
        return replace(output, loss=2 * output.loss.detach() - output.loss)


class DropsGradients(SoundMethod):
    """Unpublished."""

    def before_optimizer(self, progress: Progress) -> None:
        self.zero_grad()


class OwnGenerator(SoundMethod):
    """Unpublished."""

    def step(self, batch: Batch, progress: Progress) -> StepOutput:
        output = super().step(batch, progress)
        return replace(output, loss=output.loss * (1 + random.SystemRandom().random()))


class Unused(SoundMethod):
    """Unpublished."""

    def __init__(self, config: Any, make_backbone: Any) -> None:
        super().__init__(config, make_backbone)
        self.forgotten = nn.Linear(3, 3)


class LeftOut(SoundMethod):
    """Unpublished."""

    def parameter_groups(self) -> list[ParameterGroup]:
        return [ParameterGroup("student", list(self.student.parameters()))]


class TeacherTrained(SoundMethod):
    """Unpublished."""

    def __init__(self, config: Any, make_backbone: Any) -> None:
        super().__init__(config, make_backbone)
        self.teacher.requires_grad_(True)

    def target(self, view: Tensor) -> Tensor:
        return self.teacher[1](self.teacher[0](view))


class MovesInStep(SoundMethod):
    """Unpublished."""

    def step(self, batch: Batch, progress: Progress) -> StepOutput:
        output = super().step(batch, progress)
        self.center.lerp_(output.carry["target"].mean(dim=0), 0.1)
        return output


class MovesBeforeOptimizer(SoundMethod):
    """Unpublished."""

    def before_optimizer(self, progress: Progress) -> None:
        self.center.add_(1.0)


class CountsInStep(SoundMethod):
    """Unpublished."""

    def step(self, batch: Batch, progress: Progress) -> StepOutput:
        self.calls = getattr(self, "calls", 0) + 1
        return super().step(batch, progress)


class StillTeacher(SoundMethod):
    """Unpublished."""

    def update(self, carry: Mapping[str, Tensor], progress: Progress) -> None:
        self.center.lerp_(carry["target"].mean(dim=0), 0.1)


class StillCenter(SoundMethod):
    """Unpublished."""

    def update(self, carry: Mapping[str, Tensor], progress: Progress) -> None:
        ema.move_towards(self.teacher[0], self.student, 0.9)
        ema.move_towards(self.teacher[1], self.head, 0.9)


class PlainState(SoundMethod):
    """Unpublished."""

    def __init__(self, config: Any, make_backbone: Any) -> None:
        super().__init__(config, make_backbone)
        del self.center
        self.center = torch.zeros(config.width)


class LateState(SoundMethod):
    """Unpublished."""

    def update(self, carry: Mapping[str, Tensor], progress: Progress) -> None:
        super().update(carry, progress)
        self.register_buffer("queue", carry["target"])


class Overwrites(SoundMethod):
    """Unpublished."""

    def step(self, batch: Batch, progress: Progress) -> StepOutput:
        batch.views[0].mul_(0.5)
        return super().step(batch, progress)


class ReadsValue(SoundMethod):
    """Unpublished."""

    def step(self, batch: Batch, progress: Progress) -> StepOutput:
        output = super().step(batch, progress)
        return replace(output, loss=output.loss * 2 if output.loss.item() > 0 else output.loss)


class BlindSign(SoundMethod):
    """Unpublished."""

    def signs(self, batch_size: int) -> tuple[Sign, ...]:
        return (Sign({"spread": (1.0, 0.01)}, "", ""),)


class SignOfNothing(SoundMethod):
    """Unpublished."""

    def signs(self, batch_size: int) -> tuple[Sign, ...]:
        return (Sign({"spread_of_teacher": (0.0, 0.01)}, "", ""),)


class WithoutSigns(SoundMethod):
    """Unpublished."""

    def signs(self, batch_size: int) -> tuple[Sign, ...]:
        return ()


class LogsVector(SoundMethod):
    """Unpublished."""

    def step(self, batch: Batch, progress: Progress) -> StepOutput:
        return replace(super().step(batch, progress), logs={"per_image": torch.zeros(8)})


class LogsGraph(SoundMethod):
    """Unpublished."""

    def step(self, batch: Batch, progress: Progress) -> StepOutput:
        output = super().step(batch, progress)
        return replace(output, logs={"loss": output.loss})


class CarriesScalar(SoundMethod):
    """Unpublished."""

    def step(self, batch: Batch, progress: Progress) -> StepOutput:
        return replace(super().step(batch, progress), carry={"target": torch.tensor(1.0)})


class CarriesGraph(SoundMethod):
    """Unpublished."""

    def step(self, batch: Batch, progress: Progress) -> StepOutput:
        return replace(super().step(batch, progress), carry={"target": self.head(self.student(batch.views[0]))})


class NamesCopy(SoundMethod):
    """Unpublished."""

    def networks(self) -> dict[str, Backbone]:
        return {"teacher": self.teacher[0], "student": copy.deepcopy(self.student)}


class NamesHead(SoundMethod):
    """Unpublished."""

    def networks(self) -> dict[str, Any]:
        return {"teacher": self.teacher[0], "head": self.head}


class ConstantTeacher(SoundMethod):
    """Unpublished."""

    def __init__(self, config: Any, make_backbone: Any) -> None:
        super().__init__(config, make_backbone)
        for parameter in self.teacher.parameters():
            parameter.data.zero_()

    def update(self, carry: Mapping[str, Tensor], progress: Progress) -> None:
        pass


class Adds(Backbone):
    def __init__(self, backbone: Backbone) -> None:
        super().__init__(None, image_px=backbone.image_px)
        self.backbone, self.feature_dim = backbone, backbone.feature_dim

    def forward(self, images: Tensor) -> Tensor:
        return self.backbone(images) + images.mean(dim=(1, 2, 3))[:, None]

    def probe_features(self, images: Tensor) -> Tensor:
        return self(images)


class HidesCollapse(SoundMethod):
    """Unpublished."""

    def networks(self) -> dict[str, Backbone]:
        return {"teacher": Adds(self.teacher[0])}


class Slow(SoundMethod):
    """Unpublished."""

    def step(self, batch: Batch, progress: Progress) -> StepOutput:
        return super().step(batch, progress)


@pytest.mark.parametrize(
    ("plugin", "name", "words"),
    [
        (Wordless, "docstring and paper present", "write what it is in one line"),
        (Silent, "settings are described", "mystery has no meaning"),
        (Changing, "settings round trip through json", "anything changed when written"),
        (WrongPreset, "presets are valid", "Did you mean 'method.width'"),
        (NeedsMore, "it can be built", "TypeError"),
        (Growing, "filled settings stay as they are", "fill() changes width"),
        (Uncropped, "views have one shape for every image", "crop or resize"),
        (GlobalDraws, "views depend only on their random numbers", "draws from a global generator"),
        (SecretDraws, "views depend only on their random numbers", "draw only from the Random"),
        (Uncropped, "views reach worker processes", "cannot be pickled"),
        (WithoutNumber, "loss is a finite scalar", "the loss is nan"),
        (Unreduced, "loss is a finite scalar", "reduce it to one number"),
        (OnlyLoss, "loss is a finite scalar", "return StepOutput"),
        (Detached, "loss is a finite scalar", "has no gradient"),
        (Ascending, "loss falls on one batch", "a gradient that is reversed"),
        (DropsGradients, "loss falls on one batch", "before_optimizer() dropping"),
        (OwnGenerator, "same seed same loss", "draw from torch's global generator"),
        (Unused, "every trained parameter gets a gradient", "forgotten.bias, forgotten.weight never gets"),
        (LeftOut, "parameter groups cover what is trained", "leaves out head"),
        (TeacherTrained, "teacher gets no gradient", "under torch.no_grad()"),
        (MovesInStep, "step moves no state", "step() moves center"),
        (CountsInStep, "step moves no state", "step() moves calls"),
        (MovesBeforeOptimizer, "before optimizer moves no state", "before_optimizer() moves center"),
        (StillTeacher, "state moves in update", "teacher ("),
        (StillCenter, "state moves in update", "center is the same after"),
        (WrongHook, "functions take what they are given", "write def prepare(self, batches)"),
        (PreparesWeights, "prepare moves nothing that is trained", "prepare() moves head.weight"),
        (PreparesAtRandom, "prepare moves nothing that is trained", "a different mean from the same batches"),
        (DrawsElsewhere, "batch views depend only on their random numbers", "draw from its argument rng"),
        (DrawsOneNumber, "batch views depend only on their random numbers", "the first dimension must be the batch"),
        (TrainsTokenizer, "frozen parts never move", "tokenizer.1.weight requires a gradient"),
        (MovesTokenizer, "frozen parts never move", "its 3.weight moves"),
        (PlainState, "state is saved and restored bit for bit", "register_buffer"),
        (LateState, "state is saved and restored bit for bit", "final shape"),
        (Overwrites, "step leaves the batch as it is", "in place"),
        (ReadsValue, "step reads no tensor value", "leave out .item()"),
        (LogsVector, "logs are scalars without gradient", "value.mean()"),
        (LogsGraph, "logs are scalars without gradient", "loss.detach()"),
        (CarriesScalar, "carry has a leading dimension and no gradient", "mean[None]"),
        (CarriesGraph, "carry has a leading dimension and no gradient", "target.detach()"),
        (ComparesImages, "micro batches are the batch", "its loss is no mean over images"),
        (EmbedsTogether, "micro batches are the batch", "embed() must look at one image at a time"),
        (CarriesMean, "micro batches are the batch", "center after update() by"),
        (LogsSpread, "micro batches are the batch", "in batch_logs(carry)"),
        (NamesCopy, "networks are parts of the method", "networks()['student'] holds"),
        (NamesHead, "networks are parts of the method", "networks()['head'] is Linear("),
        (ConstantTeacher, "evaluation features are finite and not constant", "the same for every image"),
        (HidesCollapse, "collapse is detected when forced", "would go unnoticed"),
        (BlindSign, "signs show a forced collapse", "none of the signs is present: the logs are loss "),
        (SignOfNothing, "signs show a forced collapse", "'spread_of_teacher', which is not logged: the logs are loss"),
    ],
)
def test_a_method_broken_in_one_way_fails_that_check(plugin: type, name: str, words: str) -> None:
    assert words in failure("method", plugin, name)


def test_a_method_without_a_claim_is_told_what_it_could_say() -> None:
    (check,) = [check for check in checks_of("method") if check.name == "micro batches are the batch"]
    with pytest.raises(CheckSkipped, match="mean_over_images = True"):
        check(Claimless)


def test_a_method_without_signs_is_told_what_they_are_for() -> None:
    (check,) = [check for check in checks_of("method") if check.name == "signs show a forced collapse"]
    with pytest.raises(CheckSkipped, match="name the values of your logs in a collapse"):
        check(WithoutSigns)


def test_a_method_whose_paper_is_not_cited_fails(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sys.modules[__name__], "__doc__", "A module.")
    assert "arXiv NNNN.NNNNN" in failure("method", Uncited, "docstring and paper present")


def test_a_slow_step_fails(monkeypatch: pytest.MonkeyPatch) -> None:
    clock = iter(range(0, 1000, 6))
    monkeypatch.setattr(time, "process_time", lambda: next(clock))
    assert 'preset "small-data"' in failure("method", Slow, "a step takes seconds")


def test_checks_that_rest_on_a_first_step_are_skipped_without_one() -> None:
    (check,) = [check for check in checks_of("method") if check.name == "loss falls on one batch"]
    with pytest.raises(CheckSkipped, match="a first step does not work yet"):
        check(OnlyLoss)


class Stumbles(SoundMethod):
    """Unpublished."""

    def step(self, batch: Batch, progress: Progress) -> StepOutput:
        raise KeyError("assignments")


def test_an_error_in_the_plugin_names_its_line() -> None:
    words = failure("method", Stumbles, "loss is a finite scalar")
    assert "KeyError: 'assignments' (test_testing.py, line " in words


# ---------------------------------------------------------------- running


class Restless(SmallData):
    """Pictures whose fingerprint is a clock's."""

    @property
    def fingerprint(self) -> str:
        return f"{time.perf_counter_ns():x}"


def test_expected_failures_are_named_and_reasoned() -> None:
    reason = "the clock is a toy"
    results = run_checks("dataset", Restless, expected_failures={"fingerprint is stable": reason})
    (result,) = [one for one in results if one.name == "fingerprint is stable"]
    assert (result.outcome, result.message) == ("expected failure", reason)
    results = run_checks("dataset", SmallData, expected_failures={"images are rgb": "none"})
    (result,) = [one for one in results if one.name == "images are rgb"]
    assert result.outcome == "failed"
    assert "remove it from expected_failures" in result.message
    with pytest.raises(UserError, match="Did you mean 'images are rgb'"):
        run_checks("dataset", SmallData, expected_failures={"image are rgb": ""})


def test_a_class_carries_its_own_expected_failures() -> None:
    class Excused(Restless):
        """Pictures that are excused."""

        expected_failures: Mapping[str, str] = {"fingerprint is stable": "counts"}

    assert "expected failure" in assert_sound("dataset", Excused).values()


def test_a_plugin_of_another_kind_is_refused() -> None:
    with pytest.raises(UserError, match="is a dataset, not a method"):
        run_checks("method", SmallData)
    with pytest.raises(UserError, match="is not a plugin"):
        kind_of(dict)


@parametrize_with_checks([SmallData], expected_failures={})
def test_the_decorator_runs_each_check_of_a_class(plugin: type, check: Callable[[type], None]) -> None:
    check(plugin)


def test_the_decorator_marks_expected_failures() -> None:
    mark = parametrize_with_checks([SmallData], expected_failures={"images are rgb": "gray on purpose"})
    (case,) = [case for case in mark.args[1] if case.id == "SmallData-images are rgb"]
    assert case.marks[0].name == "xfail"
    assert case.marks[0].kwargs["reason"] == "gray on purpose"
    assert case.marks[0].kwargs["strict"]


# ---------------------------------------------------------------- backbones


class SoundBackbone(Backbone):
    """One convolution (unpublished)."""

    class Config(Settings):
        """None."""

    kind = "convnet"

    def __init__(self, config: Any, *, image_px: int, drop_path: float = 0.0) -> None:
        super().__init__(config, image_px=image_px, drop_path=drop_path)
        self.patch_px, self.image_px, self.feature_dim = None, image_px, 8
        self.layer = nn.Conv2d(3, 8, 3)

    def forward(self, images: Tensor) -> Tensor:
        return self.layer(images).relu().mean(dim=(2, 3))


class Patched(SoundBackbone):
    """Patches of 8 px through one layer, and their mean (unpublished)."""

    kind = "vit"
    prefix_tokens: tuple[str, ...] = ()

    def __init__(self, config: Any, *, image_px: int, drop_path: float = 0.0) -> None:
        super().__init__(config, image_px=image_px)
        self.patch_px = 8
        self.layer = nn.Conv2d(3, 8, 8, stride=8)
        self.mix = nn.Linear(8, 8)

    @classmethod
    def patch_px_for(cls, config: Any, image_px: int) -> int | None:
        return 8

    def forward(self, images: Tensor) -> Tensor:
        return self.mix(self.layer(images).flatten(2).transpose(1, 2)).mean(dim=1)


class Miscounting(Patched):
    """Unpublished."""

    prefix_tokens = ("CLS",)


class Transposed(Patched):
    """Unpublished."""

    supports = frozenset({"patch_tokens"})

    def patch_tokens(self, images: Tensor) -> Tensor:
        return self.layer(images).transpose(2, 3)


class CalledConvnet(Patched):
    """Unpublished."""

    kind = "convnet"


class KindOnlyBuilt(Patched):
    """Unpublished."""

    @classmethod
    def kind_for(cls, config: Any, image_px: int) -> Any:
        return "convnet"


class Misspelled(SoundBackbone):
    """Unpublished."""

    supports = frozenset({"pach_tokens"})


class Fixed(SoundBackbone):
    """Unpublished."""

    def __init__(self, config: Any, *, image_px: int, drop_path: float = 0.0) -> None:
        super().__init__(config, image_px=image_px)
        nn.init.constant_(self.layer.weight, 0.1)
        nn.init.zeros_(self.layer.bias)


class Map(SoundBackbone):
    """Unpublished."""

    def forward(self, images: Tensor) -> Tensor:
        return self.layer(images)


class OneSize(SoundBackbone):
    """Unpublished."""

    def forward(self, images: Tensor) -> Tensor:
        assert images.shape[-1] == self.image_px
        return super().forward(images)


class Noisy(SoundBackbone):
    """Unpublished."""

    def forward(self, images: Tensor) -> Tensor:
        return nn.functional.dropout(super().forward(images), 0.5, training=True)


class Together(SoundBackbone):
    """Unpublished."""

    def forward(self, images: Tensor) -> Tensor:
        features = super().forward(images)
        return features - features.mean(dim=0)


class Boasting(SoundBackbone):
    """Unpublished."""

    supports = frozenset({"patch_tokens"})


class Modest(SoundBackbone):
    """Unpublished."""

    def patch_tokens(self, images: Tensor) -> Tensor:
        return self.layer(images)


class Disagreeing(SoundBackbone):
    """Unpublished."""

    @classmethod
    def patch_px_for(cls, config: Any, image_px: int) -> int | None:
        return 8


class Renaming(SoundBackbone):
    """Unpublished."""

    def __init__(self, config: Any, *, image_px: int, drop_path: float = 0.0) -> None:
        super().__init__(config, image_px=image_px)
        if drop_path:
            self.gate = nn.Parameter(torch.ones(1))


class Idle(SoundBackbone):
    """Unpublished."""

    def __init__(self, config: Any, *, image_px: int, drop_path: float = 0.0) -> None:
        super().__init__(config, image_px=image_px)
        self.classifier = nn.Linear(8, 10)


class FlatProbe(SoundBackbone):
    """Unpublished."""

    probe_reads = "sums"

    def probe_features(self, images: Tensor) -> Tensor:
        return self(images).sum(dim=1)


class UnnamedProbe(SoundBackbone):
    """Unpublished."""

    def probe_features(self, images: Tensor) -> Tensor:
        return self(images)[:, :2]


class Dimensionless(SoundBackbone):
    """Unpublished."""

    def __init__(self, config: Any, *, image_px: int, drop_path: float = 0.0) -> None:
        super().__init__(config, image_px=image_px)
        self.feature_dim = None  # type: ignore[assignment]


@pytest.mark.parametrize("plugin", [SoundBackbone, Patched])
def test_a_sound_backbone_passes_every_check(plugin: type) -> None:
    assert set(assert_sound("backbone", plugin).values()) == {"ok"}


@pytest.mark.parametrize(
    ("plugin", "name", "words"),
    [
        (Dimensionless, "it can be built", "feature_dim is None"),
        (CalledConvnet, "it can be built", 'set kind = "vit"'),
        (Misspelled, "it can be built", "supports names ['pach_tokens']"),
        (Miscounting, "tokens are what its layers see", "token_count(32, 32) says 17, its layers see [16] tokens"),
        (Transposed, "maps follow rectangles", "is 5 x 3: give rows first"),
        (KindOnlyBuilt, "patch px for agrees", "kind_for() says convnet, the network is a vit"),
        (Fixed, "initial weights come from the global random state", "another seed gives the same weights"),
        (Map, "features have the declared dimension", "pool or take the CLS token"),
        (OneSize, "other image sizes work", "resample position embeddings"),
        (Noisy, "eval mode is deterministic", "switch dropout"),
        (Together, "eval mode is deterministic", "the other images of its batch"),
        (Boasting, "supports what it says", "is not written"),
        (Modest, "supports what it says", "supports does not name it"),
        (Disagreeing, "patch px for agrees", "patch_px_for() says 8"),
        (Renaming, "drop path is accepted", "changes the names in state_dict"),
        (Idle, "every parameter gets a gradient", "classifier.weight"),
        (FlatProbe, "probe features are vectors", "give (batch, dim)"),
        (UnnamedProbe, "probe features are vectors", "override it with what they are"),
    ],
)
def test_a_backbone_broken_in_one_way_fails_that_check(plugin: type, name: str, words: str) -> None:
    assert words in failure("backbone", plugin, name)


# ---------------------------------------------------------------- evaluators


class SoundEvaluator(Evaluator):
    """The nearest training image's label."""

    feature_kinds = frozenset({"features"})

    class Config(Settings):
        """None."""

    def evaluate(self, evaluation: Evaluation) -> list[Measurement]:
        train, test = evaluation.features("train"), evaluation.features("test")
        nearest = train.labels[torch.cdist(test.vectors, train.vectors).argmin(dim=1)]
        return [self.rate(100 * float((nearest == test.labels).double().mean()), len(nearest))]

    def rate(self, value: float, n: int, **other: Any) -> Measurement:
        given = {"metric": "top1", "unit": "%", "protocol": "1-NN", "primary": True, **other}
        return Measurement(value=value, n=n, higher_is_better=True, **given)


class Empty(SoundEvaluator):
    def evaluate(self, evaluation: Evaluation) -> list[Measurement]:
        return []


class NonePrimary(SoundEvaluator):
    def evaluate(self, evaluation: Evaluation) -> list[Measurement]:
        return [self.rate(1.0, 48, primary=False)]


class Infinite(SoundEvaluator):
    def evaluate(self, evaluation: Evaluation) -> list[Measurement]:
        return [self.rate(float("inf"), 48)]


class Unprotocolled(SoundEvaluator):
    def evaluate(self, evaluation: Evaluation) -> list[Measurement]:
        return [self.rate(1.0, 48, protocol=" ")]


class Drawing(SoundEvaluator):
    def evaluate(self, evaluation: Evaluation) -> list[Measurement]:
        return [self.rate(float(torch.rand(())), 48)]


class Tuning(SoundEvaluator):
    def evaluate(self, evaluation: Evaluation) -> list[Measurement]:
        with torch.no_grad():
            next(evaluation.backbone.parameters()).mul_(0.9)
        return super().evaluate(evaluation)


class Peeking(SoundEvaluator):
    def evaluate(self, evaluation: Evaluation) -> list[Measurement]:
        test = evaluation.features("test")
        nearest = test.labels[torch.cdist(test.vectors, test.vectors).argmin(dim=1)]
        return [self.rate(100 * float((nearest == test.labels).double().mean()), len(nearest))]


class Claiming(SoundEvaluator):
    """Claims to need no labels."""

    needs_labels = False


class ForAProbe(SoundEvaluator):
    """Declares features that it does not read."""

    feature_kinds = frozenset({"probe_features"})


def test_a_sound_evaluator_passes_every_check() -> None:
    assert set(assert_sound("evaluator", SoundEvaluator).values()) == {"ok"}


@pytest.mark.parametrize(
    ("plugin", "name", "words"),
    [
        (Empty, "it measures", "return [Measurement"),
        (Empty, "docstring present", "has no docstring"),
        (NonePrimary, "exactly one measurement is primary", "mark exactly one"),
        (Infinite, "values are finite", "top1 is inf"),
        (Unprotocolled, "protocol and unit are named", "has no protocol"),
        (Drawing, "the same input gives the same numbers", "seeded with evaluation.seed"),
        (Tuning, "the network is left as it is", "copy.deepcopy"),
        (Peeking, "test labels are not learned", "fit on the training split"),
        (Claiming, "needs labels is declared", "fails on images without labels"),
        (ForAProbe, "feature kinds are those read", "reads ['features']"),
    ],
)
def test_an_evaluator_broken_in_one_way_fails_that_check(plugin: type, name: str, words: str) -> None:
    assert words in failure("evaluator", plugin, name)


# ---------------------------------------------------------------- datasets


class Changed(Pictures):
    def __init__(self, count: int, seed: int, *, told: bool = True, labels: list[int] | None = None) -> None:
        super().__init__(count, seed, told=told)
        self.labels = labels or self.labels


class GrayPictures(Changed):
    def image(self, index: int) -> Image.Image:
        return super().image(index).convert("L")


class NoisyPictures(Changed):
    def image(self, index: int) -> Image.Image:
        return Image.new("RGB", (8, 8), tuple(Random().randbytes(3)))


class Unpicklable(Changed):
    def __reduce__(self) -> Any:
        raise TypeError("holds an open file")


SHARED = ("train and test share no image", "make the splits disjoint")


def data_set(train: Any, test: Any = None, **attributes: Any) -> type[Dataset]:
    def build(self: Any, config: Any, path: Path | None) -> None:
        SmallData.__init__(self, config, path)
        self.train, self.test = train, test or self.test

    return type("Broken", (SmallData,), {"__init__": build, "__doc__": "Broken.", **attributes})


def test_a_sound_data_set_passes_every_check() -> None:
    assert set(assert_sound("dataset", SmallData).values()) == {"ok"}


def test_a_data_set_without_labels_passes_every_check() -> None:
    unlabeled = type(
        "Unlabeled", (SmallData,), {"__init__": partialmethod(SmallData.__init__, labeled=False), "__doc__": "None."}
    )
    outcomes = assert_sound("dataset", unlabeled)
    assert [name for name, outcome in outcomes.items() if outcome != "ok"] == ["train and test share no image"]


@pytest.mark.parametrize(
    ("plugin", "name", "words"),
    [
        (data_set([]), "it can be opened", "train has no images"),
        (data_set(Changed(3, 1, labels=[0, 1, 3])), "labels are in range", "the label 3 with 3 classes"),
        (data_set(*[Unlabeled(Changed(3, seed)) for seed in (1, 2)]), "it can be opened", "() for images without"),
        (data_set(Changed(3, 1), pretraining=Pictures(6, 2, told=True)), *SHARED),
        (data_set(GrayPictures(3, 1)), "images are rgb", "is L"),
        (data_set(NoisyPictures(3, 1)), "reading twice gives the same", "differs when read again"),
        (
            data_set(Changed(3, 1), fingerprint=property(lambda self: f"{time.perf_counter_ns():x}")),
            "fingerprint is stable",
            "leave out clocks",
        ),
        (data_set(Unpicklable(3, 1)), "splits reach worker processes", "holds an open file"),
        (data_set(Pictures(6, 2, told=True)), *SHARED),
        (
            data_set(Changed(3, 1), recognizes=classmethod(lambda cls, path: True)),
            "recognizes says no to a foreign folder",
            "look for your layout",
        ),
    ],
)
def test_a_data_set_broken_in_one_way_fails_that_check(plugin: type, name: str, words: str) -> None:
    assert words in failure("dataset", plugin, name)


def test_a_data_set_on_disk_asks_for_its_folder() -> None:
    cifar = registry.dataset("cifar10")
    outcomes = {one.name: one for one in run_checks("dataset", cifar)}
    assert outcomes["images are rgb"].outcome == "skipped"
    assert "--data PATH" in outcomes["images are rgb"].message


# ---------------------------------------------------------------- everything registered


SMALL = {
    "method": ("dino", "byol", "mocov2", "swav", "simclr", "supervised"),
    "evaluator": ("knn", "linear-probe", "logistic-regression", "kmeans", "label-free"),
    "backbone": ("deit_s16", "deit_s5", "vit_b16", "resnet18", "resnet50"),
}
"""Plugins of sslbench that are checked here; the others differ from these in numbers alone, or have tests below."""


@pytest.mark.parametrize(("kind", "name"), [(kind, name) for kind, names in SMALL.items() for name in names])
def test_official_plugins_pass(kind: registry.Kind, name: str) -> None:
    assert_sound(kind, registry.find(kind, name).load())


def test_the_evaluator_of_attention_passes_on_a_few_embedded_masks() -> None:
    plugin = registry.find("evaluator", "voc-jaccard").load()
    outcomes = assert_sound("evaluator", plugin, settings={"images": 4, "size_px": 64, "pictures": 1})
    assert [name for name, outcome in outcomes.items() if outcome != "ok"] == ["test labels are not learned"]
