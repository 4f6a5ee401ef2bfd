"""CSV files that list images, right and wrong."""

from __future__ import annotations

import shutil
from pathlib import Path
from typing import Any

import pytest
from PIL import Image

from ssl_bench.datasets.csv_table import CsvTable
from ssl_bench.errors import UserError


@pytest.fixture
def root(tmp_path: Path) -> Path:
    """20 images, images/00.png to images/19.png, whose red is their number."""
    (tmp_path / "set/images").mkdir(parents=True)
    for value in range(20):
        Image.new("RGB", (32, 32), (value, 0, 0)).save(tmp_path / f"set/images/{value:02}.png")
    return tmp_path / "set"


def opened(root: Path, *lines: str, name: str = "birds.csv", **settings: Any) -> CsvTable:
    (root / name).write_text("\n".join(lines) + "\n", encoding="utf-8")
    return CsvTable(CsvTable.Config(**settings), root / name)


def reds(split: Any) -> list[int]:
    return [split.image(index).getpixel((0, 0))[0] for index in range(len(split))]


def test_paths_labels_and_splits(root: Path) -> None:
    lines = [
        f"images/{i:02}.png,{'owl' if i % 2 else 'crow'},{'Train' if i < 8 else 'valid'}" for i in range(11, -1, -1)
    ]
    data = opened(root, "filename,class,split", *lines)
    assert data.test is not None
    assert (data.name, data.classes, data.image_px, data.notes) == ("birds", ("crow", "owl"), 32, ())
    assert (reds(data.train), list(data.train.labels or [])) == ([0, 2, 4, 6, 1, 3, 5, 7], [0] * 4 + [1] * 4)
    assert (reds(data.test), list(data.test.labels or [])) == ([8, 10, 9, 11], [0, 0, 1, 1])


def test_without_splits_a_tenth_of_each_class_is_held_out(root: Path) -> None:
    lines = [f"images/{i:02}.png,{i % 2}" for i in range(20)]
    data = opened(root, "path,label", *lines)
    assert data.test is not None
    assert (len(data.train), sorted(data.test.labels or [])) == (18, [0, 1])
    assert sorted(reds(data.train) + reds(data.test)) == list(range(20))
    assert "2 of 20 images (10 % of each class) are held out" in data.notes[0]
    again = opened(root, "path,label", *reversed(lines))
    assert reds(again.test) == reds(data.test), "whatever the order of the lines"
    assert again.fingerprint == data.fingerprint


def test_without_labels(root: Path) -> None:
    data = opened(root, "image", "images/03.png", "images/01.png")
    assert (reds(data.train), data.train.labels, data.test, data.classes) == ([1, 3], None, None, ())
    empty = opened(root, "image,label", "images/03.png,", "images/01.png,")
    assert empty.train.labels is None


@pytest.mark.parametrize("delimiter", [",", ";", "\t"])
@pytest.mark.parametrize("mark", ["", "\ufeff"], ids=["plain", "from Excel"])
def test_spellings(root: Path, delimiter: str, mark: str) -> None:
    lines = [
        delimiter.join(line) for line in (("Path", "Label"), ("images/00.png", '"a, b"'), ("./images/01.png", "c"))
    ]
    data = opened(root, mark + lines[0], *lines[1:], held_out=0)
    assert (data.classes, reds(data.train)) == (("a, b", "c"), [0, 1])
    absolute = opened(root, "path,label", f"{root}/images/00.png,a", "images\\01.png,b", held_out=0)
    assert reds(absolute.train) == [0, 1]


def test_numbers_are_numbers(root: Path) -> None:
    data = opened(root, "path,label", *(f"images/{i:02}.png,{i}" for i in range(12)), held_out=0)
    assert data.classes == tuple(map(str, range(12)))


def test_the_folder_may_move(root: Path, tmp_path: Path) -> None:
    data = opened(root, "path", "images/00.png", "images/01.png")
    shutil.copytree(root, tmp_path / "moved")
    moved = CsvTable(CsvTable.Config(), tmp_path / "moved/birds.csv")
    assert moved.fingerprint == data.fingerprint
    Image.new("RGB", (32, 32)).save(tmp_path / "moved/images/01.png")
    assert CsvTable(CsvTable.Config(), tmp_path / "moved/birds.csv").fingerprint != data.fingerprint


@pytest.mark.parametrize(
    ("lines", "words"),
    [
        (["path", *(f"images/{i}.png" for i in range(5)), "images/00.png"],
         r"5 of the 6 files that .*birds\.csv lists are missing: 'images/0\.png', .* and 2 more\. Paths are relative"),
        (["path", "../secret.png", "/etc/passwd", "images/00.png"],
         r"2 of the 3 paths in .*birds\.csv lead out of its folder .*: '\.\./secret\.png', '/etc/passwd'\. Paths are"),
        (["path", "images/../../set2/x.png"], r"1 of the 1 paths .* lead out"),
        (["pth,label", "images/00.png,1"], r"no column of paths: its first line is pth, label\. Did you mean 'path'\?"),
        (["images/00.png,owl", "images/01.png,crow"], r"its first line is images/00\.png, owl\..*Expected names"),
        (["path,label", "images/00.png,owl", "images/01.png,"], r"1 of 2 images have no label in the column label"),
        (["path,label,split", "images/00.png,owl,train", "images/01.png,crow,tset"], r"column split has 'tset'"),
        (["path,label", "images/00.png,owl", "images/00.png,crow"], r"lists images/00\.png on lines 2 and 3 with"),
        (["path,label,split", "images/00.png,a,test", "images/01.png,b,val"], r"has test and val but nothing to"),
        (["path,label,split", "images/00.png,a,train", "images/01.png,b,train", "images/02.png,c,val"],
         r"val has the class c, which the training images do not have"),
        (["path"], r"lists no images"),
        (["path,label", "images/00.png,a,b,c", "images/01.png,b"], r"more values than its first line has names"),
        (["path", "images"], r"1 of the 1 files .* are missing: 'images'"),
    ],
    ids=["missing", "outside", "outside by a detour", "other names", "no header", "part labels", "other split",
         "two labels", "no train", "unknown class", "empty", "ragged", "a folder"],
)  # fmt: skip
def test_refused(root: Path, lines: list[str], words: str) -> None:
    with pytest.raises(UserError, match=words):
        opened(root, *lines)


def test_not_text(root: Path) -> None:
    (root / "a.csv").write_bytes(b"path\nimages/\xff.png\n")
    with pytest.raises(UserError, match=r"a\.csv is not UTF-8 text"):
        CsvTable(CsvTable.Config(), root / "a.csv")
    (root / "a.csv").write_bytes(b"")
    with pytest.raises(UserError, match=r"a\.csv is not a table of columns"):
        CsvTable(CsvTable.Config(), root / "a.csv")


def test_repeated_lines_count_once(root: Path) -> None:
    data = opened(root, "path", "images/00.png", "images/01.png", "./images/00.png")
    assert (len(data.train), data.notes) == (2, ("1 lines repeat another line and count once",))
