"""ImageNet (ILSVRC 2012) as its two official sources unpack it, with the 50,000 validation images in one flat folder.

- image-net.org: FOLDER/train/WNID/IMAGE, FOLDER/val/ILSVRC2012_val_00000001.JPEG and the answers in the
  development kit, FOLDER/ILSVRC2012_devkit_t12/data/{ILSVRC2012_validation_ground_truth.txt,meta.mat};
- Kaggle: FOLDER/ILSVRC/Data/CLS-LOC/{train,val} and FOLDER/LOC_val_solution.csv.

Classes are WordNet ids, sorted: the usual order 0..999. A copy whose val/ was sorted into class folders is an ordinary
image folder.
"""

from __future__ import annotations

import csv
import os
from collections.abc import Mapping
from pathlib import Path

from ssl_bench.dataset import Dataset
from ssl_bench.datasets.image_files import (
    FilesConfig,
    ImageFiles,
    decide_image_px,
    files_by_answers,
    fingerprint,
    is_complete,
    notes,
    set_name,
    train_files,
)
from ssl_bench.datasets.listing import PassedOver, check_class_names, subfolders
from ssl_bench.datasets.reading import shown
from ssl_bench.errors import UserError

OFFICIAL_COUNTS = (1000, 1_281_167, 50_000)
"""Classes, training images, validation images."""

_DEVKIT = Path("ILSVRC2012_devkit_t12", "data")
_TRUTH = "ILSVRC2012_validation_ground_truth.txt"
_CSV = "LOC_val_solution.csv"
_KAGGLE = Path("ILSVRC", "Data", "CLS-LOC")


class ImageNet(Dataset):
    """ImageNet-1k with a flat val/ and the development kit's or Kaggle's answers, tested on val/."""

    layout = (
        f"ImageNet: FOLDER/train/WNID/IMAGE, FOLDER/val/IMAGE, FOLDER/{_DEVKIT} (or Kaggle's FOLDER/{_KAGGLE} "
        f"and FOLDER/{_CSV})"
    )

    class Config(FilesConfig):
        """Settings of ImageNet."""

    @classmethod
    def recognizes(cls, path: Path) -> bool:
        """Whether there is a train/ and a flat val/ with ImageNet's file names, at Kaggle's place or at the top."""
        return _images_folder(path) is not None

    train: ImageFiles
    test: ImageFiles

    def __init__(self, config: Config, path: Path | None) -> None:
        """List both splits. Raises `UserError` unless val/ holds exactly the images that the answers name."""
        folder = None if path is None else _images_folder(path)
        if path is None or folder is None:
            where = "" if path is None else f"; {shown(path)}/ is not one"
            raise UserError(f"imagenet needs its unpacked folder (--data PATH){where}. Expected {self.layout}")
        self.config, self.path = config, path
        train, test = folder / "train", folder / "val"
        source, answers = _find_answers(folder)
        passed, passed_in_test = PassedOver(), PassedOver()
        self.classes = tuple(subfolders(train, passed))
        check_class_names(self.classes, train)
        self.train = train_files(train, self.classes, config, passed)
        self.test = ImageFiles(
            test, files_by_answers(test, answers, self.classes, source, passed_in_test), config.decode_px
        )
        counts = len(self.classes), len(self.train), len(self.test)
        whole = is_complete(counts, OFFICIAL_COUNTS, config.train_fraction)
        self.name = set_name(path, config.train_fraction, "imagenet" if whole else "")
        self.image_px = decide_image_px(self.train, config)
        self.notes = notes(train, passed, test, passed_in_test)

    @property
    def fingerprint(self) -> str:
        """sha256 over class names and every file's label, name, size and content (`content_digest`: of a large set a
        sample); not over where the folder lies."""
        return fingerprint(self.classes, self.train.digest, self.test.digest)


def _images_folder(path: Path) -> Path | None:
    """The folder of train/ and a flat val/, which is `path` or Kaggle's place below it."""
    for folder in (path, path / _KAGGLE):
        if (folder / "train").is_dir() and (folder / "val").is_dir():
            with os.scandir(folder / "val") as entries:
                if any(entry.name.startswith("ILSVRC2012_val_") and not entry.is_dir() for entry in entries):
                    return folder
    return None


def _find_answers(folder: Path) -> tuple[Path, dict[str, str]]:
    """The file that tells the classes of the validation images, and file name to WNID."""
    for place in (folder, *folder.absolute().parents[:3]):  # Kaggle's list lies three folders above train/ and val/
        devkit = place / _DEVKIT
        if (devkit / _TRUTH).is_file():
            return devkit / _TRUTH, _devkit_answers(devkit)
        if (place / _CSV).is_file():
            return place / _CSV, _kaggle_answers(place / _CSV)
    packed = next((place for place in (folder, folder.parent) if (place / f"{_DEVKIT.parent}.tar.gz").is_file()), None)
    advice = f"Unpack {shown(packed / f'{_DEVKIT.parent}.tar.gz')}" if packed else "Unpack ILSVRC2012_devkit_t12.tar.gz"
    raise UserError(
        f"{shown(folder)}/val/ is flat and nothing tells the classes of its images. {advice} in {shown(folder)}/, "
        f"or put Kaggle's {_CSV} there, or sort val/ into class folders."
    )


def _devkit_answers(devkit: Path) -> dict[str, str]:
    truth, meta = devkit / _TRUTH, devkit / "meta.mat"
    if not meta.is_file():
        raise UserError(f"{shown(meta)} is missing: it translates class numbers to WNIDs. Unpack the devkit again.")
    wnid_of = _wnids(meta)
    answers = {}
    for number, line in enumerate(truth.read_text(encoding="ascii", errors="replace").split(), start=1):
        if not line.isdigit() or int(line) not in wnid_of:
            raise UserError(f"line {number} of {shown(truth)} is {line!r}, not in {shown(meta)}. Unpack again.")
        answers[f"ILSVRC2012_val_{number:08d}.JPEG"] = wnid_of[int(line)]
    return answers


def _wnids(meta: Path) -> Mapping[int, str]:
    """ILSVRC2012_ID to WNID of the classes that have images; meta.mat also lists their parents in WordNet."""
    from scipy.io import loadmat

    try:
        synsets = loadmat(meta, squeeze_me=True, variable_names=["synsets"])["synsets"]
        return {int(row["ILSVRC2012_ID"]): str(row["WNID"]) for row in synsets if int(row["num_children"]) == 0}
    except Exception as error:  # scipy raises many kinds for a damaged file
        raise UserError(f"{shown(meta)} cannot be read ({error}). Unpack the devkit again.") from error


def _kaggle_answers(source: Path) -> dict[str, str]:
    """From lines `ILSVRC2012_val_00048981,n03995372 85 1 499 272 `: WNID and box, repeated for each object."""
    answers = {}
    with open(source, newline="", encoding="utf-8", errors="replace") as file:
        for row in csv.DictReader(file):
            image, boxes = row.get("ImageId"), (row.get("PredictionString") or "").split()
            if not image or not boxes:
                raise UserError(f"{shown(source)} has a line without ImageId or PredictionString. Download again.")
            answers[f"{image}.JPEG"] = boxes[0]
    return answers
