"""Tiny-ImageNet as it is distributed (tiny-imagenet-200.zip): 200 classes of 500 images of 64 px, 10,000 to test on.

Its val/ is one folder with a list of answers, which a plain image folder would take for a single class; its test/ has
no labels and is not used. A copy whose val/ was sorted into class folders is an ordinary image folder.
"""

from __future__ import annotations

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

OFFICIAL_COUNTS = (200, 100_000, 10_000)
"""Classes, training images, validation images."""


class TinyImageNet(Dataset):
    """Tiny-ImageNet as distributed, 64 px, tested on its val/."""

    layout = "Tiny-ImageNet: FOLDER/train/WNID/images/IMAGE, FOLDER/val/images/IMAGE, FOLDER/val/val_annotations.txt"

    class Config(FilesConfig):
        """Settings of Tiny-ImageNet."""

    @classmethod
    def recognizes(cls, path: Path) -> bool:
        """Whether val/ holds images/ and val_annotations.txt."""
        return (
            (path / "train").is_dir()
            and (path / "val" / "images").is_dir()
            and (path / "val" / "val_annotations.txt").is_file()
        )

    train: ImageFiles
    test: ImageFiles

    def __init__(self, config: Config, path: Path | None) -> None:
        """List both splits. Raises `UserError` unless val/ holds exactly the images that its list names."""
        if path is None or not self.recognizes(path):
            where = "" if path is None else f"; {shown(path)}/ is not one"
            raise UserError(f"tiny-imagenet needs its unpacked folder (--data PATH){where}. Expected {self.layout}")
        self.config, self.path = config, path
        train, test, source = path / "train", path / "val" / "images", path / "val" / "val_annotations.txt"
        passed, passed_in_test = PassedOver(), PassedOver()
        self.classes = tuple(subfolders(train, passed))
        check_class_names(self.classes, train)
        self.train = train_files(train, self.classes, config, passed)
        self.test = ImageFiles(
            test, files_by_answers(test, _answers(source), self.classes, source, passed_in_test), config.decode_px
        )
        counts = len(self.classes), len(self.train), len(self.test)
        whole = is_complete(counts, OFFICIAL_COUNTS, config.train_fraction)
        self.name = set_name(path, config.train_fraction, "tiny-imagenet" if whole else "")
        self.image_px = decide_image_px(self.train, config)
        self.notes = notes(train, passed, test, passed_in_test)

    @property
    def fingerprint(self) -> str:
        """sha256 over class names and every file's label, name, size and content (`content_digest`: of a large set a
        sample); not over where the folder lies."""
        return fingerprint(self.classes, self.train.digest, self.test.digest)


def _answers(source: Path) -> dict[str, str]:
    """File name to class, from lines `val_0.JPEG<tab>n03444034<tab>0<tab>32<tab>44<tab>62`."""
    answers: dict[str, str] = {}
    for number, line in enumerate(source.read_text(encoding="utf-8", errors="replace").splitlines(), start=1):
        if not line.strip():
            continue
        fields = line.split("\t")
        if len(fields) < 2:
            raise UserError(f"line {number} of {shown(source)} is {line!r}, not FILE<tab>WNID<tab>box. Unpack again.")
        answers[fields[0]] = fields[1].strip()
    return answers
