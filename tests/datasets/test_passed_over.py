"""What lies among a user's images: used, passed over and said, or refused; never left out in silence."""

from __future__ import annotations

import os
from pathlib import Path

import pytest
from PIL import Image

from ssl_bench.datasets.image_folder import ImageFolder
from ssl_bench.datasets.listing import LEFT_BEHIND, PassedOver, list_images
from ssl_bench.datasets.reading import EXTENSIONS, FORMATS, holds_an_image
from ssl_bench.datasets.tiny_imagenet import TinyImageNet
from ssl_bench.errors import UserError
from tests.toy import write_image_folder


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    return write_image_folder(tmp_path / "D", train=20, test=4, px=8)


def opened(folder: Path) -> ImageFolder:
    return ImageFolder(ImageFolder.Config(), folder)


def test_every_ending_that_pillow_reads_is_known() -> None:
    known = {ending for ending, kind in Image.registered_extensions().items() if kind in FORMATS}
    assert known == set(EXTENSIONS)


def test_images_under_rare_endings_or_none_are_used(folder: Path) -> None:
    before = len(opened(folder).train)
    for name in "ab":
        for index in range(10):
            ending = ".jpe" if index < 5 else ""
            os.rename(folder / "train" / name / f"{index}.png", folder / "train" / name / f"{index}{ending}")
    os.rename(folder / "train/a/10.png", folder / "train/a/n02084071.17")
    os.rename(folder / "train/a/11.png", folder / "train/a/UPPER.PNG")
    data = opened(folder)
    assert len(data.train) == before == 40
    assert data.notes == ()
    assert all(data.train.image(index).size == (8, 8) for index in range(40))


@pytest.mark.parametrize("junk", ["@eaDir", ".ipynb_checkpoints", "__MACOSX", ".thumbnails", "#recycle", "lost+found"])
def test_folders_that_are_left_behind_are_no_classes(folder: Path, junk: str) -> None:
    for place in (junk, f"a/{junk}"):
        (folder / "train" / place).mkdir()
        Image.new("RGB", (8, 8)).save(folder / "train" / place / "x.png")
    data = opened(folder)
    assert data.classes == ("a", "b")
    assert len(data.train) == 40
    assert data.notes == (f"train/: passed over 2 folders ({junk})",)


def test_other_files_are_counted_with_an_example(folder: Path) -> None:
    for name in ("a/photo.JPG.part", "a/clip.mp4", "b/notes.txt", "b/README", "b/._0.png", "Thumbs.db", "b/empty"):
        (folder / "train" / name).write_bytes(b"BM" if name == "b/README" else b"")
    (folder / "val" / "loose.png").write_bytes((folder / "val/a/0.png").read_bytes())
    data = opened(folder)
    assert len(data.train) == 40
    first, second = data.notes
    assert first.startswith("train/: passed over 7 files (2 without ending, 1 .")
    assert "e.g. " in first
    assert second == "val/: passed over 1 file (1 .png, e.g. loose.png)"


def test_classes_without_test_images_are_named(folder: Path) -> None:
    (folder / "train/c").mkdir()
    os.rename(folder / "train/a/0.png", folder / "train/c/0.png")
    assert opened(folder).notes == ("val/ has no images of 1 classes (c first)",)


def test_what_is_passed_over_does_not_change_the_fingerprint(folder: Path) -> None:
    before = opened(folder).fingerprint
    (folder / "train/a/@eaDir").mkdir()
    (folder / "train/a/x.txt").write_text("x")
    assert opened(folder).fingerprint == before


def test_content_changes_the_fingerprint_where_names_and_sizes_stay(folder: Path) -> None:
    before, file = opened(folder).fingerprint, folder / "val/b/3.png"
    content = bytearray(file.read_bytes())
    content[-20] ^= 1
    file.write_bytes(content)
    assert opened(folder).fingerprint != before
    content[-20] ^= 1
    file.write_bytes(content)
    assert opened(folder).fingerprint == before


def test_a_large_set_is_fingerprinted_by_a_sample(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    from ssl_bench.datasets import content

    paths = [tmp_path / str(index) for index in range(100)]
    for path in paths:
        path.write_bytes(b"x" * 10)
    monkeypatch.setattr(content, "ALL_FILES", 99)
    monkeypatch.setattr(content, "SAMPLE", 10)
    before = content.content_digest(paths, 1000)
    paths[11].write_bytes(b"y" * 10)
    assert content.content_digest(paths, 1000) == before, "names and sizes of all are the caller's"
    paths[20].write_bytes(b"y" * 10)
    assert content.content_digest(paths, 1000) != before


def test_a_file_without_ending_that_must_not_be_read_is_not_left_out(folder: Path) -> None:
    closed = folder / "train/a/secret"
    os.rename(folder / "train/a/0.png", closed)
    closed.chmod(0)
    if os.access(closed, os.R_OK):
        pytest.skip("root reads everything")
    assert holds_an_image(closed)
    with pytest.raises(UserError, match=r"secret: no permission"):
        opened(folder).train.image(19)


def test_a_pipe_is_not_waited_for(folder: Path) -> None:
    os.mkfifo(folder / "train/a/pipe")
    passed = PassedOver()
    assert len(list_images(folder / "train/a", passed)) == 20
    assert passed.note(folder / "train") == "train/: passed over 1 file (1 without ending, e.g. pipe)"


def test_a_flat_test_folder_reports_as_well(tmp_path: Path) -> None:
    write_image_folder(tmp_path, train=2, test=1, px=8)
    images = tmp_path / "val/images"
    images.mkdir()
    for name in "ab":
        os.rename(tmp_path / "val" / name / "0.png", images / f"{name}.png")
        os.rmdir(tmp_path / "val" / name)
    (tmp_path / "val/val_annotations.txt").write_text("a.png\ta\nb.png\tb\n")
    (images / "Thumbs.db").write_bytes(b"x")
    data = TinyImageNet(TinyImageNet.Config(), tmp_path)
    assert len(data.test) == 2
    assert data.notes == ("images/: passed over 1 file (1 .db, e.g. Thumbs.db)",)


def test_names_of_junk_are_written_in_lower_case() -> None:
    assert all(name == name.lower() for name in LEFT_BEHIND)
