"""Shards as webdataset's own writers make them, right and wrong."""

from __future__ import annotations

import io
import json
import os
import pickle
import tarfile
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import webdataset
from PIL import Image

from ssl_bench.datasets import shard_contents
from ssl_bench.datasets.checking import require_readable
from ssl_bench.datasets.opening import open_dataset
from ssl_bench.datasets.webdataset import WebDataset
from ssl_bench.errors import UserError

KNOWN = {"webdataset": lambda: WebDataset}


def png(value: int, px: int = 32) -> bytes:
    stream = io.BytesIO()
    Image.new("RGB", (px, px), (value, 0, 0)).save(stream, "PNG")
    return stream.getvalue()


def write(path: Path, samples: Iterable[Mapping[str, Any]]) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    with webdataset.TarWriter(str(path)) as writer:
        for sample in samples:
            writer.write(sample)
    return path


def sample(value: int, **members: Any) -> dict[str, Any]:
    return {"__key__": f"{value:04}", "png": png(value), **members}


def opened(text: str | Path, **settings: Any) -> WebDataset:
    data = open_dataset(str(text), KNOWN, settings)
    assert isinstance(data, WebDataset)
    return data


def reds(split: Any) -> list[int]:
    return [split.image(index).getpixel((0, 0))[0] for index in range(len(split))]


@pytest.fixture
def root(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Three training shards of four images and one to validate on, of two classes by turns."""
    monkeypatch.chdir(tmp_path)
    for shard in range(3):
        write(tmp_path / f"birds/birds-train-{shard:03}.tar", [sample(4 * shard + i, cls=i % 2) for i in range(4)])
    write(tmp_path / "birds/birds-val-000.tar", [sample(90 + i, cls=i % 2) for i in range(3)])
    return tmp_path / "birds"


def test_a_folder_of_shards(root: Path) -> None:
    data = opened(root)
    assert data.test is not None
    assert (data.name, data.classes, data.image_px) == ("birds", ("0", "1"), 32)
    assert (reds(data.train), list(data.train.labels or [])) == (
        [0, 2, 4, 6, 8, 10, 1, 3, 5, 7, 9, 11],
        [0] * 6 + [1] * 6,
    )
    assert (reds(data.test), data.notes) == ([90, 92, 91], ("labels are those of the .cls files",))
    assert data.train.size(0) == (32, 32)
    assert str(require_readable(data)) == "all 15 images open"


@pytest.mark.parametrize(
    ("pattern", "images"),
    [
        ("birds/birds-train-{000..002}.tar", 12),
        ("webdataset:birds/birds-train-{000..001}.tar", 8),
        ("webdataset:birds/birds-{train,val}-00{0,2}.tar", 8),
        ("birds/birds-train-*.tar", 12),
        ("./birds/birds-train-00[02].tar", 8),
        ("birds/birds-train-001.tar", 4),
        ("webdataset:birds/birds-val-000.tar", 3),
    ],
)
def test_patterns(root: Path, pattern: str, images: int) -> None:
    if "{train,val}" in pattern:
        write(root / "birds-val-002.tar", [sample(80), sample(81)])
        write(root / "birds-val-000.tar", [sample(82)])
        with pytest.raises(UserError, match="shards"):
            opened("webdataset:birds/none-{0..3}.tar")
    data = opened(pattern)
    assert (len(data.train), data.name) == (images, "birds")
    assert data.path is not None
    assert opened(f"webdataset:{data.path}").fingerprint == data.fingerprint, "as a recipe names it"


def test_expansion() -> None:
    assert shard_contents.braces_expanded("a-{08..11}.tar") == [f"a-{n}.tar" for n in ("08", "09", "10", "11")]
    assert shard_contents.braces_expanded("{a,b}-{1..2}") == ["a-1", "a-2", "b-1", "b-2"]
    with pytest.raises(UserError, match="100,000"):
        shard_contents.braces_expanded("{0..999999999}")


def test_shards_that_are_missing(root: Path) -> None:
    with pytest.raises(UserError, match=r"2 of the 5 shards of birds/.* are missing, birds/birds-train-003\.tar first"):
        opened("birds/birds-train-{000..004}.tar")
    with pytest.raises(UserError, match=r"webdataset needs its shards .*; birds/x-\{0\.\.3\}\.tar has none"):
        opened("webdataset:birds/x-{0..3}.tar")
    with pytest.raises(UserError, match=r"does not exist"):
        opened("./birds/x-{0..3}.tar")


def test_labels_of_other_kinds(tmp_path: Path) -> None:
    stored = write(tmp_path / "a.tar", [sample(i, json={"label": ["owl", "crow"][i % 2], "id": i}) for i in range(6)])
    assert opened(stored).classes == ("crow", "owl")
    assert opened(stored, label_key="id").classes == tuple("012345")
    stored = write(tmp_path / "b.tar", [sample(i, txt=["owl", "crow"][i % 2]) for i in range(6)])
    assert opened(stored).classes == ("crow", "owl")
    stored = write(tmp_path / "c.tar", [sample(i, txt=f"a photo of bird {i}", json={"url": "x"}) for i in range(6)])
    assert (opened(stored).classes, opened(stored).train.labels) == ((), None)
    assert "read without labels" in opened(stored).notes[0]
    stored = write(tmp_path / "d.tar", [sample(i, **({"cls": i % 2} if i else {})) for i in range(6)])
    with pytest.raises(UserError, match=r"1 of 6 images have no label in the \.cls files, row 0 first"):
        opened(stored)


def test_labeled_shards_without_splits(tmp_path: Path) -> None:
    stored = write(tmp_path / "birds.tar", [sample(i, cls=i % 2) for i in range(20)])
    assert (len(opened(stored).train), opened(stored).test) == (20, None)
    assert "--eval-data names other data, --set data.held_out=0.1 holds some out" in opened(stored).notes[1]
    assert len(opened(stored, held_out=0.1).test or []) == 2


def test_what_else_a_sample_holds(tmp_path: Path) -> None:
    stored = write(tmp_path / "a.tar", [sample(i, **{"seg.png": png(99), "npy": np.zeros(2)}) for i in range(3)])
    assert (reds(opened(stored).train), len(opened(stored).train)) == ([0, 1, 2], 3)
    assert "passed over" in opened(stored).notes[1]
    with tarfile.open(tmp_path / "b.tar", "w") as tar:  # as `tar cf` orders: all images, then all labels
        for ending in ("png", "cls"):
            for i in range(3):
                content = png(i) if ending == "png" else str(i % 2).encode()
                member = tarfile.TarInfo(f"./dir/{i}.{ending}")
                member.size = len(content)
                tar.addfile(member, io.BytesIO(content))
                apple = tarfile.TarInfo(f"./dir/._{i}.{ending}")
                tar.addfile(apple)
    data = opened(tmp_path / "b.tar")
    assert (reds(data.train), list(data.train.labels or [])) == ([0, 2, 1], [0, 0, 1])


@pytest.mark.parametrize("kept", [0.4, "all but the mark", "at a header", 700])
def test_a_shard_that_is_cut_off(root: Path, kept: Any) -> None:
    path = root / "birds-train-001.tar"
    whole = path.read_bytes()
    with tarfile.open(path) as tar:
        last = tar.getmembers()[-1].offset
    size = {"all but the mark": len(whole.rstrip(b"\0")) // 512 * 512 + 512, "at a header": last}.get(kept)
    path.write_bytes(whole[: size or (kept if kept == 700 else int(len(whole) * kept))])
    with pytest.raises(UserError, match=r"birds-train-001\.tar is cut off"):
        opened(root)


def test_what_is_no_shard(tmp_path: Path) -> None:
    whole = write(tmp_path / "a.tar", [sample(0)]).read_bytes()
    damaged = bytearray(write(tmp_path / "a.tar", [sample(i) for i in range(3)]).read_bytes())
    with tarfile.open(tmp_path / "a.tar") as tar:
        second = tar.getmembers()[1].offset
    damaged[second : second + 100] = b"x" * 100
    (tmp_path / "a.tar").write_bytes(damaged)
    with pytest.raises(UserError, match=r"a\.tar is cut off or damaged after byte"):
        opened(tmp_path / "a.tar")
    (tmp_path / "a.tar").write_bytes(b"no tar at all" * 100)
    with pytest.raises(UserError, match=r"a\.tar is cut off or not a tar file"):
        opened(tmp_path / "a.tar")
    import gzip

    (tmp_path / "a.tar").write_bytes(gzip.compress(whole))
    with pytest.raises(UserError, match=r"a\.tar is compressed, .*: gunzip it first"):
        opened(tmp_path / "a.tar")
    with pytest.raises(UserError, match=r"a\.tar holds no images, only 2 other files \(2 \.npy\)"):
        opened(write(tmp_path / "a.tar", [{"__key__": str(i), "npy": np.zeros(1)} for i in range(2)]))


def test_an_image_that_is_damaged(tmp_path: Path) -> None:
    stored = write(tmp_path / "a.tar", [sample(0), {"__key__": "x", "jpg": b"no image"}, {"__key__": "y", "png": b""}])
    with pytest.raises(UserError, match=r"2 of 3 images cannot be read") as caught:
        require_readable(opened(stored, image_px=32))
    assert "image 1 (x.jpg) of" in str(caught.value)
    assert "a.tar: it holds no image of a known kind" in str(caught.value)
    assert "image 2 (y.png) of" in str(caught.value)
    data = opened(write(tmp_path / "b.tar", [sample(0), sample(1)]))
    os.truncate(tmp_path / "b.tar", 700)
    with pytest.raises(UserError, match=r"cannot read image 1 \(0001\.png\) of .*b\.tar: the file ends before it"):
        data.train.image(1)


def test_a_large_header(tmp_path: Path) -> None:
    """A profile of 100 kB before the size of a JPEG."""
    stream = io.BytesIO()
    Image.new("RGB", (40, 20)).save(stream, "JPEG", icc_profile=os.urandom(100_000))
    stored = write(tmp_path / "a.tar", [{"__key__": "a", "jpg": stream.getvalue()}])
    assert opened(stored).train.size(0) == (40, 20)


def test_what_goes_to_workers_is_small(tmp_path: Path) -> None:
    pixel = png(0, 1)
    stored = write(tmp_path / "a.tar", [{"__key__": f"{i:06}", "png": pixel, "cls": i % 2} for i in range(500)])
    packed = pickle.dumps(opened(stored).train)
    assert len(packed) < 60 * 500
    assert len(pickle.loads(packed)) == 500


def test_the_contents_are_read_once(root: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    first = opened(root)
    monkeypatch.setattr(shard_contents, "_samples", None)
    assert opened(root).fingerprint == first.fingerprint
    monkeypatch.undo()
    write(root / "birds-train-001.tar", [sample(50 + i, cls=i % 2) for i in range(4)])
    assert opened(root).fingerprint != first.fingerprint
    assert 50 in reds(opened(root).train)


def test_json_that_is_none() -> None:
    assert shard_contents._label(json.dumps([1]).encode(), ".json", None) == b""
    assert shard_contents._label(b"{", ".json", None) == b""
    assert shard_contents._label(b"7", ".json", None) == b"7"
