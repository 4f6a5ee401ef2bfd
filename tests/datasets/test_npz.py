"""Arrays as MedMNIST ships them, right and wrong."""

from __future__ import annotations

import os
import pickle
import shutil
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray

from ssl_bench.datasets.npz import Npz
from ssl_bench.errors import UserError


def pictures(count: int, *shape: int, seed: int = 0) -> NDArray[np.uint8]:
    return np.random.default_rng(seed).integers(0, 256, (count, *shape), np.uint8)


def medmnist(**changes: Any) -> dict[str, Any]:
    """As pathmnist.npz: 6, 3 and 4 images of 28 px in 3 classes, labels (n, 1)."""
    arrays: dict[str, Any] = {}
    for seed, (part, count) in enumerate((("train", 6), ("val", 3), ("test", 4))):
        arrays[f"{part}_images"] = pictures(count, 28, 28, 3, seed=seed)
        arrays[f"{part}_labels"] = ((2 - np.arange(count) % 3)[:, None]).astype(np.uint8)
    return {name: array for name, array in (arrays | changes).items() if array is not None}


def opened(path: Path, arrays: dict[str, Any], **settings: Any) -> Npz:
    np.savez_compressed(path, **arrays)
    return Npz(Npz.Config(**settings), path)


def test_medmnist(tmp_path: Path) -> None:
    arrays = medmnist()
    data = opened(tmp_path / "pathmnist.npz", arrays)
    assert (data.name, data.classes, data.image_px, data.labeled) == ("pathmnist", ("0", "1", "2"), 32, True)
    assert data.test is not None
    assert (list(data.train.labels or []), list(data.test.labels or [])) == ([0, 0, 1, 1, 2, 2], [0, 1, 2, 2])
    in_order = [2, 5, 1, 4, 0, 3]  # by class, then as stored
    for index, row in enumerate(in_order):
        assert (np.asarray(data.train.image(index)) == arrays["train_images"][row]).all()
    assert (np.asarray(data.test.image(0)) == arrays["test_images"][2]).all()
    assert data.notes == ("evaluation tests on test (4 images); val is not used (--set data.test_split=val takes it)",)
    assert len(Npz(Npz.Config(test_split="val"), data.path).test or []) == 3
    with pytest.raises(IndexError):
        data.train.image(6)


@pytest.mark.parametrize("shape", [(9, 7), (9, 7, 1), (9, 7, 3)])
@pytest.mark.parametrize("save", [np.savez, np.savez_compressed])
@pytest.mark.parametrize("order", ["C", "F"])
def test_gray_and_color(tmp_path: Path, shape: tuple[int, ...], save: Any, order: Any) -> None:
    pixels = pictures(5, *shape)
    save(tmp_path / "a.npz", images=np.array(pixels, order=order))
    data = Npz(Npz.Config(), tmp_path / "a.npz")
    assert (data.train.labels, data.test, data.classes, data.labeled) == (None, None, (), False)
    assert data.train.size(0) == (7, 9)
    read = np.asarray(data.train.image(3))
    assert read.shape == (9, 7, 3)
    assert (read == (pixels[3] if shape[-1] == 3 else pixels[3].reshape(9, 7)[..., None])).all()


def test_workers_get_a_path_not_the_pixels(tmp_path: Path) -> None:
    data = opened(tmp_path / "a.npz", {"arr_0": pictures(100, 32, 32, 3)})
    packed = pickle.dumps(data.train)
    assert len(packed) < 5_000
    assert pickle.loads(packed).image(99).tobytes() == data.train.image(99).tobytes()


def test_the_fingerprint_is_of_the_content(tmp_path: Path) -> None:
    data = opened(tmp_path / "a.npz", medmnist())
    os.mkdir(tmp_path / "elsewhere")
    shutil.copy(tmp_path / "a.npz", tmp_path / "elsewhere/b.npz")
    assert Npz(Npz.Config(), tmp_path / "elsewhere/b.npz").fingerprint == data.fingerprint
    assert Npz(Npz.Config(test_split="val"), tmp_path / "a.npz").fingerprint != data.fingerprint
    assert opened(tmp_path / "c.npz", medmnist(train_images=pictures(6, 28, 28))).fingerprint != data.fingerprint


def test_labels_without_splits_hold_out_a_tenth_of_each_class(tmp_path: Path) -> None:
    arrays = {"images": pictures(60, 8, 8), "labels": np.arange(60) % 3}
    data = opened(tmp_path / "a.npz", arrays)
    assert data.test is not None
    assert np.bincount(data.train.labels or []).tolist() == [18, 18, 18]
    assert np.bincount(data.test.labels or []).tolist() == [2, 2, 2]
    pixels = {split.image(index).tobytes() for split in (data.train, data.test) for index in range(len(split))}
    assert len(pixels) == 60, "disjoint, and none is lost"
    assert "6 of 60 images (10 % of each class) are held out to test on; --set data.held_out=0" in data.notes[0]
    whole = opened(tmp_path / "a.npz", arrays, held_out=0)
    assert (len(whole.train), whole.test, whole.labeled) == (60, None, False)
    assert "--eval-data" in whole.notes[0]
    part = opened(tmp_path / "a.npz", arrays, train_fraction=0.5)
    assert (len(part.train), len(part.test or []), part.name) == (27, 6, "a-50pct")
    assert {part.train.image(i).tobytes() for i in range(27)} < {data.train.image(i).tobytes() for i in range(54)}


def test_multi_label_sets_are_read_as_unlabeled(tmp_path: Path) -> None:
    data = opened(tmp_path / "chestmnist.npz", medmnist(train_labels=np.zeros((6, 14), np.uint8)))
    assert (data.classes, data.train.labels, data.test) == ((), None, None)
    assert "train_labels has 14 values per image" in data.notes[0]


@pytest.mark.parametrize(
    ("arrays", "words"),
    [
        ({"x": pictures(3, 8, 8), "y": np.arange(3)}, r"holds x \(3, 8, 8\) uint8, y .*Expected train_images"),
        (medmnist(train_images=None), r"holds train_labels .*Did you mean 'train_labels'"),
        ({"images": pictures(3, 8, 8, 8)}, r"images has the shape \(3, 8, 8, 8\).*volumes and videos are not read"),
        ({"images": pictures(3, 3, 8, 8)}, r"channels last, images\.transpose\(0, 2, 3, 1\)"),
        ({"images": np.zeros((3, 8, 8), np.float32)}, r"kind float32.*save them as uint8"),
        ({"images": np.array([None, "x"], object)}, r"images has the shape \(2,\) and the kind object"),
        ({"images": pictures(3, 8, 8), "labels": np.arange(4)}, r"labels has the shape \(4,\) for 3 images"),
        ({"images": pictures(3, 8, 8), "labels": np.array([0.5, 1, 2])}, r"labels has the kind float64"),
        ({"images": pictures(3, 8, 8), "labels": np.array([1, 2, None], object)}, r"labels cannot be read"),
        ({"images": pictures(0, 8, 8)}, r"holds no images"),
        (medmnist(test_labels=np.array([0, 1, 2, 7])), r"test has the class 7, which the training images do not have"),
    ],
    ids=["names", "no train", "volumes", "channels first", "floats", "objects", "count", "fractions", "pickles",
         "none", "unknown class"],
)  # fmt: skip
def test_refused(tmp_path: Path, arrays: dict[str, Any], words: str) -> None:
    with pytest.raises(UserError, match=words):
        opened(tmp_path / "a.npz", arrays)


def test_cut_off(tmp_path: Path) -> None:
    opened(tmp_path / "a.npz", medmnist())
    whole = (tmp_path / "a.npz").read_bytes()
    (tmp_path / "a.npz").write_bytes(whole[: len(whole) // 2])
    with pytest.raises(UserError, match=r"a\.npz is not an \.npz file, or is cut off"):
        Npz(Npz.Config(), tmp_path / "a.npz")
    damaged = bytearray(whole)
    damaged[5000:5100] = bytes(100)
    (tmp_path / "a.npz").write_bytes(damaged)
    with pytest.raises(UserError, match=r"a\.npz: train_images is damaged .*Copy or download the file again"):
        Npz(Npz.Config(), tmp_path / "a.npz")


def test_a_cache_that_cannot_be_written(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "file").write_text("")
    monkeypatch.setenv("SSLBENCH_CACHE", str(tmp_path / "file"))
    with pytest.raises(UserError, match=r"cannot keep an unpacked copy .*SSLBENCH_CACHE=FOLDER"):
        opened(tmp_path / "a.npz", medmnist())
