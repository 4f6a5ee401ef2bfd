"""`--data` and `--eval-data` of a study: how the user's images are read, and which rows they do not allow."""

from __future__ import annotations

import shutil
from pathlib import Path

import pytest

from ssl_bench.errors import UserError
from ssl_bench.studies.cells import Cells, Wish
from ssl_bench.studies.plan import Place
from ssl_bench.studies.study import load_study, planned
from tests.studies.tiny import TABLE, write_table
from tests.toy import write_image_folder

SMALL = 'with = ["knn"]\nimage_px_at_most = 16\nimages_at_most = 20'
SUPERVISED = '\n[[runs.variant]]\nname = "labels"\nmethod = "supervised"\narch = "deit_ti16"\n'


@pytest.fixture(scope="module")
def photos(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """40 training and 8 test images of 24 px in two classes."""
    return write_image_folder(tmp_path_factory.mktemp("data") / "photos", train=20, test=4, px=24)


@pytest.fixture(scope="module")
def unlabeled(photos: Path) -> Path:
    flat = photos.parent / "flat"
    flat.mkdir()
    for index, image in enumerate(sorted((photos / "train").rglob("*.png"))):
        shutil.copy(image, flat / f"{index}.png")
    return flat


def cells(folder: Path, table: str, **wish: object) -> Cells:
    given = {"seeds": 1, "values": {"backbone.patch_px": 8}} | wish
    return planned(load_study(str(write_table(folder, table))), Wish(**given))  # type: ignore[arg-type]


def test_images_of_the_user_are_seen_at_the_size_and_in_the_share_of_the_laptop(tmp_path: Path, photos: Path) -> None:
    found = cells(tmp_path, TABLE.replace('with = ["knn"]', SMALL), data=str(photos))
    for run in found.runs:
        data = run.recipe.data
        assert (data.name, data.image_px, data.settings["train_fraction"]) == ("photos-50pct", 16, 0.5)
        assert (data.train_images, data.test_images) == (20, 8)
    assert len(found.notes) == 2
    asked = {"backbone.patch_px": 8, "data.image_px": 32, "data.train_fraction": 1.0}
    whole = cells(tmp_path, TABLE.replace('with = ["knn"]', SMALL), data=str(photos), values=asked)
    assert {(run.recipe.data.image_px, run.recipe.data.train_images) for run in whole.runs} == {(32, 40)}
    assert whole.notes == ()


def test_without_a_limit_images_are_read_as_they_would_be_alone(tmp_path: Path, photos: Path) -> None:
    found = cells(tmp_path, TABLE, data=str(photos))
    assert {(run.recipe.data.image_px, run.recipe.data.train_images) for run in found.runs} == {(32, 40)}
    assert found.notes == ()


def test_unlabeled_images_train_what_needs_no_labels(tmp_path: Path, photos: Path, unlabeled: Path) -> None:
    table = TABLE.replace('with = ["knn"]', SMALL) + SUPERVISED
    found = cells(tmp_path, table, data=str(unlabeled), eval_data=(str(photos),))
    assert [run.places[0].row for run in found.runs] == ["untrained", "contrast"]
    assert "has none" in found.left_out[Place("tiny", "labels")]
    (eval_data,) = found.runs[0].recipe.eval_data
    assert (eval_data.name, eval_data.train_images) == ("photos-50pct", 20)
    with pytest.raises(UserError, match=r"measures by knn, which needs labels, and flat has none.*--eval-data"):
        cells(tmp_path, table, data=str(unlabeled))


def test_a_row_that_needs_more_images_is_left_out_and_the_others_are_done(tmp_path: Path, photos: Path) -> None:
    large = TABLE + '\n[[runs.variant]]\nname = "large"\nmethod = "byol"\narch = "deit_ti16"\n'
    large += 'set = { "training.batch_size" = 64 }\n'
    found = cells(tmp_path, large, data=str(photos))
    assert [run.places[0].row for run in found.runs] == ["untrained", "contrast"]
    assert "training.batch_size = 64" in found.left_out[Place("tiny", "large")]
    only = TABLE.replace('method = "random"', 'method = "supervised"')
    with pytest.raises(UserError, match=r"allow none of the rows.*training.batch_size = 100"):
        cells(tmp_path, only, data=str(photos), values={"training.batch_size": 100})


def test_a_mistake_in_a_row_is_one_also_on_the_users_data(tmp_path: Path, photos: Path) -> None:
    with pytest.raises(UserError, match=r"row 'untrained': .*backbone.deepth"):
        cells(tmp_path, TABLE.replace("backbone.depth", "backbone.deepth"), data=str(photos))


def test_few_images_are_trained_on_often_and_evaluated_seldom(tmp_path: Path, photos: Path) -> None:
    table = TABLE.replace('"training.epochs" = 2', '"training.epochs" = 100, "training.eval_every" = 1')
    table = table.replace('"training.epochs" = 0 }', '"training.epochs" = 0, "training.eval_every" = "none" }')
    every = {run.places[0].row: run.recipe.training.eval_every for run in cells(tmp_path, table, data=str(photos)).runs}
    assert every == {"untrained": None, "contrast": 9}
    (own, _) = cells(tmp_path, table).runs[::-1]
    assert own.recipe.training.eval_every == 1


def test_what_trains_nothing_needs_no_whole_batch(tmp_path: Path, photos: Path) -> None:
    found = cells(tmp_path, TABLE, data=str(photos), values={"training.batch_size": 100, "backbone.patch_px": 8})
    assert [run.places[0].row for run in found.runs] == ["untrained"]
