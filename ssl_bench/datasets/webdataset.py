"""WebDataset shards: tar files in which `KEY.jpg` stands beside `KEY.cls`, read at random by the place of each image.

The headers of the shards are read once and what they say is kept in the cache: afterwards each image is one read at a
known place, so that the order of images is a function of seed and epoch as for files, and memory stays flat.
"""

from __future__ import annotations

import glob
from collections.abc import Sequence
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from ssl_bench.dataset import Dataset
from ssl_bench.datasets.content import blocks_digest
from ssl_bench.datasets.encoded_images import EncodedFiles, EncodedImages
from ssl_bench.datasets.image_files import decide_image_px, set_name
from ssl_bench.datasets.picking import ContainerConfig, Listed, Picked, SplitName, class_labels, pick
from ssl_bench.datasets.reading import shown
from ssl_bench.datasets.several_files import by_split, files_with_ending, is_set_of, name_of_several
from ssl_bench.datasets.shard_contents import Contents, braces_expanded, read_contents
from ssl_bench.datasets.unpacked import unpacked
from ssl_bench.errors import UserError
from ssl_bench.settings import setting

ENDING = ".tar"


class WebDataset(Dataset):
    """Shards in WebDataset's format: a folder of .tar files, one of them, or a pattern like shards-{000..012}.tar."""

    layout = "FILE.tar or shards-{000..012}.tar or a folder of them: KEY.jpg beside KEY.cls (.json, .txt), or alone"
    may_be_missing = True

    class Config(ContainerConfig):
        """Settings of shards."""

        held_out: float = setting(
            0.0, "share of each class held out to test on where labeled shards name no splits; 0 trains on all",
            ge=0, lt=1,
        )  # fmt: skip
        label_key: str | None = setting(None, "name of the label in .json files; null finds it")

    @classmethod
    def recognizes(cls, path: Path) -> bool:
        """Whether it is a folder of .tar files, a pattern of some, or one that is not just a packed folder."""
        if path.is_dir():
            return is_set_of(path, ENDING)
        return path.name.lower().endswith(ENDING) and bool(_matching(str(path)))

    train: EncodedImages
    test: EncodedImages | None

    def __init__(self, config: Config, path: Path | None) -> None:
        """Read the shards' headers, once. Raises `UserError` for shards that are missing, cut off or compressed."""
        shards = [] if path is None else _shards(path)
        if path is None or not shards:
            where = "" if path is None else f"; {shown(path)} has none"
            raise UserError(f"webdataset needs its shards (--data webdataset:PATTERN){where}. Expected {self.layout}")
        self.config, self.path = config, path
        files = by_split(shards, path)
        shards = [shard for of_split in files.values() for shard in of_split]
        content = blocks_digest(shards)
        folder = unpacked(
            "shards",
            shards,
            f"{content} {config.label_key}",
            lambda part: read_contents(shards, config.label_key).save(part),
        )
        contents = Contents.load(folder)
        if not len(contents.places):
            raise UserError(
                f"{shown(path)} holds no images, only {contents.passed_over or 'empty archives'}. Unpack an archive of "
                f"archives. Expected {self.layout}"
            )
        rows = _rows_by_split(contents, files)
        texts = {
            split: [label.decode("utf-8", "replace") for label in contents.labels[of_split].tolist()]
            if contents.source
            else [None] * len(of_split)
            for split, of_split in rows.items()
        }
        labels = class_labels(texts, shown(path), f"the {contents.source} files")
        found = EncodedFiles(tuple(shards), tuple(shards), contents.places, contents.names)
        parts = {
            split: Listed(len(of_split), labels[split], contents.names[of_split]) for split, of_split in rows.items()
        }
        picks = pick(parts, config, shown(path))

        def split_of(picked: Picked) -> EncodedImages:
            return EncodedImages(found.take(rows[picked.part][picked.rows]), picked.labels, config.decode_px)

        self.classes, self.train = picks.classes, split_of(picks.train)
        self.test = None if picks.test is None else split_of(picks.test)
        self.name = set_name(Path(name_of_several(path)), config.train_fraction)
        self.image_px = decide_image_px(self.train, config)
        read = "read without labels: no .cls, .json or .txt files tell classes"
        if contents.source:
            read = f"labels are those of the {contents.source} files"
        passed = f"passed over {contents.passed_over}" if contents.passed_over else ""
        self.notes = tuple(note for note in (read, passed, *picks.notes) if note)
        self._fingerprint = picks.fingerprint(f"{content} {config.label_key}")

    @property
    def fingerprint(self) -> str:
        """sha256 over the shards' content (of more than 256 MiB a sample) and over which images are used."""
        return self._fingerprint


def _rows_by_split(contents: Contents, files: dict[SplitName, list[Path]]) -> dict[SplitName, NDArray[np.int64]]:
    rows: dict[SplitName, NDArray[np.int64]] = {}
    first = 0
    for split, shards in files.items():
        of_split = (contents.places["file"] >= first) & (contents.places["file"] < first + len(shards))
        rows[split] = np.flatnonzero(of_split)
        first += len(shards)
    return rows


def _shards(path: Path) -> Sequence[Path]:
    """The .tar files that a folder, a file or a pattern means. Raises `UserError` where some are missing."""
    if path.is_dir():
        return files_with_ending(path, ENDING)
    if path.is_file():
        return [path]
    found, missing = [], []
    for name in braces_expanded(str(path)):
        if Path(name).is_file():
            found.append(Path(name))
        elif glob.has_magic(name):
            found += [Path(one) for one in glob.glob(name)]
        else:
            missing.append(name)
    if missing and found:
        count = len(missing) + len(found)
        raise UserError(
            f"{len(missing):,} of the {count:,} shards of {shown(path)} are missing, {shown(missing[0])} first. Copy "
            "them, or give a pattern without them."
        )
    return sorted(set(found))


def _matching(pattern: str) -> list[str]:
    """Files that a pattern means, as far as they are there."""
    return [one for name in braces_expanded(pattern) for one in (glob.glob(name) or [name]) if Path(one).is_file()]
