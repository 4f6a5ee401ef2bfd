"""Tables of encoded images as pyarrow and Hugging Face's `datasets` write them, right and wrong."""

from __future__ import annotations

import io
import json
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from PIL import Image

from ssl_bench.datasets.checking import require_readable
from ssl_bench.datasets.parquet import Parquet
from ssl_bench.errors import UserError


def png(value: int, px: int = 20) -> bytes:
    stream = io.BytesIO()
    Image.new("RGB", (px, px), (value, 0, 0)).save(stream, "PNG")
    return stream.getvalue()


def write(path: Path, values: list[int], labels: Any = None, **columns: Any) -> Path:
    """A table as `datasets` stores it: struct<bytes, path>, class names in the schema's metadata."""
    path.parent.mkdir(parents=True, exist_ok=True)
    given: dict[str, Any] = {"image": [{"bytes": png(value), "path": f"{value:03}.png"} for value in values]}
    if labels is not None:
        given["label"] = labels
    given |= columns
    table = pa.table({name: column for name, column in given.items() if column is not None})
    pq.write_table(table, path, row_group_size=3)
    return path


def named(path: Path, names: list[str]) -> None:
    """Class names as `datasets` keeps them."""
    features = {"image": {"_type": "Image"}, "label": {"names": names, "_type": "ClassLabel"}}
    table = pq.read_table(path)
    metadata = {"huggingface": json.dumps({"info": {"features": features}})}
    pq.write_table(table.replace_schema_metadata(metadata), path)


def reds(split: Any) -> list[int]:
    return [split.image(index).getpixel((0, 0))[0] for index in range(len(split))]


def test_as_hugging_face_stores_it(tmp_path: Path) -> None:
    root = tmp_path / "birds"
    for part in (0, 1):
        values = list(range(4 * part, 4 * part + 4))
        write(root / f"data/train-0000{part}-of-00002.parquet", values, [1, 0, 1, 0])
    write(root / "data/validation-00000-of-00001.parquet", [50, 51], [1, 0])
    write(root / "data/test-00000-of-00001.parquet", [60, 61], [-1, -1])  # labels that are not published
    for path in (root / "data").iterdir():
        named(path, ["owl", "crow", "jay"])
    assert Parquet.recognizes(root)
    data = Parquet(Parquet.Config(), root)
    assert data.test is not None
    assert (data.name, data.classes, data.image_px) == ("birds", ("owl", "crow", "jay"), 16)
    assert (list(data.train.labels or []), reds(data.train)) == ([0] * 4 + [1] * 4, [1, 3, 5, 7, 0, 2, 4, 6])
    assert (list(data.test.labels or []), reds(data.test)) == ([0, 1], [51, 50])
    assert data.train.size(0) == (20, 20)
    assert str(require_readable(data)) == "all 10 images open"
    assert data.notes == ("evaluation tests on val (2 images); test is not used: it has no labels",)


def test_one_file(tmp_path: Path) -> None:
    path = write(tmp_path / "birds.parquet", [3, 1, 2])
    data = Parquet(Parquet.Config(), path)
    assert (data.name, data.classes, data.train.labels, data.test) == ("birds", (), None, None)
    assert reds(data.train) == [1, 2, 3], "ordered by their paths"
    moved = path.rename(tmp_path / "bees.parquet")
    assert Parquet(Parquet.Config(), moved).fingerprint == data.fingerprint
    write(path, [3, 1, 4])
    assert Parquet(Parquet.Config(), path).fingerprint != data.fingerprint


def test_bytes_and_text_labels(tmp_path: Path) -> None:
    columns = {"image": None, "jpg": [png(value) for value in range(6)], "url": ["x"] * 6, "blob": [b"x"] * 6}
    path = write(tmp_path / "a.parquet", [], None, **columns, label=["owl", "crow"] * 3)
    data = Parquet(Parquet.Config(held_out=0.34), path)
    assert data.test is not None
    assert (data.classes, list(data.train.labels or [])) == (("crow", "owl"), [0, 0, 1, 1])
    assert sorted(reds(data.train) + reds(data.test)) == list(range(6))
    with pytest.raises(UserError, match=r"no column 'lable'\. Did you mean 'label'\? It has jpg, url, blob, label"):
        Parquet(Parquet.Config(label_column="lable"), path)
    with pytest.raises(UserError, match=r"the column 'url' holds no encoded images\. It has the columns jpg \(binary"):
        Parquet(Parquet.Config(image_column="url"), path)


def test_no_image_column(tmp_path: Path) -> None:
    path = write(tmp_path / "a.parquet", [], [0, 1], image=None, text=["a", "b"])
    with pytest.raises(
        UserError, match=r"no column that is clearly the images'\. It has the columns label \(int64\), t"
    ):
        Parquet(Parquet.Config(), path)
    write(path, [], [0, 1], image=None, left=[png(0)] * 2, right=[png(1)] * 2)
    with pytest.raises(UserError, match=r"Say which: --set data\.image_column=NAME"):
        Parquet(Parquet.Config(), path)
    assert len(Parquet(Parquet.Config(image_column="left", held_out=0), path).train) == 2


def test_rows_without_image_or_label(tmp_path: Path) -> None:
    path = write(tmp_path / "a.parquet", [], image=[{"bytes": png(0), "path": "a"}, {"bytes": None, "path": "b.png"}])
    with pytest.raises(UserError, match=r"row 1 of .*a\.parquet has no image in the column image\. Paths alone"):
        Parquet(Parquet.Config(), path)
    with pytest.raises(UserError, match=r"1 of 3 images have no label in the column label, row 1 first"):
        Parquet(Parquet.Config(), write(path, [0, 1, 2], [0, None, 1]))
    with pytest.raises(UserError, match=r"the column label holds \[0, 1\], which names no class"):
        Parquet(Parquet.Config(), write(path, [0, 1], [[0, 1], [1]]))
    write(path, [0, 1, 2], [0, 1, 2])
    named(path, ["owl", "crow"])
    with pytest.raises(UserError, match=r"labels beyond the 2 class names"):
        Parquet(Parquet.Config(), path)


def test_damaged(tmp_path: Path) -> None:
    path = write(tmp_path / "a.parquet", list(range(9)), image=[png(0, 300)[:-200], *[png(i) for i in range(1, 9)]])
    with pytest.raises(UserError, match=r"cannot read image 0 of .*a\.parquet: it is damaged"):
        require_readable(Parquet(Parquet.Config(), path))
    write(path, [0], image=[b"no image"])
    with pytest.raises(UserError, match=r"cannot read image 0 of .*a\.parquet: it holds no image of a known kind"):
        Parquet(Parquet.Config(), path)
    whole = write(path, list(range(9))).read_bytes()
    path.write_bytes(whole[:-30])
    with pytest.raises(UserError, match=r"a\.parquet is not a Parquet file, or is cut off"):
        Parquet(Parquet.Config(), path)
    path.write_bytes(b"")
    with pytest.raises(UserError, match=r"is not a Parquet file"):
        Parquet(Parquet.Config(), path)


def test_recognized_folders(tmp_path: Path) -> None:
    (tmp_path / "empty").mkdir()
    assert not Parquet.recognizes(tmp_path / "empty")
    write(tmp_path / "split/train/0000.parquet", [0, 1], [0, 1])
    write(tmp_path / "split/test/0000.parquet", [2, 3], [0, 1])
    assert Parquet.recognizes(tmp_path / "split")
    assert len(Parquet(Parquet.Config(), tmp_path / "split").test or []) == 2
    write(tmp_path / "photos/metadata.parquet", [0])
    Image.new("L", (8, 8)).save(tmp_path / "photos/a.png")
    assert not Parquet.recognizes(tmp_path / "photos"), "a folder of images with a table beside them"
    (tmp_path / "folder/train/owl").mkdir(parents=True)
    write(tmp_path / "folder/index.parquet", [0])
    assert not Parquet.recognizes(tmp_path / "folder"), "an image folder with a table beside it"


def test_without_pyarrow(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = write(tmp_path / "a.parquet", [0])
    monkeypatch.setitem(sys.modules, "pyarrow.parquet", None)
    with pytest.raises(UserError, match=r"pip install 'sslbench\[parquet\]'"):
        Parquet(Parquet.Config(), path)


def test_subsets_contain_each_other(tmp_path: Path) -> None:
    path = write(tmp_path / "a.parquet", list(range(40)), [0, 1] * 20)
    found = [set(reds(Parquet(Parquet.Config(train_fraction=f, held_out=0), path).train)) for f in (0.25, 0.5, 1.0)]
    assert found[0] < found[1] < found[2]
    assert np.bincount([value % 2 for value in found[1]]).tolist() == [10, 10]
