"""How many images an evaluation computes at once under `--memory`. Predictions are mocks; they have their own tests."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch

from ssl_bench.errors import UserError
from ssl_bench.planning.evaluation_memory import EvaluationMemory
from ssl_bench.planning.stand_in import StandIn
from ssl_bench.runs import evaluation_fitting
from ssl_bench.runs.evaluation_fitting import images_per_pass
from tests.conftest import Command
from tests.toy import ToyBackbone, write_image_folder

MB = 2**20
DATA = StandIn(StandIn.Config(image_px=8))


@pytest.fixture
def said(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """10 MB an image, and 100 MB of features."""

    def predict(backbone: object, dataset: object, images: int) -> EvaluationMemory:
        return EvaluationMemory(10 * MB * images, 100 * MB, 0)

    monkeypatch.setattr(evaluation_fitting, "predict_evaluation", predict)
    return []


@pytest.mark.parametrize(("memory", "images"), [(None, 128), ("3GB", 128), ("1500MB", 32), ("1011MB", 1)])
def test_as_many_images_as_there_is_room_for(said: list[str], memory: str | None, images: int) -> None:
    """By hand: 900 MB are the process; 1500 - 900 - 100 MB leave 50 images, so 32; 1011 MB leave one."""
    assert images_per_pass(ToyBackbone(), DATA, torch.device("cpu"), memory, said.append) == images
    assert bool(said) == (images < 128)


def test_not_even_one_image(said: list[str]) -> None:
    with pytest.raises(UserError, match=r"--memory 950MB: evaluating on imagenet takes 1\.0 GB with one image"):
        images_per_pass(ToyBackbone(), DATA, torch.device("cpu"), "950MB", said.append)


def test_eval_takes_a_limit(sslbench: Command, tmp_path: Path) -> None:
    """The same accuracy, within rounding, from one image at a time as from all of them at once."""
    data = write_image_folder(tmp_path / "tints", train=8, test=4, px=16)
    words = ("random", "--arch", "resnet18", "--set", "backbone.width=0.125", "--data", data, "--with", "knn")
    status, out, err = sslbench("run", *words, "--run-id", "one")
    assert status == 0, out + err
    status, out, err = sslbench("eval", "one", "--memory", "4")
    assert (status, "lacks a unit" in err) == (2, True)
    status, out, err = sslbench("eval", "one", "--with", "knn", "--memory", "200MB")
    assert status == 2
    assert "with one image at a time" in err
    assert "Traceback" not in err
    status, out, err = sslbench("eval", "one", "--with", "knn", "--memory", "2GB")
    assert status == 0, out + err
    assert "top1" in out
