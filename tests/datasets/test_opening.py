"""What users write behind --data, right and wrong."""

from __future__ import annotations

import os
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from ssl_bench.dataset import Dataset
from ssl_bench.datasets.cifar import CIFAR10
from ssl_bench.datasets.image_folder import ImageFolder
from ssl_bench.datasets.imagenet import ImageNet
from ssl_bench.datasets.images import UnlabeledImages
from ssl_bench.datasets.npz import Npz
from ssl_bench.datasets.opening import find_dataset, open_dataset
from ssl_bench.datasets.tiny_imagenet import TinyImageNet
from ssl_bench.errors import UserError
from ssl_bench.settings import Settings


class Made(Dataset):
    """A set that needs no folder, as shapes."""

    class Config(Settings):
        """Nothing to set."""

    def __init__(self, config: Any, path: Path | None) -> None:
        self.name, self.path = "made", path

    @property
    def fingerprint(self) -> str:
        return "0"


def broken() -> type[Dataset]:
    raise UserError("the dataset 'broken' of third-party 1.0 cannot be loaded")


KNOWN: dict[str, Callable[[], type[Dataset]]] = {
    "shapes": lambda: Made,
    "image-folder": lambda: ImageFolder,
    "images": lambda: UnlabeledImages,
    "cifar10": lambda: CIFAR10,
    "npz": lambda: Npz,
    "imagenet": lambda: ImageNet,
    "tiny-imagenet": lambda: TinyImageNet,
    "broken": broken,
}


@pytest.fixture
def here(tmp_path: Path, tmp_path_factory: pytest.TempPathFactory, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The current folder, with an image folder birds/ in it; home is elsewhere, with a link to it."""
    monkeypatch.chdir(tmp_path)
    home = tmp_path_factory.mktemp("home")
    monkeypatch.setenv("HOME", str(home))
    os.symlink(tmp_path / "birds", home / "birds")
    for name in ("train/owl/a", "train/crow/b", "val/owl/c", "val/crow/d"):
        (tmp_path / f"birds/{name}.png").parent.mkdir(parents=True)
        Image.new("L", (8, 8)).save(tmp_path / f"birds/{name}.png")
    return tmp_path


def refused(text: str) -> str:
    with pytest.raises(UserError) as caught:
        open_dataset(text, KNOWN)
    return str(caught.value)


def test_a_name(here: Path) -> None:
    assert open_dataset("shapes", KNOWN).name == "made"


@pytest.mark.parametrize("text", ["birds", "birds/", "./birds", "image-folder:birds", "../{}/birds", "~/birds"])
def test_a_folder(here: Path, text: str) -> None:
    dataset = open_dataset(text.format(here.name), KNOWN)
    assert (dataset.name, len(dataset.train), len(dataset.test)) == ("birds", 2, 2)


def test_settings_reach_the_data_set(here: Path) -> None:
    assert open_dataset("birds", KNOWN, {"image_px": 40}).image_px == 40
    with pytest.raises(UserError, match=r"'data\.imge_px' is not a setting of the dataset image-folder\. Did you mean"):
        open_dataset("birds", KNOWN, {"imge_px": 40})
    with pytest.raises(UserError, match=r"'data\.train_fraction' = 2: .*less than or equal to 1"):
        open_dataset("birds", KNOWN, {"train_fraction": 2})


def test_a_name_wins_over_a_folder(here: Path) -> None:
    shutil.copytree("birds", "shapes")
    shutil.copytree("birds", "cifar10")
    assert open_dataset("shapes", KNOWN).name == "made"
    assert open_dataset("./shapes", KNOWN).name == "shapes"
    assert "The folder ./cifar10 is written with its ./" in refused("cifar10")


def test_a_name_that_needs_a_folder(here: Path) -> None:
    words = refused("cifar10")
    assert "cifar10 is read from your disk and needs its folder: --data PATH or --data cifar10:PATH" in words
    assert "cifar-10-batches-py" in words


def test_a_word_that_is_neither(here: Path) -> None:
    words = refused("shaps")
    assert words.startswith("no dataset is called 'shaps'. Did you mean 'shapes'? Known: broken, cifar10,")
    assert "or a folder or file; there is none of that name here" in words


def test_a_path_that_is_missing(here: Path) -> None:
    assert refused("./brids") == f"brids does not exist: {here}/ has no 'brids'. Did you mean 'birds'?"
    assert "birds/trian does not exist: birds/ has no 'trian'. Did you mean 'train'?" in refused("birds/trian/owl")
    assert "~/nothing does not exist: ~/ has no 'nothing'." in refused("~/nothing/at/all")
    assert "does not exist" in refused("cifar10:/nowhere/at/all")
    assert "does not exist" in refused("~nobody-of-this-name/data")
    assert "does not exist" in refused("./" + "x" * 300)
    assert "does not exist" in refused("./nul\0l")


def test_not_a_folder(here: Path) -> None:
    Path("birds.zip").write_bytes(b"PK")
    assert refused("birds.zip").startswith("birds.zip is a file, not a folder. Unpack it and give the folder.\n")
    assert "Give the folder that the dataset lies in" in refused("birds/train/owl/a.png")
    os.symlink("gone", "link")
    assert refused("./link") == "link is a link to gone, which is not there. Fix the link."
    os.symlink("loop", "loop")
    assert "loop is a link to loop" in refused("./loop")
    assert "nothing is downloaded here" in refused("https://example.org/birds")
    assert "no dataset was given" in refused(" ")


def test_only_train(here: Path) -> None:
    shutil.rmtree("birds/val")
    opened = open_dataset("birds", KNOWN)
    assert (len(opened.train), opened.train.labels, opened.test, opened.classes) == (2, None, None, ())
    assert opened.notes == ("read without labels: there is train/ but no val/ or test/ beside it",)
    os.rename("birds/train", "birds/val")
    assert "there is val/ but no train/ beside it" in open_dataset("birds", KNOWN).notes[0]


@pytest.mark.parametrize("train", ["train", "Train", "training"])
@pytest.mark.parametrize("val", ["valid", "Val", "validation", "testing"])
def test_parts_with_other_names(here: Path, train: str, val: str) -> None:
    os.rename("birds/train", f"birds/{train}")
    os.rename("birds/val", f"birds/{val}")
    words = refused("birds")
    assert f"birds/ has {train}/ and {val}/. Rename " in words
    assert f"{val}/ to val/" in words
    assert (f"{train}/ to train/" in words) == (train != "train")
    assert "To train on its images without labels: images:birds" in words
    assert len(open_dataset("images:birds", KNOWN).train) == 4


def test_the_wrong_level(here: Path) -> None:
    assert "the folder around train/ is the one that has them" in open_dataset("birds/train", KNOWN).notes[0]
    os.rename("birds", "inner")
    os.mkdir("birds")
    os.rename("inner", "birds/birds")
    assert "Did you mean birds/birds?" in refused("birds")


def test_classes_without_parts(here: Path) -> None:
    os.rename("birds/train", "classes")
    (words,) = open_dataset("classes", KNOWN).notes
    assert "read without labels: its 2 folders (crow, owl) are not taken for classes" in words
    assert "move a tenth of each class to val/CLASS/" in words


def test_other_folders(here: Path) -> None:
    os.mkdir("empty")
    assert refused("empty").startswith("empty/ is empty. Expected an image folder: empty/{train,val}/CLASS/IMAGE")
    os.makedirs("VOCdevkit/VOC2012/JPEGImages")
    shutil.copy("birds/train/owl/a.png", "VOCdevkit/VOC2012/JPEGImages")
    assert "VOCdevkit/ looks like VOC or DAVIS, sets to evaluate masks on: give it with --voc" in refused("VOCdevkit")
    assert "VOC2012/ looks like VOC" in refused("VOCdevkit/VOC2012")
    os.mkdir("hidden")
    os.mkdir("hidden/.git")
    assert "hidden/ (with hidden files only) has no known layout" in refused("hidden")
    os.makedirs("other/sources")
    words = refused("other")
    assert "Not asked: the dataset 'broken' of third-party 1.0 cannot be loaded" in words
    assert "other/ (with sources) has no known layout" in words
    assert "tiny-imagenet: Tiny-ImageNet: FOLDER/train/WNID" in words


def test_files(here: Path) -> None:
    Path("birds.h5").write_bytes(b"x")
    words = refused("birds.h5")
    assert "birds.h5 is a file of a kind that is not read. Give a folder of images, or\n  npz: FILE.npz: train" in words
    pixels = np.zeros((8, 5, 5), np.uint8) + np.arange(8, dtype=np.uint8)[:, None, None]
    os.mkdir("held")
    np.savez("held/birds.npz", images=pixels)
    for text in ("held/birds.npz", "npz:held/birds.npz", "./held/../held/birds.npz"):
        assert (open_dataset(text, KNOWN).name, len(open_dataset(text, KNOWN).train)) == ("birds", 8)
    assert "Did you mean the file held/birds.npz?" in refused("held")
    assert "does not exist: held/ has no 'brids.npz'. Did you mean 'birds.npz'?" in refused("held/brids.npz")
    assert "shards-{0..3}.tar does not exist" in refused("./shards-{0..3}.tar")


def test_a_dataset_among_images_without_labels(here: Path) -> None:
    """Images that lie beside a dataset are read with all others, which is said; alone in it they are not."""
    os.makedirs("photos/2024")
    os.rename("birds", "photos/birds")
    assert "Did you mean photos/birds?" in refused("photos")
    shutil.copy("photos/birds/val/owl/c.png", "photos/2024/beside.png")
    data = open_dataset("photos", KNOWN)
    assert (data.name, data.train.labels, len(data.train)) == ("photos", None, 5)
    assert data.notes[0] == "read without labels; birds/ in it is a dataset of its own: --data photos/birds"
    np.savez("photos/a packed.npz", images=np.zeros((8, 5, 5), np.uint8))
    shutil.move("photos/birds", "birds")
    note = open_dataset("photos", KNOWN).notes[0]
    assert note == "read without labels; a packed.npz in it is a dataset of its own: --data 'photos/a packed.npz'"
    assert not any("of its own" in note for note in open_dataset("images:photos", KNOWN).notes)
    os.makedirs("photos/voc/JPEGImages")
    shutil.copy("birds/val/owl/c.png", "photos/voc/JPEGImages/c.png")
    assert len(open_dataset("photos", KNOWN).train) == 2
    os.remove("photos/2024/beside.png")
    assert "photos/ looks like VOC or DAVIS" in refused("photos")


def test_two_that_fit(here: Path) -> None:
    class Greedy(Made):
        """Takes every folder."""

        @classmethod
        def recognizes(cls, path: Path) -> bool:
            return True

    known = {**KNOWN, "greedy": lambda: Greedy}
    assert find_dataset("birds", known).plugin == "greedy"  # more special than image-folder
    with pytest.raises(UserError, match=r"fits the layouts of greedy and other\. Say which: greedy:birds"):
        find_dataset("birds", {**known, "other": lambda: Greedy})
    assert find_dataset("image-folder:birds", known).kind is ImageFolder


def test_a_third_party_recognizes_that_raises(here: Path) -> None:
    class Stumbles(Made):
        """Raises for every folder."""

        @classmethod
        def recognizes(cls, path: Path) -> bool:
            raise KeyError("x")

    assert find_dataset("birds", {**KNOWN, "stumbles": lambda: Stumbles}).plugin == "image-folder"


def test_the_earlier_name_of_recognizes(here: Path) -> None:
    class Earlier(Made):
        """Written before `recognizes` had its name."""

        @classmethod
        def recognises(cls, path: Path) -> bool:
            return path.name == "birds"

    assert find_dataset("birds", {**KNOWN, "earlier": lambda: Earlier}).plugin == "earlier"
    assert not Earlier.recognizes(here)
