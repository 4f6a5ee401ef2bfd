"""iBOT as a third party writes it: one file, no change to the core; checked, trained, resumed and tabulated."""

from __future__ import annotations

import json
import math
import signal
import sys
from collections.abc import Iterator
from pathlib import Path
from random import Random
from typing import Any

import pytest
import torch
from safetensors.torch import load_file
from torch import Tensor

from ssl_bench import registry
from ssl_bench.method import Batch, Progress
from ssl_bench.testing import run_checks
from ssl_bench_plugins.backbones.deit import DeitTi16, ViTSettings
from tests.conftest import Command
from tests.plugins.ibot_like import IBOT, IBOTSettings, block_mask
from tests.toy import write_image_folder

SMALL = IBOTSettings(
    global_crop_px=16, local_crop_px=8, patch_px=4, local_views=1, out_dim=5, hidden_dim=8, bottleneck_dim=4,
    teacher_temperature_start=0.04, teacher_temperature_epochs=3, drop_path=0.0,
)  # fmt: skip


def method(config: IBOTSettings = SMALL) -> IBOT:
    torch.manual_seed(0)
    made = IBOT(config, lambda **_: DeitTi16(ViTSettings(patch_px=4, dim=16, depth=1, heads=2), image_px=16)).double()
    made.mask_token.data.normal_()
    made.class_center.normal_(std=0.05)
    made.patch_center.normal_(std=0.05)
    with torch.no_grad():
        for parameter in made.student.parameters():  # so that student and teacher differ
            parameter.add_(0.1 * torch.randn_like(parameter))
    return made


def a_batch(images: int = 3) -> Batch:
    torch.manual_seed(1)
    sides = (16, 16, 8)
    views = tuple(torch.randn(images, 3, side, side, dtype=torch.float64) for side in sides)
    return Batch(IBOT.batch_views(SMALL, views, Random("step")), torch.arange(images))


def softmax(scores: list[float], temperature: float) -> list[float]:
    largest = max(scores)
    powers = [math.exp((score - largest) / temperature) for score in scores]
    return [power / sum(powers) for power in powers]


def cross_entropy(teacher: list[float], student: Tensor) -> float:
    return -sum(t * math.log(s) for t, s in zip(teacher, softmax(student.tolist(), 0.1), strict=True))


def test_the_loss_is_equations_2_and_3_pair_by_pair_and_patch_by_patch() -> None:
    """Every term by itself in float64, to 1e-9: images, views, patches and scores in plain loops."""
    made, batch = method().eval(), a_batch()
    first, second, local, *masks = batch.views
    temperature = 0.04 + (0.07 - 0.04) * 1 / 2  # epoch 1 of a ramp over 3
    with torch.no_grad():
        teacher = [made.teacher(view) for view in (first, second)]
        student = [
            made.student(view, mask=mask, mask_token=made.mask_token)
            for view, mask in zip((first, second), masks, strict=True)
        ] + [made.student(local)]
    of_class, of_patches = [], []
    for image in range(3):
        for u in range(2):
            target = softmax((teacher[u][0][image] - made.class_center).tolist(), temperature)
            of_class += [cross_entropy(target, student[v][0][image]) for v in range(3) if v != u]
            terms = [
                cross_entropy(
                    softmax((teacher[u][1][image, i] - made.patch_center).tolist(), temperature),
                    student[u][1][image, i],
                )
                for i in range(16)
                if masks[u][image, i]
            ]
            of_patches.append(sum(terms) / len(terms) if terms else 0.0)
    expected = sum(of_class) / len(of_class) + sum(of_patches) / len(of_patches)
    output = made.step(batch, Progress(4, 40, 1, 10))
    assert output.loss.item() == pytest.approx(expected, abs=1e-9)
    assert any(mask.any(dim=1).sum() < 3 for mask in masks)  # an image without a mask adds 0 to the mean


def test_centers_and_teacher_move_by_their_means_once_a_step() -> None:
    made, batch, progress = method(), a_batch(), Progress(10, 40, 2, 10)
    with torch.no_grad():
        scores = [made.teacher(view) for view in batch.views[:2]]
    centers = [made.class_center.clone(), made.patch_center.clone()]
    before = [parameter.clone() for parameter in made.teacher.parameters()]
    with torch.no_grad():
        made.update(made.step(batch, progress).carry, progress)
    for center, was, index in ((made.class_center, centers[0], 0), (made.patch_center, centers[1], 1)):
        mean = torch.stack([one[index].reshape(-1, 5).mean(dim=0) for one in scores]).mean(dim=0)
        torch.testing.assert_close(center, 0.9 * was + 0.1 * mean, rtol=0, atol=1e-12)
    momentum = 1 - (1 - 0.996) * (math.cos(math.pi * 10 / 40) + 1) / 2
    for now, was, student in zip(made.teacher.parameters(), before, made.student.parameters(), strict=True):
        torch.testing.assert_close(now, momentum * was + (1 - momentum) * student, rtol=0, atol=1e-12)


def test_masks_are_blocks_within_the_ratio_drawn_for_each_image() -> None:
    shares = []
    for seed in range(200):
        mask = block_mask(14, 0.3, Random(seed)).view(14, 14)
        shares.append(float(mask.float().mean()))
        assert shares[-1] <= 0.3
        neighbors = mask[1:] & mask[:-1]  # in blocks nearly every patch has one above or below it
        assert float(neighbors.sum()) > 0.5 * float(mask.sum())
    assert 0.27 < sum(shares) / len(shares) <= 0.3
    assert not block_mask(14, 0.0, Random(0)).any()
    largest = block_mask(3, 1.0, Random(0))
    assert largest.any()


def test_just_a_share_of_the_batch_is_masked_and_only_as_the_steps_random_says() -> None:
    views = tuple(torch.zeros(10, 3, 16, 16) for _ in range(3))
    *same, first, second = IBOT.batch_views(SMALL, views, Random("a"))
    assert all(one is other for one, other in zip(same, views, strict=True))
    assert [int(mask.any(dim=1).sum()) for mask in (first, second)] == [5, 5]
    assert first.shape == (10, 16)
    assert float(first.float().sum(dim=1).max()) <= 0.5 * 16
    again, other = (IBOT.batch_views(SMALL, views, Random(seed))[3] for seed in ("a", "b"))
    assert torch.equal(again, first)
    assert not torch.equal(other, first)


def test_every_check_holds() -> None:
    found = run_checks("method", IBOT)
    assert [(one.name, one.message) for one in found if one.outcome == "failed"] == []
    assert "batch views depend only on their random numbers" in {one.name for one in found if one.outcome == "ok"}


@pytest.fixture
def installed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """The distribution ibot-bench 1.0 with the one file, as pip would install it."""
    info = tmp_path / "ibot_bench-1.0.dist-info"
    info.mkdir()
    (info / "METADATA").write_text("Metadata-Version: 2.1\nName: ibot-bench\nVersion: 1.0\n")
    (info / "entry_points.txt").write_text("[ssl_bench.methods.v1]\nibot = tests.plugins.ibot_like:IBOT\n")
    monkeypatch.syspath_prepend(str(tmp_path))
    registry.refresh()
    yield
    sys.path.remove(str(tmp_path))
    registry.refresh()


def test_it_trains_resumes_bitwise_and_stands_in_a_table(
    sslbench: Command, installed: None, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    data = write_image_folder(tmp_path / "tints", train=12, test=6, px=32)
    settings = ("backbone.depth=1", "backbone.dim=32", "backbone.patch_px=8", "training.precision=fp32")
    arguments = ["run", "ibot", "--arch", "deit_ti16", "--batch-size", "8", "--data", data, "--epochs", "2"]
    arguments += [*(word for value in settings for word in ("--set", value)), "--with", "knn", "--eval-every", "1"]
    status, out, err = sslbench(*arguments, "--run-id", "whole")
    assert status == 0, out + err

    def stop(self: Any, report: Any) -> None:
        if report.step == 3:
            signal.raise_signal(signal.SIGINT)

    with monkeypatch.context() as patch:
        patch.setattr("ssl_bench.runs.display.TerminalDisplay.step", stop)
        assert sslbench(*arguments, "--run-id", "cut")[0] == 130
    runs = tmp_path / "results" / "runs"
    status, out, err = sslbench("run", "--resume", runs / "cut")
    assert status == 0, out + err
    one, other = (load_file(runs / name / "weights.safetensors") for name in ("whole", "cut"))
    assert [name for name in one if not torch.equal(one[name], other[name])] == []
    assert not [name for name in one if "mask" in name]  # the backbone's weights are the architecture's own
    records = [json.loads((runs / name / "record.json").read_text()) for name in ("whole", "cut")]
    assert records[0]["method_plugin"] == "ibot-bench 1.0"
    curves = [
        [(one["network"], one["first"], one["last"], one["points"]) for one in record["curves"]["summaries"]]
        for record in records
    ]
    assert curves[0] == curves[1]
    assert [(network, points) for network, _, _, points in curves[0]] == [("teacher", 2), ("student", 2)]
    status, out, err = sslbench("table")
    assert status == 0, out + err
    assert "| ibot " in out
