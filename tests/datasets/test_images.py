"""Images without labels: which are found, in which order, and what is said of a folder that looks labeled."""

from __future__ import annotations

import os
import shutil
from pathlib import Path

import pytest
from PIL import Image

from ssl_bench.datasets.checking import check_datasets, require_readable
from ssl_bench.datasets.image_folder import ImageFolder
from ssl_bench.datasets.images import UnlabeledImages
from ssl_bench.errors import UserError
from ssl_bench.testing import run_checks
from tests.toy import write_image_folder

NAMES = ("b.png", "a.JPG", "deep/er/c.webp", "deep/d.png", "no_ending", "x/e.png")


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    for index, name in enumerate(NAMES):
        path = tmp_path / "photos" / name
        path.parent.mkdir(parents=True, exist_ok=True)
        kind = "PNG" if path.suffix in (".png", "") else {".JPG": "JPEG", ".webp": "WEBP"}[path.suffix]
        Image.new("RGB", (20 + index, 24), (40 * index, 0, 0)).save(path, kind)
    return tmp_path / "photos"


def opened(path: Path, **settings: object) -> UnlabeledImages:
    return UnlabeledImages(UnlabeledImages.Config(**settings), path)


def names(data: UnlabeledImages) -> list[str]:
    assert data.path is not None
    return [data.train.path(index).relative_to(data.path).as_posix() for index in range(len(data.train))]


def test_every_image_in_the_order_of_names(folder: Path) -> None:
    data = opened(folder)
    assert names(data) == sorted(NAMES)
    assert [data.train.image(index).size[0] for index in range(6)] == [20 + NAMES.index(name) for name in names(data)]
    assert (data.train.labels, data.test, data.classes, data.labeled, data.name) == (None, None, (), False, "photos")
    assert data.pretraining is data.train
    assert (data.image_px, data.notes) == (16, ())  # the median shorter side is 22.5 px


def test_other_and_hidden_files_are_passed_over_and_counted(folder: Path) -> None:
    (folder / "notes.txt").write_text("x")
    (folder / "deep/.hidden.png").write_bytes(b"x")
    shutil.copytree(folder / "x", folder / "@eaDir")
    data = opened(folder)
    assert names(data) == sorted(NAMES)
    assert data.notes == ("photos/: passed over 2 files (1 hidden, 1 .txt, e.g. notes.txt), 1 folder (@eaDir)",)


def test_the_fingerprint_follows_names_and_content_but_not_the_place(folder: Path, tmp_path: Path) -> None:
    before = opened(folder).fingerprint
    moved = tmp_path / "elsewhere" / "other name"
    shutil.copytree(folder, moved)
    assert opened(moved).fingerprint == before
    os.rename(moved / "b.png", moved / "b2.png")
    assert opened(moved).fingerprint != before
    os.rename(moved / "b2.png", moved / "b.png")
    content = (moved / "b.png").read_bytes()
    (moved / "b.png").write_bytes(content[:-1] + bytes([content[-1] ^ 1]))
    assert opened(moved).fingerprint != before


def test_a_share_of_the_images(folder: Path) -> None:
    half, most = opened(folder, train_fraction=0.5), opened(folder, train_fraction=0.8)
    assert len(half.train) == 3
    assert set(names(half)) < set(names(most)) < set(NAMES)
    assert half.name == "photos-50pct"
    assert half.fingerprint != most.fingerprint


def test_a_labeled_folder_says_how_it_was_read(tmp_path: Path) -> None:
    birds = write_image_folder(tmp_path / "birds", train=2, test=1)
    assert opened(birds).notes == ("read without labels: the images of train/ and val/ are one set",)
    assert len(opened(birds).train) == 6
    same = ImageFolder(ImageFolder.Config(), birds)
    part = opened(birds / "train")
    assert part.name == "birds-train"
    assert part.notes == ("read without labels; the folder around train/ is the one that has them",)
    assert [part.train.path(i) for i in range(4)] == [same.train.path(i) for i in range(4)]  # the same order of images


def test_a_file_that_is_no_image_is_named(folder: Path) -> None:
    (folder / "deep/broken.png").write_bytes(b"not a picture")
    assert check_datasets(opened(folder)).images == 7
    with pytest.raises(UserError, match=r"1 of 7 images cannot be read:\n.*deep/broken\.png"):
        require_readable(opened(folder))
    (folder / "deep/empty.png").touch()
    with pytest.raises(UserError, match=r"an image file is empty: .*deep/empty\.png \(0 bytes\)"):
        opened(folder)


def test_folders_without_images_are_refused(tmp_path: Path) -> None:
    (tmp_path / "a").mkdir()
    with pytest.raises(UserError, match="a/ holds no image; it is empty"):
        opened(tmp_path / "a")
    (tmp_path / "a/notes.txt").touch()
    with pytest.raises(UserError, match=r"holds no image; a/: passed over 1 file \(1 \.txt"):
        opened(tmp_path / "a")
    with pytest.raises(UserError, match=r"--data images:PATH; .*notes\.txt is not a folder"):
        opened(tmp_path / "a/notes.txt")


def test_recognized_are_folders_with_an_image_anywhere(folder: Path, tmp_path: Path) -> None:
    assert UnlabeledImages.recognizes(folder)
    (tmp_path / "only/.hidden").mkdir(parents=True)
    shutil.copy(folder / "b.png", tmp_path / "only/.hidden")
    os.symlink(tmp_path / "only", tmp_path / "only/loop")
    assert not UnlabeledImages.recognizes(tmp_path / "only")
    assert not UnlabeledImages.recognizes(folder / "b.png")


def test_the_contract_holds(folder: Path) -> None:
    outcomes = {one.name: one.outcome for one in run_checks("dataset", UnlabeledImages, path=folder)}
    assert {name for name, outcome in outcomes.items() if outcome != "ok"} == {"train and test share no image"}
