"""Pictures of runs: small, in the page, and never from outside the run's folder."""

from __future__ import annotations

import base64
import io
from pathlib import Path

import pytest
from PIL import Image

from ssl_bench.records.record import RunRecord
from ssl_bench.report import pictures
from ssl_bench.report.pictures import LONGEST_SIDE, OF_EACH_EVALUATION, PictureView, pictures_of
from tests.example_records import evaluation, make_record, measured


def a_run(tmp_path: Path, *places: str) -> tuple[Path, RunRecord]:
    one = evaluation("voc-jaccard", "trained", measured(40.0), pictures=places)
    folder = tmp_path / "runs" / "dino"
    folder.mkdir(parents=True)
    return folder / "record.json", make_record(run_id="dino").model_copy(update={"evaluations": (one,)})


def decoded(view: PictureView, *, clip: bool = False) -> Image.Image:
    address = view.clip if clip else view.address
    assert address.startswith("data:image/webp;base64,")
    return Image.open(io.BytesIO(base64.b64decode(address.partition(",")[2])))


def test_large_pictures_become_small_and_further_ones_are_counted(tmp_path: Path) -> None:
    path, record = a_run(tmp_path, "a.png", "b.png", "c.png", "gone.png")
    for name in ("a.png", "b.png", "c.png"):
        Image.new("RGB", (3000, 600), "red").save(path.parent / name)
    found = pictures_of([(path, record)])
    assert len(found.shown) == OF_EACH_EVALUATION
    assert found.left_out == "Further pictures in the folders of the runs: 1."
    view = found.shown[0]
    assert (view.width, view.height) == decoded(view).size == (LONGEST_SIDE, LONGEST_SIDE // 5)
    assert view.caption == "a: voc-jaccard on shapes, trained network"
    assert view.href == "#run-dino"


def test_a_strip_and_its_clip_are_one_picture_and_the_clip_keeps_its_time(tmp_path: Path) -> None:
    path, record = a_run(tmp_path, "s.gif", "s.png")
    Image.new("RGB", (40, 10), "blue").save(path.parent / "s.png")
    frames = [Image.new("RGB", (20, 10), (number * 2, 0, 0)) for number in range(100)]
    frames[0].save(path.parent / "s.gif", save_all=True, append_images=frames[1:], duration=50)
    (view,) = pictures_of([(path, record)]).shown
    assert decoded(view).size == (40, 10)
    clip = decoded(view, clip=True)
    count = getattr(clip, "n_frames", 1)
    assert count <= pictures.MOST_FRAMES
    seconds = 0.0
    for number in range(count):
        clip.seek(number)
        clip.load()
        seconds += clip.info["duration"] / 1000
    assert seconds == pytest.approx(5.0, rel=0.05)


def test_what_is_no_picture_of_the_run_is_a_problem_and_not_the_end(tmp_path: Path) -> None:
    path, record = a_run(tmp_path, "../../../secret.png", "text.png")
    Image.new("RGB", (9, 9)).save(tmp_path.parent / "secret.png")
    Image.new("RGB", (9, 9)).save(tmp_path / "secret.png")
    (path.parent / "text.png").write_text("no picture")
    found = pictures_of([(path, record)])
    assert not found.shown
    assert len(found.problems) == 2
    assert "outside the run's folder" in found.problems[0]


def test_there_is_a_limit_for_all_pictures_together(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path, record = a_run(tmp_path)
    folder = path.parent / "pictures"
    folder.mkdir()
    for name in ("a-attention.png", "b-attention.png", "notes.txt"):
        Image.effect_noise((300, 300), 90).save(folder / name, format="PNG")
    monkeypatch.setattr(pictures, "MOST_BYTES", 60_000)
    found = pictures_of([(path, record)])
    assert [view.caption for view in found.shown] == ["a-attention: added to the run"]
    assert "1" in found.left_out
