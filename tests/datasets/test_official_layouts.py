"""Datasets in the layouts of their authors, made here in miniature: file names, lists and archives as released."""

from __future__ import annotations

import hashlib
import os
import pickle
from pathlib import Path
from shutil import make_archive
from typing import Any

import numpy as np
import pytest
import torch
import torchvision
from PIL import Image
from scipy.io import savemat

from ssl_bench.datasets.checking import require_readable
from ssl_bench.datasets.cifar import CIFAR10, CIFAR100, CIFARConfig
from ssl_bench.datasets.image_folder import ImageFolder
from ssl_bench.datasets.imagenet import ImageNet
from ssl_bench.datasets.tiny_imagenet import TinyImageNet
from ssl_bench.errors import UserError

WNIDS = ("n01443537", "n01629819", "n02129165")


def write(path: Path, value: int) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.new("RGB", (64, 64), (value, value, value)).save(path)


@pytest.fixture
def tiny(tmp_path: Path) -> Path:
    """Three classes of two training images; four to validate on, of classes 2, 0, 2, 1."""
    root = tmp_path / "tiny-imagenet-200"
    for wnid in WNIDS:
        for index in range(2):
            write(root / f"train/{wnid}/images/{wnid}_{index}.JPEG", 0)
        (root / f"train/{wnid}/{wnid}_boxes.txt").write_text(f"{wnid}_0.JPEG\t0\t10\t63\t58\n")
    lines = []
    for index, label in enumerate((2, 0, 2, 1)):
        write(root / f"val/images/val_{index}.JPEG", 50 * index)
        lines.append(f"val_{index}.JPEG\t{WNIDS[label]}\t0\t32\t44\t62\n")
    (root / "val/val_annotations.txt").write_text("".join(lines))
    write(root / "test/images/test_0.JPEG", 0)
    return root


def test_tiny_imagenet(tiny: Path) -> None:
    dataset = TinyImageNet(TinyImageNet.Config(), tiny)
    assert dataset.classes == WNIDS
    assert (list(dataset.train.labels), list(dataset.test.labels)) == ([0, 0, 1, 1, 2, 2], [2, 0, 2, 1])
    assert [dataset.test.image(index).getpixel((0, 0))[0] for index in range(4)] == [0, 50, 100, 150]
    assert (dataset.image_px, dataset.name) == (64, "tiny-imagenet-200")  # the folder's: this is not all of it
    assert str(require_readable(dataset)) == "all 10 images open"


def test_tiny_imagenet_fingerprint_covers_the_answers(tiny: Path) -> None:
    before = TinyImageNet(TinyImageNet.Config(), tiny).fingerprint
    answers = tiny / "val/val_annotations.txt"
    answers.write_text(answers.read_text().replace(WNIDS[2], WNIDS[1], 1))
    assert TinyImageNet(TinyImageNet.Config(), tiny).fingerprint != before


def test_tiny_imagenet_is_told_from_an_image_folder(tiny: Path) -> None:
    assert TinyImageNet.recognizes(tiny)
    assert not ImageNet.recognizes(tiny)
    os.rename(tiny / "val/images", tiny / "val" / WNIDS[0])
    assert not TinyImageNet.recognizes(tiny)
    with pytest.raises(UserError, match=r"tiny-imagenet-200/ is not one\. Expected Tiny-ImageNet: FOLDER/train/WNID"):
        TinyImageNet(TinyImageNet.Config(), tiny)


def test_tiny_imagenet_with_files_missing_or_unknown(tiny: Path) -> None:
    os.rename(tiny / "val/images/val_1.JPEG", tiny / "val/images/val_9.JPEG")
    with pytest.raises(
        UserError, match=r"val/images/ lacks 1 of the 4 images that .*annotations\.txt lists, val_1\.JPEG"
    ):
        TinyImageNet(TinyImageNet.Config(), tiny)
    write(tiny / "val/images/val_1.JPEG", 0)
    with pytest.raises(UserError, match=r"val_9\.JPEG is not listed in "):
        TinyImageNet(TinyImageNet.Config(), tiny)
    (tiny / "val/images/val_9.JPEG").unlink()
    os.rename(tiny / "train" / WNIDS[2], tiny / "train/n02129166")
    with pytest.raises(
        UserError, match=r"val_0\.JPEG is of class n02129165, which has no folder in train/ \(1 classes"
    ):
        TinyImageNet(TinyImageNet.Config(), tiny)
    (tiny / "val/val_annotations.txt").write_text("val_0.JPEG n02129165\n")
    with pytest.raises(
        UserError, match=r"line 1 of .*val_annotations\.txt is 'val_0\.JPEG n02129165', not FILE<tab>WNID"
    ):
        TinyImageNet(TinyImageNet.Config(), tiny)


TRUTH = (3, 1, 3, 2)
"""Class numbers of the devkit, counted from 1 and in another order than the WNIDs."""
NUMBERED = {1: WNIDS[1], 2: WNIDS[0], 3: WNIDS[2]}
EXPECTED = [2, 1, 2, 0]


def imagenet_images(folder: Path) -> None:
    for wnid in WNIDS:
        for index in range(2):
            write(folder / f"train/{wnid}/{wnid}_{index}.JPEG", 0)
    for number in range(1, 5):
        write(folder / f"val/ILSVRC2012_val_{number:08d}.JPEG", 10 * number)


@pytest.fixture
def imagenet(tmp_path: Path) -> Path:
    """ImageNet with the development kit; meta.mat also holds a parent class, as the real one."""
    root = tmp_path / "ilsvrc2012"
    imagenet_images(root)
    data = root / "ILSVRC2012_devkit_t12/data"
    data.mkdir(parents=True)
    (data / "ILSVRC2012_validation_ground_truth.txt").write_text("".join(f"{number}\n" for number in TRUTH))
    fields = [
        ("ILSVRC2012_ID", object),
        ("WNID", object),
        ("words", object),
        ("gloss", object),
        ("num_children", object),
    ]
    rows = [(float(number), wnid, "words", "gloss", 0.0) for number, wnid in NUMBERED.items()]
    synsets = np.array([*rows, (4.0, "n00000001", "parent", "gloss", 3.0)], dtype=fields).reshape(-1, 1)
    savemat(data / "meta.mat", {"synsets": synsets})
    return root


def test_imagenet_with_the_development_kit(imagenet: Path) -> None:
    assert ImageNet.recognizes(imagenet)
    dataset = ImageNet(ImageNet.Config(), imagenet)
    assert (dataset.classes, list(dataset.test.labels)) == (WNIDS, EXPECTED)
    assert [dataset.test.image(index).getpixel((0, 0))[0] for index in range(4)] == [10, 20, 30, 40]
    assert dataset.name == "ilsvrc2012"
    assert ImageNet(ImageNet.Config(train_fraction=0.5), imagenet).name == "ilsvrc2012-50pct"


def test_devkit_is_read_as_torchvision_reads_it(imagenet: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    from torchvision.datasets import imagenet as theirs

    make_archive(str(imagenet / "ILSVRC2012_devkit_t12"), "gztar", imagenet, "ILSVRC2012_devkit_t12")
    monkeypatch.setattr(theirs, "_verify_archive", lambda *_: None)  # the sum is that of the official archive
    theirs.parse_devkit_archive(imagenet)
    wnids = torch.load(imagenet / theirs.META_FILE, weights_only=True)[1]
    dataset = ImageNet(ImageNet.Config(), imagenet)
    assert wnids == [dataset.classes[label] for label in dataset.test.labels]


def test_imagenet_from_kaggle(tmp_path: Path) -> None:
    root = tmp_path / "kaggle"
    imagenet_images(root / "ILSVRC/Data/CLS-LOC")
    lines = [
        f"ILSVRC2012_val_{n:08d},{NUMBERED[c]} 85 1 499 272 {NUMBERED[c]} 1 2 3 4 \n" for n, c in enumerate(TRUTH, 1)
    ]
    (root / "LOC_val_solution.csv").write_text("ImageId,PredictionString\n" + "".join(reversed(lines)))
    for path in (root, root / "ILSVRC/Data/CLS-LOC"):
        assert ImageNet.recognizes(path)
        assert list(ImageNet(ImageNet.Config(), path).test.labels) == EXPECTED
    (root / "LOC_val_solution.csv").write_text("image,answer\nx,y\n")
    with pytest.raises(UserError, match="has a line without ImageId or PredictionString"):
        ImageNet(ImageNet.Config(), root)


def test_imagenet_sorted_into_folders_is_an_image_folder(imagenet: Path) -> None:
    for index, label in enumerate(EXPECTED, start=1):
        name = f"ILSVRC2012_val_{index:08d}.JPEG"
        (imagenet / "val" / WNIDS[label]).mkdir(exist_ok=True)
        os.rename(imagenet / "val" / name, imagenet / "val" / WNIDS[label] / name)
    assert not ImageNet.recognizes(imagenet)
    assert sorted(ImageFolder(ImageFolder.Config(), imagenet).test.labels) == sorted(EXPECTED)


def test_imagenet_without_answers(imagenet: Path) -> None:
    os.rename(imagenet / "ILSVRC2012_devkit_t12", imagenet / "elsewhere")
    with pytest.raises(
        UserError, match=r"val/ is flat and nothing tells the classes.*Unpack ILSVRC2012_devkit_t12\.tar"
    ):
        ImageNet(ImageNet.Config(), imagenet)
    (imagenet / "ILSVRC2012_devkit_t12.tar.gz").write_bytes(b"")
    with pytest.raises(UserError, match=r"Unpack .*ilsvrc2012/ILSVRC2012_devkit_t12\.tar\.gz in "):
        ImageNet(ImageNet.Config(), imagenet)


def test_imagenet_with_a_damaged_devkit(imagenet: Path) -> None:
    data = imagenet / "ILSVRC2012_devkit_t12/data"
    (data / "ILSVRC2012_validation_ground_truth.txt").write_text("3\n4\n3\n2\n")  # 4 is the parent
    with pytest.raises(UserError, match=r"line 2 of .*ground_truth\.txt is '4', not in .*meta\.mat"):
        ImageNet(ImageNet.Config(), imagenet)
    (data / "meta.mat").write_bytes(b"rubbish")
    with pytest.raises(UserError, match=r"meta\.mat cannot be read"):
        ImageNet(ImageNet.Config(), imagenet)
    (data / "meta.mat").unlink()
    with pytest.raises(UserError, match=r"meta\.mat is missing"):
        ImageNet(ImageNet.Config(), imagenet)


def test_imagenet_with_images_missing(imagenet: Path) -> None:
    (imagenet / "val/ILSVRC2012_val_00000003.JPEG").unlink()
    with pytest.raises(UserError, match=r"lacks 1 of the 4 images .* ILSVRC2012_val_00000003\.JPEG first"):
        ImageNet(ImageNet.Config(), imagenet)


def make_cifar(root: Path, kind: type[CIFAR10]) -> type[CIFAR10]:
    """Write small batches in the official form; returns `kind` expecting their MD5 sums instead of the published ones.

    The published files are not here, so this shows that the form is read and the sums are asked, no more.
    """
    official = kind.source()
    folder = root / kind.folder
    folder.mkdir(parents=True)
    key = "labels" if kind is CIFAR10 else "fine_labels"
    number = 0

    def batch(name: str) -> list[str]:
        nonlocal number
        planes = np.zeros((4, 3, 32, 32), np.uint8)
        planes[:, 0], planes[:, 1, 0] = number, 7  # red everywhere, green in the top row
        (folder / name).write_bytes(pickle.dumps({"data": planes.reshape(4, 3072), key: [0, 1, 1, 2]}))
        number += 1
        return [name, hashlib.md5((folder / name).read_bytes()).hexdigest()]

    trains, tests = ([batch(name) for name, _ in part] for part in (official.train_list, official.test_list))
    meta = dict(official.meta)
    (folder / meta["filename"]).write_bytes(pickle.dumps({meta["key"]: ["auk", "bee", "cat"]}))
    meta["md5"] = hashlib.md5((folder / meta["filename"]).read_bytes()).hexdigest()
    small = type("Small", (official,), {"train_list": trains, "test_list": tests, "meta": meta})
    return type("SmallKind", (kind,), {"source": classmethod(lambda cls: small)})


@pytest.mark.parametrize(("kind", "batches", "name"), [(CIFAR10, 5, "cifar10"), (CIFAR100, 1, "cifar100")])
def test_cifar(tmp_path: Path, kind: type[CIFAR10], batches: int, name: str) -> None:
    small: Any = make_cifar(tmp_path, kind)
    for path in (tmp_path, tmp_path / kind.folder):
        assert kind.recognizes(path)
        dataset = small(CIFARConfig(), path)
    assert (len(dataset.train), len(dataset.test), dataset.image_px, dataset.name) == (4 * batches, 4, 32, name)
    assert list(dataset.train.labels) == [0, 1, 1, 2] * batches
    assert dataset.classes == ("auk", "bee", "cat")
    last = dataset.train.image(4 * batches - 1)
    assert (last.mode, last.size) == ("RGB", (32, 32))
    assert (last.getpixel((5, 0)), last.getpixel((0, 5))) == ((batches - 1, 7, 0), (batches - 1, 0, 0))
    assert dataset.test.image(0).getpixel((9, 9)) == (batches, 0, 0)
    with pytest.raises(IndexError):
        dataset.test.image(-1)
    assert pickle.loads(pickle.dumps(dataset.train)).image(0).tobytes() == dataset.train.image(0).tobytes()


def test_cifar_fraction(tmp_path: Path) -> None:
    small: Any = make_cifar(tmp_path, CIFAR10)
    whole, part = small(CIFARConfig(), tmp_path), small(CIFARConfig(train_fraction=0.4), tmp_path)
    assert np.bincount(np.asarray(part.train.labels)).tolist() == [2, 4, 2]
    assert (len(part.test), part.name) == (4, "cifar10-40pct")
    assert whole.fingerprint != part.fingerprint
    assert part.fingerprint != small(CIFARConfig(train_fraction=0.4, subset_seed=1), tmp_path).fingerprint


def test_cifar_files_that_are_not_the_published_ones_are_not_opened(tmp_path: Path) -> None:
    make_cifar(tmp_path, CIFAR10)
    proof = tmp_path / "ran"

    class Evil:
        """Would write a file when it is unpickled."""

        def __reduce__(self) -> tuple[Any, ...]:
            return (open, (str(proof), "w"))

    (tmp_path / CIFAR10.folder / "data_batch_1").write_bytes(pickle.dumps(Evil()))
    with pytest.raises(
        UserError, match=r"data_batch_1 is not the published file \(its MD5 sum differs\), so it is not"
    ):
        CIFAR10(CIFARConfig(), tmp_path)
    assert not proof.exists()


def test_cifar_missing(tmp_path: Path) -> None:
    assert not CIFAR10.recognizes(tmp_path)
    with pytest.raises(
        UserError, match=r"cifar100 needs its unpacked folder \(--data PATH\); .* has no cifar-100-python/"
    ):
        CIFAR100(CIFARConfig(), tmp_path)
    with pytest.raises(
        UserError, match=r"cifar10 needs its unpacked folder \(--data PATH\)\. Expected CIFAR-10, unpacked"
    ):
        CIFAR10(CIFARConfig(), None)
    small: Any = make_cifar(tmp_path, CIFAR10)
    (tmp_path / CIFAR10.folder / "data_batch_4").unlink()
    with pytest.raises(UserError, match=r"data_batch_4 is missing\. Unpack cifar-10-python\.tar\.gz again"):
        small(CIFARConfig(), tmp_path)


def test_the_published_sums_are_torchvisions() -> None:
    assert CIFAR10.source() is torchvision.datasets.CIFAR10
    assert CIFAR100.source() is torchvision.datasets.CIFAR100
    assert CIFAR10.folder == torchvision.datasets.CIFAR10.base_folder
    assert CIFAR100.folder == torchvision.datasets.CIFAR100.base_folder
