"""How many images an evaluation computes at once in the memory there is. Predictions, which have tests of their own,
cards, and memory that runs out are mocks."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any, cast

import pytest
import torch

from ssl_bench.errors import UserError
from ssl_bench.evaluation.features import FeatureStore
from ssl_bench.planning.evaluation_memory import EvaluationMemory
from ssl_bench.planning.stand_in import StandIn
from ssl_bench.recipes.resolve import Resolved
from ssl_bench.runs import evaluation_fitting, session
from ssl_bench.runs.evaluation_fitting import images_in_a_run, images_per_pass
from tests.conftest import Command
from tests.fake_cuda import FakeCard, fake_cuda
from tests.toy import ToyBackbone, ToyMethod, write_image_folder

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
    assert images_per_pass(ToyBackbone(), [DATA], torch.device("cpu"), memory, said.append) == images
    assert bool(said) == (images < 128)


def test_not_even_one_image(said: list[str]) -> None:
    with pytest.raises(UserError, match=r"--memory 950MB: evaluating on imagenet takes 1\.0 GB with one image"):
        images_per_pass(ToyBackbone(), [DATA], torch.device("cpu"), "950MB", said.append)


@pytest.mark.parametrize(
    ("free", "memory", "images"),
    [(2048, None, 128), (1024, None, 64), (0, None, 1), (8192, "2GB", 64), (8192, "4GB", 128)],
)
def test_a_card_has_what_is_free(
    said: list[str], monkeypatch: pytest.MonkeyPatch, free: int, memory: str | None, images: int
) -> None:
    """By hand: 88 % of 1024 + 600 MB of this process, less 600 MB, are 829 MB for 64 images; of 2 GB 1202 MB are left,
    of which weights and moments hold 300 MB beside 64 images. Without a limit one image is tried at least."""
    fake_cuda(monkeypatch, FakeCard("a card", (9, 0), free=free * MB, total=8192 * MB))
    monkeypatch.setattr(torch.cuda, "memory_reserved", lambda device: 0)
    monkeypatch.setattr(torch.cuda, "set_per_process_memory_fraction", lambda share, device: None)
    held = None if memory is None else 300 * MB
    assert images_per_pass(ToyBackbone(), [DATA], torch.device("cuda", 0), memory, said.append, held=held) == images
    assert bool(said) == (images < 128)


def test_a_network_that_cannot_be_predicted_is_evaluated(monkeypatch: pytest.MonkeyPatch) -> None:
    said = list[str]()
    monkeypatch.setattr(evaluation_fitting, "predict_evaluation", lambda *_: 1 / 0)
    assert images_per_pass(ToyBackbone(), [DATA], torch.device("cpu"), "2GB", said.append) == 128
    assert "could not be predicted (ZeroDivisionError" in said[0]


def test_a_run_computes_as_many_images_everywhere(
    sslbench: Command, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Before, during and after training; where memory runs out at the end, what was trained is kept, and a resumed run
    only evaluates. On the CPU it is the protocol's number whatever `--memory` says, so the number is a mock."""
    monkeypatch.setattr(session, "images_in_a_run", lambda *_: 5)
    seen, real = list[int](), FeatureStore._from_network

    def limited(self: FeatureStore, *given: Any) -> Any:
        seen.append(self.batch_size)
        if len(seen) == 6:  # two splits of the untrained network, two after the epoch, and two at the end
            raise torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 2.00 GiB")
        return real(self, *given)

    data = write_image_folder(tmp_path / "tints", train=8, test=4, px=16)
    words = ("supervised", "--arch", "resnet18", "--set", "backbone.width=0.125", "--set", "training.precision=fp32")
    words += ("--epochs", "1", "--batch-size", "8", "--with", "knn", "--data", data, "--eval-every", "1")
    monkeypatch.setattr(FeatureStore, "_from_network", limited)
    status, out, err = sslbench("run", *words, "--run-id", "one")
    assert (status, "Traceback" in err) == (2, False)
    assert "memory ran out in knn of the trained network (CUDA out of memory" in err
    assert "What was trained is saved." in err
    status, out, err = sslbench("run", "--resume", "one")
    assert status == 0, out + err
    assert set(seen) == {5}
    record = json.loads((tmp_path / "results" / "runs" / "one" / "record.json").read_text())
    assert record["backbone"]["inference_batch"] == 5


def test_on_a_cpu_a_run_keeps_the_number_of_the_protocol(monkeypatch: pytest.MonkeyPatch) -> None:
    method = ToyMethod(ToyMethod.Config(), lambda drop_path=0.0: ToyBackbone())
    line = cast("Any", None)
    assert images_in_a_run(cast("Resolved", None), method, torch.device("cpu"), line) == 128


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
