"""`sslbench plan` as it is typed."""

from __future__ import annotations

import json
import shlex

import pytest

from ssl_bench.planning.choices import Choice
from ssl_bench.planning.evaluation_memory import EvaluationMemory
from ssl_bench.planning.step_memory import PARTS, StepMemory
from ssl_bench.runs.predicting import StepPredictor
from tests.conftest import Command

MB = 2**20

TINY = ("simclr", "--arch", "resnet18", "--set", "backbone.width=0.125", "--set", "data.image_px=32")


@pytest.fixture
def a_line(monkeypatch: pytest.MonkeyPatch) -> None:
    """In place of predictions, which have tests of their own: 20 MB, and 1 MB an image, half of it when recomputed."""

    def memory(self: StepPredictor, choice: Choice) -> StepMemory:
        images = choice.micro_batch or self.batch_size
        activations = images * MB // (2 if choice.checkpointing else 1)
        work = 400 if choice.checkpointing else 300
        return StepMemory(dict.fromkeys(PARTS, 4 * MB) | {"activations": activations}, work * self.batch_size)

    monkeypatch.setattr(StepPredictor, "memory", memory)


@pytest.mark.usefixtures("a_line")
def test_what_fits_and_what_does_not(sslbench: Command) -> None:
    """Usable are 301 MB of 1 GB. SimCLR on a residual network: batch norm makes micro-batches an approximation."""
    status, out, _ = sslbench("plan", *TINY, "--batch-size", "8", "--memory", "1GB", "--json")
    assert status == 0
    plan = json.loads(out)
    assert (plan["memory_bytes"], plan["usable_bytes"] // MB) == (2**30, 301)
    assert [way["fits"] for way in plan["ways"]] == [True]
    assert [way["peak_bytes"] for way in plan["ways"]] == [28 * MB]
    assert plan["chosen"]["activation_checkpointing"] is False
    assert plan["chosen"]["micro_batch"] is None
    status, out, _ = sslbench("plan", *TINY, "--batch-size", "1000", "--memory", "1GB")
    assert status == 0
    assert (
        "fits: sslbench run simclr --arch resnet18 --batch-size 1000 --set backbone.width=0.125 "
        "--set data.image_px=32 --set training.precision=fp32 --set machine.activation_checkpointing=true "
        "--set machine.micro_batch=500\n" in out
    )
    assert "Approximate: batch norm sees 500 images of 1000." in out
    assert "largest     training, 0.3 GB" in out


@pytest.mark.usefixtures("a_line")
def test_the_time_of_an_epoch_on_a_card_is_an_estimate(sslbench: Command) -> None:
    """By hand: 1,281,167 / 8 = 160,145 steps of 8 x 300 operations and one start of a pass more (9 / 8), at 40 % of 2.1
    TFLOPS."""
    words = ("plan", *TINY, "--batch-size", "8", "--device", "1050ti")
    plan = json.loads(sslbench(*words, "--json")[1])
    assert plan["chosen"]["precision"] == "fp32"
    assert plan["chosen"]["estimated_seconds_per_epoch"] == pytest.approx(160_145 * 8 * 300 * 9 / 8 / (0.4 * 2.1e12))
    out = sslbench(*words)[1]
    assert "40% of the 2.1 TFLOPS that are published" in out
    assert "\n  frozen weights and buffers" + f"{'4 MB':>7}\n" in out  # two spaces beside the widest cell, "28 MB"
    assert "time per epoch, estimated" in out
    assert "name the card" in sslbench("plan", *TINY, "--batch-size", "8", "--memory", "4GB")[1]


@pytest.mark.usefixtures("a_line")
def test_the_time_of_an_epoch_here_is_measured(sslbench: Command) -> None:
    small = ("--set", "data.train_images=16", "--batch-size", "8", "--device", "cpu", "--memory", "4GB")
    plan = json.loads(sslbench("plan", *TINY, *small, "--measure", "--json")[1])
    assert 0 < plan["measured_seconds_per_epoch"] < 60
    assert "--measure" in sslbench("plan", *TINY, *small)[1]


@pytest.mark.usefixtures("a_line")
def test_what_is_set_stays(sslbench: Command) -> None:
    words = ("--batch-size", "500", "--memory", "1GB", "--set", "machine.activation_checkpointing=false", "--json")
    chosen = json.loads(sslbench("plan", *TINY, *words)[1])["chosen"]
    assert (chosen["activation_checkpointing"], chosen["micro_batch"], chosen["exact"]) == (False, 250, False)


@pytest.mark.usefixtures("a_line")
def test_a_micro_batch_that_is_set_is_called_approximate_and_given_once(sslbench: Command) -> None:
    typed = ("--set", "machine.micro_batch=4", "--set", "training.precision = auto")
    words = ("plan", *TINY, "--batch-size", "8", *typed)
    assert [way["exact"] for way in json.loads(sslbench(*words, "--json")[1])["ways"]] == [False]
    status, out, err = sslbench(*words)
    assert status == 0, err
    command = next(line for line in out.splitlines() if line.startswith("fits: "))
    settings = [word for word in shlex.split(command) if "=" in word]
    assert settings == [*TINY[4::2], "training.precision=fp32", "machine.micro_batch=4"]
    assert "Approximate: batch norm sees 4 images of 8" in out


@pytest.mark.usefixtures("a_line")
def test_a_limit_too_small_for_anything(sslbench: Command) -> None:
    """Two images recomputed take 21 MB; 0.6 GB and 12 % are set aside: (600 + 21) / 0.88 = 706 MB, said as 0.7 GB."""
    status, out, _ = sslbench("plan", *TINY, "--batch-size", "8", "--memory", "100MB")
    assert status == 0
    assert "nothing fits. The smallest way takes 0.02 GB (fp16, activation checkpointing, 2 at once)." in out
    assert "--memory 0.7GB" in out
    smaller = sslbench("plan", *TINY, "--batch-size", "8", "--memory", "0.7GB")
    assert "\nfits: " in smaller[1]


@pytest.mark.usefixtures("a_line")
def test_an_evaluation_that_is_larger_than_training(sslbench: Command, monkeypatch: pytest.MonkeyPatch) -> None:
    """8 MB of the 301 that are usable are held. On a card a run computes 64 images of 4 MB at once; those of 400 MB fit
    nowhere. On a CPU of 1 GB, with 124 MB usable, it keeps 128 images, and the features of all of them count."""

    def evaluation(of_an_image: int, features: int) -> None:
        monkeypatch.setattr(
            StepPredictor, "evaluation", lambda self, images: EvaluationMemory(images * of_an_image, features, 0)
        )

    words = ("plan", *TINY, "--batch-size", "8", "--memory", "1GB")
    evaluation(4 * MB, 400 * MB)
    out = sslbench(*words)[1]
    assert "0.3 GB with 64 images per forward pass; features" in out
    assert "Only training fits" not in out
    assert json.loads(sslbench(*words, "--json")[1])["evaluation"]["images_per_pass"] == 64
    evaluation(400 * MB, 0)
    assert "Only training fits: evaluating takes 0.4 GB with 1 image per forward pass." in sslbench(*words)[1]
    evaluation(MB, 0)
    assert "Only training fits: evaluating takes 0.1 GB with 128 images" in sslbench(*words, "--device", "cpu")[1]
    evaluation(0, 120 * MB)
    assert "Only training fits" in sslbench(*words, "--device", "cpu")[1]


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (("--memory", "4"), "lacks a unit"),
        (("--device", "1050it"), "Did you mean '1050ti'"),
        (("--device", "cpu"), "give its --memory too"),
        (("--measure",), "give --device cpu"),
        (("--set", "method.temprature=1"), "temperature"),
        (("--batch-size", "5", "--set", "machine.micro_batch=2"), "machine.micro_batch=3"),  # as run says too
    ],
)
def test_mistakes(sslbench: Command, words: tuple[str, ...], message: str) -> None:
    status, out, error = sslbench("plan", *TINY, *words)
    assert (status, out) == (2, "")
    assert message in error
