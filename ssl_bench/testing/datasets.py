"""The checks of a dataset: labels, images, and that the same set is the same everywhere and every time."""

from __future__ import annotations

import pickle
import string
import tempfile
from collections.abc import Mapping
from functools import cached_property
from pathlib import Path
from typing import Any

from PIL import Image

from ssl_bench.dataset import Dataset, Split
from ssl_bench.settings import Settings, parse_settings
from ssl_bench.testing import common
from ssl_bench.testing.outcomes import CheckFailed, CheckSkipped, require

FEW: Mapping[str, Any] = {"train_images": 40, "test_images": 20}
"""Settings that the checks make small where a Config has them by these names."""


class Subject:
    """A dataset class, opened."""

    def __init__(self, plugin: type[Dataset], settings: Mapping[str, Any], path: Path | None = None) -> None:
        self.plugin, self.settings, self.path = plugin, dict(settings), path

    @cached_property
    def config(self) -> Settings:
        """The settings given, over small numbers of images where the Config has those."""
        few = {name: value for name, value in FEW.items() if name in self.plugin.Config.model_fields}
        return parse_settings(self.plugin.Config, {**few, **self.settings}, "data", self.plugin.__name__)

    def configs(self) -> list[Settings]:
        """What goes through JSON."""
        return [self.config]

    def open(self) -> Dataset:
        """The dataset, opened anew. Raises `CheckSkipped` where it needs a folder and none is given."""
        if self.plugin.layout and self.path is None:
            raise CheckSkipped(
                f"it is read from a folder ({self.plugin.layout}): give one with --data PATH, or path=... in pytest"
            )
        return self.plugin(self.config, self.path)

    @cached_property
    def data(self) -> Dataset:
        """One opened set for the checks that change nothing. Raises `CheckSkipped` when it cannot be opened."""
        try:
            return self.open()
        except CheckSkipped:
            raise
        except Exception as error:
            raise CheckSkipped(f"it cannot be opened yet ({type(error).__name__})") from error

    @property
    def splits(self) -> list[tuple[str, Split]]:
        """Every split with its name."""
        return list(self.data.splits.items())


def it_can_be_opened(subject: Subject) -> None:
    """`Kind(config, path)` opens it and sets name, classes, image_px and the splits; no classes without labels."""
    data = subject.open()
    require(isinstance(data.name, str) and bool(data.name), "name is empty: set self.name to a short name")
    require(len(set(data.classes)) == len(data.classes), f"classes are {data.classes}: name each class once")
    require(isinstance(data.image_px, int) and data.image_px > 0, f"image_px is {data.image_px!r}: the side in px")
    require(data.config == subject.config, "config is not what it was opened with: set self.config = config")
    for name, split in data.splits.items():
        require(len(split) > 0, f"{name} has no images: raise UserError where a split is empty")
    labels = any(split.labels is not None for split in data.splits.values())
    require(
        bool(data.classes) == labels,
        f"classes are {data.classes}, labels {'exist' if labels else 'are None'}: "
        "name the classes that labels count; () for images without labels",
    )


def labels_are_in_range(subject: Subject) -> None:
    """One label per image, each an index into `classes`; a split may have none at all (None)."""
    for name, split in subject.splits:
        if split.labels is None:
            continue
        require(len(split.labels) == len(split), f"{name} has {len(split.labels)} labels and {len(split)} images")
        wrong = [label for label in split.labels if not 0 <= int(label) < len(subject.data.classes)]
        require(
            not wrong,
            f"{name} has the label {wrong[0] if wrong else ''} with {len(subject.data.classes)} classes: labels count "
            "from 0 to classes - 1",
        )


def images_are_rgb(subject: Subject) -> None:
    """`image(index)` gives a PIL image of mode RGB for the first, a middle and the last index."""
    for name, split in subject.splits:
        for index in sorted({0, len(split) // 2, len(split) - 1}):
            image = split.image(index)
            mode = image.mode if isinstance(image, Image.Image) else type(image).__name__
            require(mode == "RGB", f"{name}.image({index}) is {mode}: return image.convert('RGB')")


def reading_twice_gives_the_same(subject: Subject) -> None:
    """The same index gives the same image and label, in this opening and the next."""
    again = subject.open().splits
    require(list(again) == [name for name, _ in subject.splits], "other splits when opened again")
    for name, split in subject.splits:
        other = again[name]
        require(_labels(split) == _labels(other), f"{name} is in another order when opened again: sort names")
        for index in sorted({0, len(split) // 2, len(split) - 1}):
            first = _pixels(split, index)
            require(
                first == _pixels(split, index) == _pixels(other, index),
                f"{name}.image({index}) differs when read again: augmentation belongs to a method, made images to a "
                "seed",
            )


def fingerprint_is_stable(subject: Subject) -> None:
    """The fingerprint is hexadecimal and the same when opened again."""
    first, second = subject.data.fingerprint, subject.open().fingerprint
    require(
        bool(first) and set(first) <= set(string.hexdigits),
        f"fingerprint is {first!r}: give a hexadecimal digest, e.g. hashlib.sha256(...).hexdigest()",
    )
    require(
        first == second,
        "the fingerprint changes from opening to opening: leave out clocks, addresses and the order of listdir()",
    )


def splits_reach_worker_processes(subject: Subject) -> None:
    """Every split survives pickling, with the same images."""
    for name, split in subject.splits:
        try:
            copy = pickle.loads(pickle.dumps(split))
        except Exception as error:
            raise CheckFailed(
                f"{name} cannot be pickled ({error}): keep paths, not open files, and no function made inside another"
            ) from error
        require(_pixels(split, 0) == _pixels(copy, 0), f"{name} gives another image after pickling")


def train_and_test_share_no_image(subject: Subject) -> None:
    """None of the first 200 test images is among the first 200 images that evaluators or methods train on."""
    test = subject.data.test
    if test is None:
        raise CheckSkipped("it has no test split: its images have no labels")
    trained = [split for name, split in subject.splits if name != "test"]
    seen = {_pixels(split, index) for split in trained for index in range(min(200, len(split)))}
    shared = [i for i in range(min(200, len(test))) if _pixels(test, i) in seen]
    require(not shared, f"test image {shared[0] if shared else ''} is a training image: make the splits disjoint")


def recognizes_says_no_to_a_foreign_folder(subject: Subject) -> None:
    """`recognizes` answers False for an empty folder instead of raising."""
    with tempfile.TemporaryDirectory() as folder:
        answer = subject.plugin.recognizes(Path(folder))
    require(answer is False, f"recognizes() answers {answer!r} for an empty folder: look for your layout, return bool")


def _labels(split: Split) -> list[int] | None:
    return None if split.labels is None else list(split.labels)


def _pixels(split: Split, index: int) -> bytes:
    image = split.image(index)
    return repr(image.size).encode() + image.tobytes()


CHECKS = (
    common.docstring_present,
    common.settings_are_described,
    common.functions_take_what_they_are_given,
    it_can_be_opened,
    common.settings_round_trip_through_json,
    labels_are_in_range,
    images_are_rgb,
    reading_twice_gives_the_same,
    fingerprint_is_stable,
    splits_reach_worker_processes,
    train_and_test_share_no_image,
    recognizes_says_no_to_a_foreign_folder,
)
