"""`machine.augment_on`: what trains, what is recorded, what is refused. The CPU stands in for the device."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
import torch

from ssl_bench.blocks.device_views import DeviceViews
from ssl_bench.blocks.optimizers import build_optimizer
from ssl_bench.blocks.views import Crop, MultiCrop
from ssl_bench.method import Batch
from ssl_bench.planning.step_memory import HowToStep, measure_step, view_shapes
from ssl_bench.training.loop import Stopped, train
from ssl_bench.training.state import TrainingState
from tests.conftest import Command
from tests.end_to_end.test_end_to_end import SMALL
from tests.toy import ToyBackbone, ToyDataset, ToyMethod, make_plan, write_image_folder
from tests.training.test_training import _interrupt, restored, same

VIEWS = MultiCrop([(Crop(8, (0.5, 1.0), jitter_probability=0.8, brightness=0.4, hue=0.1, blur_probability=0.5), 2)])
ON_DEVICE = ("--set", "machine.augment_on=device")


class Cropped(ToyMethod):
    """A toy whose views are crops."""

    @classmethod
    def make_views(cls, config: Any) -> MultiCrop:
        return VIEWS


def built() -> Cropped:
    torch.manual_seed(1)
    return Cropped(Cropped.Config(), lambda drop_path=0.0: ToyBackbone())


def start(folder: Path, **changes: Any) -> tuple[Any, ...]:
    folder.mkdir(exist_ok=True)
    method, plan = built(), make_plan(ToyDataset().train, folder, **changes)
    return method, DeviceViews(VIEWS), build_optimizer(plan.optimizer, method.parameter_groups()), plan


def equal(one: Batch, other: Batch) -> bool:
    return all(map(torch.equal, one.views, other.views)) and torch.equal(one.index, other.index)


def test_workers_change_nothing(tmp_path: Path) -> None:
    method, views, _, alone = start(tmp_path)
    _, _, _, with_workers = start(tmp_path, workers=2)
    pairs = list(zip(alone.batches(method, views), with_workers.batches(method, views), strict=True))
    assert len(pairs) == 12
    assert all(equal(one, other) for one, other in pairs)


@pytest.mark.parametrize("micro_batch", [None, 2])
def test_a_resumed_run_is_bitwise_the_uninterrupted_one(tmp_path: Path, micro_batch: int | None) -> None:
    method, *rest = start(tmp_path / "whole", micro_batch=micro_batch)
    train(method, *rest, TrainingState())
    cut, *rest = start(tmp_path / "cut", micro_batch=micro_batch)
    with pytest.raises(Stopped):
        train(cut, *rest, TrainingState(), report=lambda report: _interrupt(report.step == 5))
    resumed, views, optimizer, plan = start(tmp_path / "cut", micro_batch=micro_batch)
    train(resumed, views, optimizer, plan, restored(resumed, optimizer, tmp_path / "cut"))
    assert same(method.state_dict(), resumed.state_dict())
    whole, pieces = ((tmp_path / name / "metrics.jsonl").read_text() for name in ("whole", "cut"))
    assert whole == pieces
    assert "feature_spread" in whole  # the doctor saw finished views


def test_the_plan_counts_what_finishing_takes() -> None:
    """More than the step of a network that keeps almost nothing."""
    method, *_ = start(Path())
    shapes = view_shapes(method, VIEWS, 4, 8)
    from_workers, on_device = (
        measure_step(
            method, make_plan(ToyDataset().train, Path()).optimizer, shapes, HowToStep(finishes_views=finishes)
        )
        for finishes in (False, True)
    )
    assert on_device.peak - on_device.held >= (2 + 6 + 2) * 4 * 3 * 8 * 8 * 4  # to be finished, beside the batch
    assert on_device.peak > from_workers.peak


def test_a_run_says_and_records_where_it_augments(sslbench: Command, tmp_path: Path) -> None:
    data = write_image_folder(tmp_path / "tints", train=8, test=4, px=16)
    arguments = ["run", "dino", *SMALL, "--data", str(data), "--epochs", "1", "--with", "knn"]
    losses = {}
    for run, more in (("workers", ()), ("device", ON_DEVICE)):
        status, out, err = sslbench(*arguments, *more, "--run-id", run)
        assert status == 0, out + err
        folder = tmp_path / "results" / "runs" / run
        record = json.loads((folder / "record.json").read_text())
        assert record["machine"]["augment_on"] == run
        assert ("color of views on the device" in sslbench("show", run)[1]) is (run == "device")
        losses[run] = [json.loads(line)["loss"] for line in (folder / "metrics.jsonl").read_text().splitlines()]
    assert losses["device"] == pytest.approx(losses["workers"], abs=1e-3)
    assert "in the workers" in sslbench("diff", "workers", "device")[1]


def test_methods_with_views_of_their_own_are_refused_before_the_run(sslbench: Command, tmp_path: Path) -> None:
    pytest.importorskip("lightly")
    data = write_image_folder(tmp_path / "tints", train=8, test=4, px=16)
    status, out, err = sslbench("run", "lightly-simclr", *SMALL[:4], "--data", str(data), "--epochs", "1", *ON_DEVICE)
    assert status == 2
    words = " ".join((out + err).split())
    assert "machine.augment_on = device" in words
    assert "Leave the setting at workers" in words
    assert not list((tmp_path / "results").rglob("record.json"))
