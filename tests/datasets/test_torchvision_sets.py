"""torchvision's layouts, made here in miniature and read through torchvision's own classes."""

from __future__ import annotations

import csv
import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torchvision
from PIL import Image
from scipy.io import savemat

from ssl_bench import registry, testing
from ssl_bench.datasets.opening import open_dataset
from ssl_bench.datasets.torchvision_arrays import STL10
from ssl_bench.datasets.torchvision_files import TorchvisionFiles
from ssl_bench.errors import UserError
from ssl_bench.recipes.resolve import dataset_loaders
from tests.conftest import Command


@pytest.fixture(autouse=True)
def _no_sums(monkeypatch: pytest.MonkeyPatch) -> None:
    """Miniatures have other MD5 sums than the published files, as in torchvision's own tests."""
    for module in ("flowers102", "svhn"):
        monkeypatch.setattr(f"torchvision.datasets.{module}.check_integrity", lambda *_: True)


def draw(path: Path, value: int, size: tuple[int, int] = (40, 30)) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.new("RGB", size, (value, value, value)).save(path, quality=95)


def write(path: Path, *lines: str) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text("\n".join(lines) + "\n")


def flowers102(root: Path) -> None:
    folder = root / "flowers-102"
    for number in range(1, 9):
        draw(folder / f"jpg/image_{number:05}.jpg", 10 * number)
    savemat(folder / "imagelabels.mat", {"labels": np.array([1, 2, 1, 2, 1, 2, 1, 2])})
    savemat(folder / "setid.mat", {"trnid": [1, 2], "valid": [4, 3], "tstid": [5, 6, 7, 8]})


def food101(root: Path) -> None:
    for split, numbers in (("train", (1, 2)), ("test", (3,))):
        meta = {name: [f"{name}/{n}" for n in numbers] for name in ("sushi", "pho")}
        write(root / f"food-101/meta/{split}.json", json.dumps(meta))
        for label, name in enumerate(sorted(meta)):
            for n in numbers:
                draw(root / f"food-101/images/{name}/{n}.jpg", 100 * label + 10 * n)


def pets(root: Path) -> None:
    for split, numbers in (("trainval", (1, 2)), ("test", (3,))):
        names = [(f"{breed}_{n}", label) for n in numbers for label, breed in ((1, "Abyssinian"), (2, "basset_hound"))]
        write(root / f"oxford-iiit-pet/annotations/{split}.txt", *(f"{name} {label} 1 1" for name, label in names))
        for name, label in names:
            draw(root / f"oxford-iiit-pet/images/{name}.jpg", 100 * (label - 1) + 10 * int(name[-1]))


def dtd(root: Path) -> None:
    for number, split in enumerate(("train", "val", "test"), start=1):
        write(root / f"dtd/dtd/labels/{split}1.txt", *(f"{name}/{name}_{number}.jpg" for name in ("dotted", "banded")))
        for label, name in enumerate(("banded", "dotted")):
            draw(root / f"dtd/dtd/images/{name}/{name}_{number}.jpg", 100 * label + 10 * number)


def aircraft(root: Path) -> None:
    data = root / "fgvc-aircraft-2013b/data"
    write(data / "variants.txt", "707-320", "A340 200")
    for split, numbers in (("trainval", (1, 2)), ("test", (3,))):
        lines = [f"0{label}{n} {name}" for n in numbers for label, name in enumerate(("707-320", "A340 200"))]
        write(data / f"images_variant_{split}.txt", *lines)
        for line in lines:
            draw(data / f"images/{line[:3]}.jpg", 100 * int(line[1]) + 10 * int(line[2]))


def stanford_cars(root: Path) -> None:
    folder = root / "stanford_cars"
    (folder / "devkit").mkdir(parents=True)
    savemat(folder / "devkit/cars_meta.mat", {"class_names": np.array(["Audi", "BMW"], object)})
    kind = [("fname", object), ("class", np.uint8)]
    for split, numbers, target in (("train", (1, 2), "devkit/cars_train_annos.mat"),
                                   ("test", (3,), "cars_test_annos_withlabels.mat")):  # fmt: skip
        rows = [(f"{label}{n}.jpg", label + 1) for n in numbers for label in (0, 1)]
        savemat(folder / target, {"annotations": np.array(rows, kind)})
        for name, _ in rows:
            draw(folder / f"cars_{split}/{name}", 100 * int(name[0]) + 10 * int(name[1]))


def country211(root: Path) -> None:
    for number, split in enumerate(("train", "valid", "test"), start=1):
        for label, name in enumerate(("AD", "ZW")):
            draw(root / f"country211/{split}/{name}/{number}.jpg", 100 * label + 10 * number)


def gtsrb(root: Path) -> None:
    for label in range(2):
        draw(root / f"gtsrb/GTSRB/Training/{label:05}/0_0.ppm", 100 * label + 10)
        draw(root / f"gtsrb/GTSRB/Final_Test/Images/{label:05}.ppm", 100 * label + 30)
    with open(root / "gtsrb/GT-final_test.csv", "w", newline="") as file:
        writer = csv.writer(file, delimiter=";")
        writer.writerows([("Filename", "ClassId"), ("00000.ppm", 0), ("00001.ppm", 1)])


def eurosat(root: Path) -> None:
    for label, name in enumerate(("Forest", "River")):
        for n in range(5):
            draw(root / f"eurosat/2750/{name}/{name}_{n}.jpg", 100 * label + 10 * n, (64, 64))


def svhn(root: Path) -> None:
    root.mkdir(parents=True, exist_ok=True)
    for split, count in (("train", 6), ("test", 2)):
        labels = np.arange(count) % 2 * 9 + 1  # 1 and 10: ten stands for zero
        pixels = (np.where(labels == 10, 0, 100) + 10 * np.arange(count) + (split == "test")).astype(np.uint8)
        images = np.broadcast_to(pixels, (32, 32, 3, count))
        savemat(root / f"{split}_32x32.mat", {"X": images, "y": labels[:, None]})


def stl10(root: Path) -> None:
    folder = root / "stl10_binary"
    folder.mkdir(parents=True)
    for shade, (part, count) in enumerate((("train", 4), ("test", 2), ("unlabeled", 7))):
        labels = np.arange(count) % 2
        images = np.zeros((count, 3, 96, 96), np.uint8)  # as stored: columns before rows
        images[:] = (100 * labels + 10 * np.arange(count) + shade).astype(np.uint8)[:, None, None, None]
        images[:, 0, 95, :] = 7  # red of the rightmost column
        images.tofile(folder / f"{part}_X.bin")
        if part != "unlabeled":
            (labels + 1).astype(np.uint8).tofile(folder / f"{part}_y.bin")
    write(folder / "class_names.txt", "airplane", "bird", *"cdefghij")


MADE: dict[str, tuple[Callable[[Path], None], str, tuple[int, int]]] = {
    "flowers102": (flowers102, "flowers-102", (4, 4)),
    "food101": (food101, "food-101", (4, 2)),
    "pets": (pets, "oxford-iiit-pet", (4, 2)),
    "dtd": (dtd, "dtd", (4, 2)),
    "fgvc-aircraft": (aircraft, "fgvc-aircraft-2013b", (4, 2)),
    "stanford-cars": (stanford_cars, "stanford_cars", (4, 2)),
    "country211": (country211, "country211", (4, 2)),
    "gtsrb": (gtsrb, "gtsrb", (2, 2)),
    "eurosat": (eurosat, "eurosat", (8, 2)),
    "svhn": (svhn, "", (6, 2)),
    "stl10": (stl10, "stl10_binary", (4, 2)),
}
KINDS = sorted(MADE)


@pytest.mark.parametrize("name", KINDS)
def test_read_as_torchvision_reads_it(tmp_path: Path, name: str) -> None:
    make, folder, counts = MADE[name]
    make(tmp_path / "data")
    data = open_dataset(f"{name}:{tmp_path}/data", dataset_loaders())
    assert data.test is not None
    assert (len(data.train), len(data.test), data.labeled, data.name) == (*counts, True, name)
    for split in (data.train, data.test):
        assert list(split.labels or []) == sorted(split.labels or [])
        for index, label in enumerate(split.labels or []):
            brightness = split.image(index).getpixel((5, 5))[1]
            if name == "flowers102":
                assert round(brightness / 10) % 2 == 1 - label, "the label of the image with this number"
            elif name == "svhn":
                assert (brightness >= 100) == label
            else:
                assert round(brightness / 10) // 10 == label
    found = open_dataset(str(tmp_path / "data"), dataset_loaders())
    assert (found.name, found.fingerprint) == (name, data.fingerprint), "recognized by what lies in the folder"
    if folder:
        assert open_dataset(f"{name}:{tmp_path}/data/{folder}", dataset_loaders()).fingerprint == data.fingerprint


@pytest.mark.parametrize("name", KINDS)
def test_the_contract(tmp_path: Path, name: str) -> None:
    MADE[name][0](tmp_path / "data")
    results = testing.run_checks("dataset", registry.dataset(name), path=tmp_path / "data")
    assert not [result for result in results if result.outcome == "failed"]


@pytest.mark.parametrize("name", KINDS)
def test_nothing_is_downloaded_unasked(tmp_path: Path, name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    def no_network(*_: Any, **__: Any) -> None:
        raise OSError("no network in tests")

    for module in ("flowers102", "food101", "oxford_iiit_pet", "dtd", "fgvc_aircraft", "country211", "gtsrb", "eurosat",
                   "stl10"):  # fmt: skip
        monkeypatch.setattr(f"torchvision.datasets.{module}.download_and_extract_archive", no_network)
    monkeypatch.setattr("torchvision.datasets.svhn.download_url", no_network)
    monkeypatch.setattr("torchvision.datasets.svhn.check_integrity", lambda *_: False)
    kind = registry.dataset(name)
    with pytest.raises(UserError) as caught:
        open_dataset(f"{name}:{tmp_path}/data", dataset_loaders())
    words = str(caught.value)
    assert kind.layout in words
    assert "--download" in words
    with pytest.raises(UserError, match=rf"{name} cannot be downloaded to .*data/ \(.*\)\. Fetch it yourself"):
        open_dataset(f"{name}:{tmp_path}/data", dataset_loaders(), {"download": True})
    assert not list(tmp_path.rglob("*.*"))


def test_the_flag(tmp_path: Path, sslbench: Command, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("torchvision.datasets.eurosat.download_and_extract_archive", lambda *_, **__: eurosat(tmp_path))
    words = ("run", "random", "--arch", "resnet18", "--batch-size", "4", "--dry-run", "--with", "knn")
    words += ("--set", "evaluators.knn.neighbors=[1]", "--set", "evaluators.knn.reported=1")
    words += ("--data", f"eurosat:{tmp_path}")
    status, recipe, _ = sslbench(*words, "--download")
    assert (status, "download" in recipe) == (0, False), "a recipe never downloads by itself"
    status, _, errors = sslbench("run", "random", "--arch", "resnet18", "--data", "shapes", "--download", "--dry-run")
    assert (status, "'data.download' is not a setting of" in errors) == (2, True)


def test_stl10(tmp_path: Path) -> None:
    stl10(tmp_path)
    data = STL10(STL10.Config(), tmp_path)
    assert (len(data.pretraining), data.pretraining.labels, data.image_px) == (7, None, 96)
    assert data.classes[:2] == ("airplane", "bird")
    theirs = torchvision.datasets.STL10
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(theirs, "_check_integrity", lambda self: True)
        source = theirs(tmp_path, split="unlabeled")
    for index in range(7):
        assert np.array_equal(np.asarray(data.pretraining.image(index)), np.asarray(source[index][0]))
    fewer = STL10(STL10.Config(train_fraction=0.5), tmp_path)
    assert (len(fewer.train), len(fewer.pretraining)) == (2, 7)
    (tmp_path / "stl10_binary/unlabeled_X.bin").write_bytes(b"x" * 5000)
    with pytest.raises(UserError, match=r"unlabeled_X\.bin is cut off: 5,000 bytes are not a whole number of images"):
        STL10(STL10.Config(), tmp_path)
    (tmp_path / "stl10_binary/unlabeled_X.bin").unlink()
    with pytest.raises(UserError, match=r"unlabeled_X\.bin is missing\. Expected STL-10"):
        STL10(STL10.Config(), tmp_path)


def test_images_that_the_lists_name_and_are_not_there(tmp_path: Path) -> None:
    pets(tmp_path)
    (tmp_path / "oxford-iiit-pet/images/Abyssinian_2.jpg").unlink()
    with pytest.raises(UserError, match=r"1 of the 4 images .* missing, .*Abyssinian_2\.jpg first\. Unpack"):
        open_dataset(f"pets:{tmp_path}", dataset_loaders())


def test_eurosat_holds_out_a_fifth(tmp_path: Path) -> None:
    eurosat(tmp_path)
    kind = registry.dataset("eurosat")
    data = kind(kind.Config(), tmp_path)
    assert np.bincount(data.test.labels if data.test and data.test.labels else []).tolist() == [1, 1]
    assert "20 % of each class" in data.notes[0]


def test_the_sources_are_torchvisions() -> None:
    for kind in TorchvisionFiles.__subclasses__():
        assert hasattr(torchvision.datasets, kind.source)
