"""`sslbench score-davis` as a user types it."""

from __future__ import annotations

import csv
import shutil
import subprocess
import sys
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from ssl_bench.datasets.indexed_png import write_mask
from ssl_bench.evaluators.davis.scores import MEASURES
from tests.conftest import Command
from tests.davis_files import moving_square, real_data, square, write_davis, write_masks

SIZE = (40, 60)


@pytest.fixture
def davis(tmp_path: Path) -> Path:
    return write_davis(tmp_path, {"ball": moving_square(5), "box": moving_square(4)})


@pytest.fixture
def masks(tmp_path: Path, davis: Path) -> Path:
    """A result: the truth, but nothing in frame 2 of `ball`."""
    shutil.copytree(davis / "Annotations/480p", tmp_path / "masks")
    write_mask(tmp_path / "masks/ball/00002.png", np.zeros(SIZE, np.uint8))
    return tmp_path / "masks"


@pytest.fixture
def score(sslbench: Command) -> Command:
    return partial(sslbench, "score-davis")


def rows(output: str) -> dict[str, list[str]]:
    """Printed lines by their name, numbers as printed."""
    lines = [line for line in output.splitlines() if line.rstrip()[-4:-3] == "." or "J&F-Mean" in line]
    width = len(MEASURES)
    return {" ".join(line.split()[:-width]): line.split()[-width:] for line in lines}


def test_a_line_an_object_and_the_mean_over_objects(score: Command, masks: Path, davis: Path) -> None:
    """Three scored frames of ball: 1, 0, 1; two of box: 1, 1. Cuts for three frames are 1 2 2 3 3: 0.5 less 1."""
    status, out, err = score(masks, "--davis", davis)
    assert (status, err) == (0, "")
    assert rows(out) == {
        "": list(MEASURES),
        "ball_1": ["0.667", "0.667", "0.667", "-0.500", "0.667", "0.667", "-0.500"],
        "box_1": ["1.000", "1.000", "1.000", "0.000", "1.000", "1.000", "0.000"],
        "mean of 2 objects": ["0.833", "0.833", "0.833", "-0.250", "0.833", "0.833", "-0.250"],
    }
    assert "2 objects in 2 sequences, 5 frames" in out


def test_the_two_files_of_the_official_scorer(score: Command, masks: Path, davis: Path, tmp_path: Path) -> None:
    status, out, _ = score(masks, "--davis", davis.parent, "--csv", tmp_path / "scores")
    assert status == 0
    overall, each = (tmp_path / "scores" / f"{kind}_results-val.csv" for kind in ("global", "per-sequence"))
    assert f"written: {overall}" in out
    assert f"written: {each}" in out
    assert overall.read_bytes() == (
        b"J&F-Mean,J-Mean,J-Recall,J-Decay,F-Mean,F-Recall,F-Decay\n0.833,0.833,0.833,-0.250,0.833,0.833,-0.250\n"
    )
    assert each.read_bytes() == b"Sequence,J-Mean,F-Mean\nball_1,0.667,0.667\nbox_1,1.000,1.000\n"


def test_part_of_the_sequences_by_a_list_of_ones_own(score: Command, masks: Path, davis: Path, tmp_path: Path) -> None:
    (tmp_path / "few.txt").write_bytes(b"box\r\n\r\n")
    shutil.rmtree(masks / "ball")
    status, _, err = score(masks, "--davis", davis)
    assert status == 2
    assert "ball/ is missing: 1 of 2 sequences" in err
    assert "--subset LIST.txt" in err
    status, out, _ = score(masks, "--davis", davis, "--subset", tmp_path / "few.txt", "--csv", tmp_path)
    assert status == 0
    assert "ball" not in rows(out)
    assert (tmp_path / "global_results-few.csv").exists()


def test_without_a_path_the_embedded_clips(score: Command, monkeypatch: pytest.MonkeyPatch) -> None:
    """One small clip instead of ten, drawn by the same code; their truth against itself."""
    from ssl_bench.datasets.shapes import layouts as shapes_layouts

    clips = shapes_layouts.embedded_davis(clips=1, frames=3)
    monkeypatch.setattr(shapes_layouts, "embedded_davis", lambda: clips)
    status, out, _ = score(clips.path / "Annotations/480p")
    assert status == 0
    assert out.startswith("shapes-clips, semi-supervised")
    assert [line[1] for line in list(rows(out).values())[1:]] == ["1.000"] * (len(rows(out)) - 1)


def test_masks_of_another_set_without_a_path(score: Command, masks: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    from ssl_bench.datasets.shapes import layouts as shapes_layouts

    clips = shapes_layouts.embedded_davis(clips=1, frames=3)
    monkeypatch.setattr(shapes_layouts, "embedded_davis", lambda: clips)
    status, _, err = score(masks)
    assert status == 2
    assert "shapes-00/ is missing" in err
    assert "Without --davis DIR" in err


def test_neither_torch_nor_plugins_are_imported(masks: Path, davis: Path) -> None:
    code = (
        "import sys\nfrom ssl_bench.cli.main import app\n"
        f"try:\n    app(['score-davis', {str(masks)!r}, '--davis', {str(davis)!r}])\n"
        "except SystemExit as end:\n    assert not end.code, end.code\n"
        "print('LOADED', [m for m in sys.modules if m in ('torch', 'timm', 'ssl_bench_plugins')])"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    assert done.stdout.strip().endswith("LOADED []")


def test_a_level_too_high_or_too_low(score: Command, davis: Path) -> None:
    for given, meant in ((davis / "Annotations", "Annotations/480p"), (davis, "Annotations/480p")):
        status, _, err = score(given, "--davis", davis)
        assert status == 2
        assert f"DAVIS/{meant}?" in err
    status, _, err = score(davis / "Annotations/480p/ball", "--davis", davis)
    assert "Did you mean DAVIS/Annotations/480p?" in err


def test_folders_that_hold_no_result(score: Command, davis: Path, tmp_path: Path) -> None:
    _, _, err = score(tmp_path / "none", "--davis", davis)
    assert "none does not exist" in err
    (tmp_path / "empty").mkdir()
    _, _, err = score(tmp_path / "empty", "--davis", davis)
    assert "empty/ball/ is missing, like every other" in err
    assert "FOLDER/SEQUENCE/00000.png" in err
    write_masks(tmp_path / "near/bal", moving_square(5))
    write_masks(tmp_path / "near/box", moving_square(4))
    _, _, err = score(tmp_path / "near", "--davis", davis)
    assert "near/ball/ is missing: 1 of 2" in err
    assert "Did you mean 'bal'?" in err


def _color(masks: Path) -> None:
    Image.new("RGB", SIZE[::-1]).save(masks / "ball/00002.png")


def _transposed(masks: Path) -> None:
    write_mask(masks / "ball/00002.png", np.zeros(SIZE[::-1], np.uint8))


def _resized(masks: Path) -> None:
    write_mask(masks / "ball/00002.png", np.zeros((480, 854), np.uint8))


def _second_object(masks: Path) -> None:
    write_mask(masks / "ball/00002.png", square(1, 1, 5, SIZE, value=2))


def _white(masks: Path) -> None:
    Image.fromarray(square(1, 1, 5, SIZE, value=255)).save(masks / "ball/00002.png")


def _damaged(masks: Path) -> None:
    (masks / "ball/00002.png").write_bytes(b"\x89PNG\r\n\x1a\n")


def _no_end(masks: Path) -> None:
    for name in ("00002", "00003", "00004"):
        (masks / f"ball/{name}.png").unlink()


def _other_names(masks: Path) -> None:
    for path in (masks / "ball").iterdir():
        path.rename(path.with_name(f"frame_{path.name}"))


def _no_png(masks: Path) -> None:
    for path in (masks / "ball").iterdir():
        path.unlink()


@pytest.mark.parametrize(
    ("spoil", "words"),
    [
        (_color, ("ball/00002.png is RGB", "indexed PNG")),
        (_transposed, ("ball/00002.png is 40 x 60", "60 x 40", "transposed")),
        (_resized, ("ball/00002.png is 854 x 480", "60 x 40")),
        (_second_object, ("ball/00002.png holds the value 2", "ball has 1 object:", "Annotations/480p/ball/00000.png")),
        (_white, ("ball/00002.png holds the value 255", "black and white", "write 1")),
        (_damaged, ("cannot read the mask", "ball/00002.png")),
        (_no_end, ("ball/00002.png is missing: 2 of the 3", "00002 to 00003")),
        (_other_names, ("ball/00001.png is missing: 3 of the 3", "frame_00000.png first")),
        (_no_png, ("ball/00001.png is missing", "no PNG in it")),
    ],
)
def test_masks_that_cannot_be_scored(
    score: Command, masks: Path, davis: Path, spoil: Any, words: tuple[str, ...]
) -> None:
    spoil(masks)
    status, out, err = score(masks, "--davis", davis)
    assert (status, out) == (2, "")
    assert err.startswith("error: ")
    assert err.count("\n") == 1
    assert all(word in err for word in words), err


def test_a_place_for_the_files_that_cannot_be(score: Command, masks: Path, davis: Path, tmp_path: Path) -> None:
    """Said before anything is scored."""
    status, out, err = score(masks, "--davis", davis, "--csv", tmp_path / "scores.csv")
    assert (status, out) == (2, "")
    assert "expected a folder" in err
    (tmp_path / "file").write_text("")
    status, out, err = score(masks, "--davis", davis, "--csv", tmp_path / "file" / "below")
    assert (status, out) == (2, "")
    assert "Choose another with --csv" in err


def test_the_command_of_the_help_runs(score: Command, davis: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(davis.parent)
    status, text, _ = score("--help")
    assert status == 0
    command = " ".join(text.split()).rpartition("sslbench score-davis ")[2]
    status, out, _ = score(*command.split())
    assert status == 0
    assert rows(out)["mean of 2 objects"][0] == "1.000"


def test_osvos_as_the_official_scorer_prints_it(score: Command, tmp_path: Path) -> None:
    """What evaluation_method.py of davis2017-evaluation writes for these masks."""
    real = real_data("davis2017") / "davis2017"
    assert score(real / "osvos_masks", "--davis", real, "--csv", tmp_path)[0] == 0
    with (tmp_path / "global_results-val.csv").open() as file:
        assert list(csv.reader(file)) == [
            list(MEASURES),
            ["0.843", "0.817", "0.904", "0.127", "0.868", "0.979", "0.109"],
        ]
    with (tmp_path / "per-sequence_results-val.csv").open() as file:
        assert list(csv.reader(file))[1:] == [
            ["blackswan_1", "0.943", "0.974"],
            ["car-shadow_1", "0.928", "0.917"],
            ["drift-chicane_1", "0.774", "0.829"],
            ["libby_1", "0.623", "0.751"],
        ]
