"""`sslbench davis-video` as a user types it, after a small run."""

from __future__ import annotations

import shutil
from pathlib import Path

import pytest
import torch
from PIL import Image

from ssl_bench.datasets.shapes.layouts import embedded_davis
from tests.conftest import Command
from tests.toy import write_image_folder
from tests.weights.networks import VIT, tensors, vit

SMALL = ("backbone.depth=1", "backbone.dim=64", "backbone.patch_px=8", "method.out_dim=16", "method.local_views=1")
SIDE = ("--set", "evaluators.davis.short_side_px=64")


@pytest.fixture(scope="module")
def place(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with DAVIS/ and the images to train on."""
    folder = tmp_path_factory.mktemp("place")
    shutil.copytree(embedded_davis(clips=2, frames=5).path, folder / "DAVIS")
    write_image_folder(folder / "tints", train=10, test=4)
    return folder


@pytest.fixture(autouse=True)
def in_place(sslbench: Command, place: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(place)


@pytest.fixture
def run(sslbench: Command, place: Path) -> Path:
    """A run whose first sequence was evaluated."""
    folder = place / "results" / "runs" / "small"
    if not folder.exists():
        settings = [word for value in (*SMALL, "evaluators.davis.sequences=1") for word in ("--set", value)]
        status, _, err = sslbench(
            "run", "dino", "--arch", "deit_ti16", "--data", "tints", "--batch-size", "8", "--epochs", "1",
            "--with", "davis", "--davis", "DAVIS", *settings, *SIDE, "--run-id", "small",
        )  # fmt: skip
        assert status == 0, err
    return folder


def test_masks_of_an_evaluation_are_taken(sslbench: Command, run: Path) -> None:
    status, out, err = sslbench("davis-video", "small", "shapes-00", "--davis", "DAVIS", *SIDE, "--frames", "2")
    assert status == 0, err
    assert "masks of results/runs/small/evaluations/davis-trained/shapes-00" in out
    assert "written: results/runs/small/pictures/shapes-00.png" in out
    with Image.open(run / "pictures" / "shapes-00.png") as strip:
        assert strip.width > 1000
    with Image.open(run / "pictures" / "shapes-00.gif") as animation:
        assert animation.n_frames == 5


def test_without_fitting_masks_the_sequence_is_propagated_once(sslbench: Command, run: Path) -> None:
    arguments = ("davis-video", "small", "shapes-01", "--davis", "DAVIS", *SIDE)
    status, out, err = sslbench(*arguments)
    assert status == 0, err
    assert "masks of 5 frames" in out
    assert (run / "pictures" / "masks" / "shapes-01" / "00004.png").exists()
    assert "masks of results/runs/small/pictures/masks/shapes-01" in sslbench(*arguments)[1]
    assert "masks of 5 frames" in sslbench(*arguments, "--set", "evaluators.davis.top_k=2")[1]


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (("small", "shapes-0", "--davis", "DAVIS"), "no sequence is called 'shapes-0'. Did you mean 'shapes-0"),
        (("small", "shapes-00", "--davis", "tints"), "tints"),
        (("smal1", "shapes-00"), "no run is called 'smal1'. Did you mean 'small'"),
        (("small", "shapes-00", "--set", "knn.k=1"), "davis-video takes evaluators.davis.*"),
        (("small", "shapes-00", "--set", "evaluators.davis.radius=0"), "greater than or equal to 1"),
    ],
)
def test_mistakes(sslbench: Command, run: Path, arguments: tuple[str, ...], words: str) -> None:
    status, _, err = sslbench("davis-video", *arguments)
    assert status == 2
    assert words in err


def test_help_shows_a_command_that_runs(sslbench: Command) -> None:
    status, out, _ = sslbench("davis-video", "--help")
    assert status == 0
    assert "sslbench davis-video dino shapes-00" in " ".join(out.split())


def test_weights_from_a_file_in_place_of_a_run(sslbench: Command, place: Path, tmp_path: Path) -> None:
    torch.save(tensors(vit()), tmp_path / "vit.pth")
    sizes = [word for name, value in VIT.items() for word in ("--set", f"backbone.{name}={value}")]
    shared = (*sizes, *SIDE, "--davis", "DAVIS", "--arch", "deit_s16", "--results", tmp_path / "results")
    status, out, err = sslbench("davis-video", "shapes-00", "--weights", tmp_path / "vit.pth", *shared)
    assert status == 0, err
    assert "masks of 5 frames" in out
    assert (place / "vit-davis" / "shapes-00.gif").exists()
    status, out, err = sslbench(
        "eval",
        tmp_path / "vit.pth",
        "--data",
        "tints",
        "--with",
        "davis",
        "--set",
        "evaluators.davis.sequences=1",
        *shared,
    )
    assert status == 0, err
    drawn = ("--out", tmp_path / "drawn")
    status, out, err = sslbench("davis-video", "shapes-00", "--weights", tmp_path / "vit.pth", *shared, *drawn)
    assert status == 0, err
    assert f"masks of {tmp_path / 'results'}" in out, "masks of the evaluation are taken"
    assert (tmp_path / "drawn" / "shapes-00.png").exists()


def test_a_run_or_weights_and_one_sequence_are_given(sslbench: Command) -> None:
    for words, message in (
        (("shapes-00",), "give a run and a sequence"),
        (("some-run", "shapes-00", "--weights", "w.pth"), "with --weights give one sequence"),
        (("shapes-00", "--weights", "gone.pth", "--davis", "DAVIS"), "gone.pth"),
    ):
        status, _, err = sslbench("davis-video", *words)
        assert (status, message in err) == (2, True), err
