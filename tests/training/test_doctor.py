"""The doctor: its values against slow oracles, what it calls a collapse, and that looking changes nothing."""

from __future__ import annotations

import json
import math
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from ssl_bench.blocks.collapse_signs import NO_SPREAD, distillation_signs, entropy, spread, uniform
from ssl_bench.blocks.optimizers import OptimizerSettings, build_optimizer
from ssl_bench.method import Batch, Progress, Sign, StepOutput
from ssl_bench.training.checkpoint import checkpoints
from ssl_bench.training.collapse_doctor import FEATURES_ALIKE, Doctor, RunFailed, effective_rank, probe, refuse_nan
from ssl_bench.training.loop import Stopped, train
from ssl_bench.training.state import TrainingState
from tests.toy import ToyBackbone, ToyDataset, ToyMethod, make_plan
from tests.training.test_training import _interrupt, restored, same, start


def slow_spread(vectors: Tensor) -> float:
    """Of each column of unit rows the root of sum (x - mean)^2 / (n - 1), averaged, times sqrt(dim)."""
    rows = [[x / math.sqrt(sum(y * y for y in row)) for x in row] for row in vectors.tolist()]
    deviations = []
    for column in zip(*rows, strict=True):
        mean = sum(column) / len(column)
        deviations.append(math.sqrt(sum((x - mean) ** 2 for x in column) / (len(column) - 1)))
    return sum(deviations) / len(deviations) * math.sqrt(len(deviations))


def slow_rank_me(vectors: Tensor) -> float:
    """RankMe, equations 1 and 2, with its epsilon of 1e-7; singular values are roots of the Gram matrix's."""
    values = torch.linalg.eigvalsh(vectors.T @ vectors).clamp_min(0).sqrt().tolist()
    shares = [value / sum(values) + 1e-7 for value in values]
    return math.exp(-sum(p * math.log(p) for p in shares))


def test_spread_and_rank_equal_their_slow_formulas() -> None:
    torch.manual_seed(0)
    for batch, dim in ((2, 3), (8, 5), (64, 16)):
        vectors = torch.randn(batch, dim, dtype=torch.float64) + 0.3
        assert spread(vectors).item() == pytest.approx(slow_spread(vectors), abs=1e-9)
        assert effective_rank(vectors).item() == pytest.approx(slow_rank_me(vectors), rel=1e-4)  # their epsilon


def test_spread_of_cases_worked_by_hand() -> None:
    assert spread(torch.tensor([[3.0, 0.0], [-5.0, 0.0]])).item() == pytest.approx(1.0)  # std (sqrt 2, 0), mean, sqrt 2
    assert spread(torch.full((7, 4), 2.5)).item() == 0
    assert spread(torch.zeros(7, 4)).item() == 0
    torch.manual_seed(0)
    assert spread(torch.randn(2000, 64)).item() == pytest.approx(1.0, abs=0.01)  # the healthy 1 / sqrt(dim)


def test_effective_rank_of_cases_worked_by_hand() -> None:
    assert effective_rank(torch.eye(6)).item() == pytest.approx(6.0)
    assert effective_rank(torch.ones(5, 1) @ torch.randn(1, 8)).item() == pytest.approx(1.0, abs=1e-3)
    assert effective_rank(torch.zeros(5, 3)).item() == 1  # no values at all: nothing is divided by 0
    two = torch.diag(torch.tensor([3.0, 1.0]))
    assert effective_rank(two).item() == pytest.approx(math.exp(-0.75 * math.log(0.75) - 0.25 * math.log(0.25)))


def test_uniform_is_the_entropy_and_the_loss_of_equal_probabilities() -> None:
    value, tolerance = uniform(512)
    equal = torch.full((3, 512), 1 / 512)
    assert entropy(equal).item() == pytest.approx(value, abs=1e-5)
    assert nn.functional.cross_entropy(torch.zeros(3, 512), torch.tensor([1, 2, 3])).item() == pytest.approx(value)
    assert tolerance == pytest.approx(0.01 * value)


STUCK = Sign({"loss": uniform(8), "kl": (0.0, 0.1)}, "all alike", "--set method.x=1")
ALIKE = {"loss": math.log(8) + 0.01, "kl": -0.05}
HEALTHY = ALIKE | {"kl": 0.2}


def looking(
    values: list[dict[str, float]], *, first_step: int = 0, patience: int = 3, from_start: int = 9
) -> list[str]:
    """What a doctor says at each step."""
    lasting: dict[str, int] = {}
    one = Doctor([STUCK], first_step, patience, from_start)
    return [one.look(step, logs, lasting) for step, logs in enumerate(values, start=1)]


def test_a_sign_ends_the_run_only_after_lasting_without_a_break() -> None:
    looking([HEALTHY, ALIKE, ALIKE, HEALTHY, ALIKE, ALIKE])
    with pytest.raises(RunFailed) as failure:
        looking([HEALTHY, ALIKE, ALIKE, HEALTHY, ALIKE, ALIKE, ALIKE])
    assert failure.value.status == "collapsed"
    for words in (
        "up to step 7",
        "loss 2.089 (within 0.021 of 2.079)",
        "kl -0.05",
        "for 3 steps: all alike",
        "method.x=1",
    ):
        assert words in str(failure.value)


def test_nothing_is_judged_before_the_first_step() -> None:
    values = [HEALTHY, *[ALIKE] * 12]
    looking(values, first_step=11)
    with pytest.raises(RunFailed, match="up to step 13"):
        looking(values, first_step=10)


def test_what_was_there_from_the_start_has_more_time() -> None:
    looking([ALIKE] * 8)
    with pytest.raises(RunFailed, match="for 9 steps"):
        looking([ALIKE] * 9)


def test_a_value_that_is_not_logged_or_is_nan_is_no_sign() -> None:
    for values in ({}, {"loss": ALIKE["loss"]}, ALIKE | {"kl": math.nan}):
        looking([HEALTHY, *[values] * 20])


def test_a_warning_comes_once_when_half_of_the_patience_is_over() -> None:
    said = looking([HEALTHY, *[ALIKE] * 5], patience=6)
    assert [bool(words) for words in said] == [False, False, False, True, False, False]
    assert "for 3 steps: all alike. To change: --set method.x=1. The run ends in 3 steps" in said[3]


@pytest.mark.parametrize(
    ("total", "warmup", "patience", "from_start"),
    [(10, 0, 50, 500), (750, 100, 50, 500), (10_000, 0, 500, 5000), (10**6, 9, 1000, 500_000)],
)
def test_patience_is_a_twentieth_of_the_run_and_begins_after_the_warm_up(
    total: int, warmup: int, patience: int, from_start: int
) -> None:
    made = Doctor.of(ToyMethod(ToyMethod.Config(), ToyBackbone), 8, total, warmup)
    assert made == Doctor((FEATURES_ALIKE,), warmup + patience, patience, from_start)
    probes = [step for step in range(2, patience + 1) if made.probes_at(step)]
    assert 3 <= len(probes) <= 4
    assert made.probes_at(1)


def test_a_probe_reads_eval_mode_features_and_moves_nothing() -> None:
    backbone = ToyBackbone()
    backbone.layers[2].eval()  # a mode of its own, e.g. frozen batch norm
    images = torch.rand(80, 3, 8, 8)
    state = {name: value.clone() for name, value in backbone.state_dict().items()}
    modes = [module.training for module in backbone.modules()]
    random = torch.get_rng_state()
    values = probe(backbone, images, 1)
    assert same(state, backbone.state_dict())
    assert [module.training for module in backbone.modules()] == modes
    assert torch.equal(random, torch.get_rng_state())
    assert all(parameter.grad is None for parameter in backbone.parameters())
    features = backbone.eval()(images[:64]).detach().double()
    assert values == {
        "feature_spread": pytest.approx(slow_spread(features), abs=1e-6),
        "effective_rank": pytest.approx(slow_rank_me(features), rel=1e-3),
    }


def test_a_probe_computes_no_more_images_at_once_than_a_step() -> None:
    backbone, images, seen = ToyBackbone(), torch.rand(8, 3, 8, 8), list[int]()
    whole = probe(backbone, images, 1)
    backbone.register_forward_pre_hook(lambda _, given: seen.append(len(given[0])))
    assert probe(backbone, images, 1, 3) == pytest.approx(whole, rel=1e-3)
    assert seen == [3, 3, 2]


def test_one_image_or_no_image_is_not_probed() -> None:
    method = ToyMethod(ToyMethod.Config(), ToyBackbone)
    one = Doctor([], 0, 3, 9)
    assert one.probe(method, torch.rand(1, 3, 8, 8), 1, 1) == {}
    assert one.probe(method, torch.rand(4, 10), 1, 4) == {}
    assert set(one.probe(method, torch.rand(2, 3, 8, 8), 1, 2)) == {"feature_spread", "effective_rank"}


def test_features_and_weights_that_are_not_finite_fail_the_run() -> None:
    method = ToyMethod(ToyMethod.Config(), ToyBackbone)
    refuse_nan(method, 3)
    with torch.no_grad():
        method.teacher.layers[4].bias[2] = math.nan
    with pytest.raises(RunFailed, match=r"teacher.layers.4.bias contains NaN after step 3.*base_lr") as failure:
        refuse_nan(method, 3)
    assert failure.value.status == "failed"
    with pytest.raises(RunFailed, match="features of the evaluated network are not finite after step 5"):
        probe(method.teacher, torch.rand(4, 3, 8, 8), 5)


def test_a_run_with_the_doctor_is_bitwise_the_run_without(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    weights = []
    for name in ("with", "without"):
        if name == "without":
            monkeypatch.setattr(Doctor, "probes_at", lambda *_: False)
        method, views, optimizer, plan = start(tmp_path / name)
        train(method, views, optimizer, plan, TrainingState())
        weights.append(method.state_dict())
    assert same(*weights)
    logged = [(tmp_path / name / "metrics.jsonl").read_text() for name in ("with", "without")]
    assert "feature_spread" in logged[0]
    assert "feature_spread" not in logged[1]


class Flattening(ToyMethod):
    """From a step on it logs a spread of 0, as a collapse would."""

    flat_from = 70

    def step(self, batch: Batch, progress: Progress) -> StepOutput:
        output = super().step(batch, progress)
        logs = {"spread": torch.tensor(0.0 if progress.step >= self.flat_from else 0.8)}
        return StepOutput(output.loss, logs, output.carry)

    def batch_logs(self, carry: Mapping[str, Tensor]) -> dict[str, Tensor]:
        return {}

    def signs(self, batch_size: int) -> tuple[Sign, ...]:
        return (Sign({"spread": NO_SPREAD}, "all is flat", "--set method.noise=..."),)


def flattening(folder: Path, checkpoint_seconds: float = 1e9) -> Any:
    torch.manual_seed(1)
    method = Flattening(ToyMethod.Config(), lambda drop_path=0.0: ToyBackbone())
    settings = OptimizerSettings(base_lr=0.1, warmup_epochs=1)
    folder.mkdir(exist_ok=True)
    split = ToyDataset().train
    plan = make_plan(split, folder, settings, batch_size=5, epochs=20, seed=7, checkpoint_seconds=checkpoint_seconds)
    return method, ToyMethod.make_views(ToyMethod.Config()), build_optimizer(settings, method.parameter_groups()), plan


def test_what_is_saved_after_a_sign_never_replaces_the_last_good_checkpoint(tmp_path: Path) -> None:
    method, views, optimizer, plan = flattening(tmp_path, checkpoint_seconds=0.0)
    with pytest.raises(
        RunFailed, match=r"up to step 120: spread 0 .*for 50 steps.*checkpoints/step-00000070\.$"
    ) as end:
        train(method, views, optimizer, plan, TrainingState())
    assert end.value.status == "collapsed"
    names = [path.name for path in checkpoints(tmp_path / "checkpoints")]
    assert names == ["step-00000070", "step-00000118-suspect", "step-00000119-suspect"]


def test_a_run_stopped_amid_a_sign_goes_on_counting(tmp_path: Path) -> None:
    method, views, optimizer, plan = flattening(tmp_path)
    with pytest.raises(Stopped):
        train(method, views, optimizer, plan, TrainingState(), report=lambda r: _interrupt(r.step == 100))
    again, views, optimizer, plan = flattening(tmp_path)
    state = restored(again, optimizer, tmp_path)
    with pytest.raises(RunFailed, match=r"up to step 120.*for 50 steps.*There is no good checkpoint yet"):
        train(again, views, optimizer, plan, state)


def test_the_last_values_of_the_features_are_part_of_what_a_run_ends_with(tmp_path: Path) -> None:
    method, views, optimizer, plan = start(tmp_path)
    state = train(method, views, optimizer, plan, TrainingState())
    lines = [json.loads(line) for line in (tmp_path / "metrics.jsonl").read_text().splitlines()]
    probed = [line for line in lines if "feature_spread" in line]
    assert len(probed) == 3  # after steps 1, 16, 32 of 36
    assert state.final_logs["feature_spread"] == pytest.approx(probed[-1]["feature_spread"], abs=1e-6)


def test_features_that_become_alike_are_a_collapse_whatever_the_method(tmp_path: Path) -> None:
    class Shrinking(ToyMethod):
        def update(self, carry: Mapping[str, Tensor], progress: Progress) -> None:
            if progress.step > 20:
                self.teacher.layers[4].weight.zero_()

    method, views, optimizer, plan = flattening(tmp_path)
    method.__class__ = Shrinking
    with pytest.raises(RunFailed, match=r"feature_spread 0 .*same features for every image.*base_lr") as end:
        train(method, views, optimizer, plan, TrainingState())
    assert end.value.status == "collapsed"


def test_distillation_signs_are_both_collapses_of_figure_7_and_no_healthy_teacher() -> None:
    one, flat = distillation_signs(512, "center", "sharpen")
    made = Doctor((one, flat), 0, 10**6, 10**6)

    def there(probabilities: Tensor, kl: float) -> set[str]:
        lasting: dict[str, int] = {}
        used = entropy(probabilities.mean(dim=0)).exp()
        made.look(1, {"scores_used": used.item(), "teacher_entropy": entropy(probabilities).item(), "kl": kl}, lasting)
        return set(lasting)

    torch.manual_seed(0)
    same_winner = torch.softmax(20 * torch.eye(512)[[3] * 16], dim=-1)
    assert there(same_winner, 0.0) == {one.cause}
    assert there(torch.full((16, 512), 1 / 512), 0.0) == {flat.cause}
    assert there(torch.eye(512)[:16], 0.0) == set()  # sharp and well predicted, of another class for every image
    assert there(torch.softmax(torch.randn(16, 512), dim=-1), 0.5) == set()
