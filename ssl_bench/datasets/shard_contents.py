"""What the tar files of a WebDataset hold: the place, name and label of every image, read from their headers once."""

from __future__ import annotations

import json
import re
import tarfile
from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, BinaryIO

import numpy as np
from numpy.typing import NDArray

from ssl_bench.datasets.encoded_images import PLACE
from ssl_bench.datasets.reading import EXTENSIONS, shown
from ssl_bench.errors import UserError

LABEL_ENDINGS = (".cls", ".json", ".txt")
"""Of the files beside an image that may tell its class; the first kind that all images have is used."""
LABEL_KEYS = ("label", "cls", "class", "class_id", "target", "category")
"""What a label is called in the .json files of a shard."""
LONGEST_LABEL = 200
"""Bytes: longer texts are captions."""
COMPRESSED = {b"\x1f\x8b": "gunzip", b"BZh": "bunzip2", b"\xfd7z": "unxz", b"\x28\xb5\x2f\xfd": "unzstd"}
"""First bytes of compressed files and the command that unpacks them."""


@dataclass(frozen=True)
class Contents:
    """All images of some shards, in the order of the shards and of their members."""

    places: NDArray[Any]
    """(n,) of `encoded_images.PLACE`; `file` counts the shards, `number` the images of a shard."""
    names: NDArray[np.bytes_]
    """(n,) names of the images' members, UTF-8."""
    labels: NDArray[np.bytes_]
    """(n,) text of what `source` says, empty for an image of which it says nothing; (0,) where there is no source."""
    source: str
    """Ending of the files that tell the labels; "" where none do."""
    passed_over: str
    """What else the shards hold, in words."""

    def save(self, folder: Path) -> None:
        """Keep them in `folder`."""
        np.savez(folder / "contents.npz", **self.__dict__)

    @classmethod
    def load(cls, folder: Path) -> Contents:
        """Read them back."""
        with np.load(folder / "contents.npz", allow_pickle=False) as arrays:
            texts = {name: str(arrays[name]) for name in ("source", "passed_over")}
            return cls(places=arrays["places"], names=arrays["names"], labels=arrays["labels"], **texts)


def read_contents(shards: Sequence[Path], label_key: str | None = None) -> Contents:
    """The contents of `shards`. Raises `UserError` naming a shard that is cut off, compressed or not a tar file."""
    images: list[_Sample] = []
    places: list[tuple[int, int, int, int]] = []
    passed: Counter[str] = Counter()
    for number, shard in enumerate(shards):
        samples = [sample for sample in _samples(shard, label_key, passed) if sample.name]
        images += samples
        places += [(number, sample.offset, sample.length, index) for index, sample in enumerate(samples)]
    source = _label_source(images, label_key)
    labels = [sample.labels.get(source, b"") for sample in images] if source else []
    kinds = ", ".join(f"{count:,} {ending or 'without ending'}" for ending, count in passed.most_common(4))
    return Contents(
        np.array(places, PLACE),
        np.array([sample.name for sample in images], np.bytes_),
        np.array(labels, np.bytes_),
        source,
        f"{passed.total():,} other files ({kinds})" if passed else "",
    )


@dataclass
class _Sample:
    """The members of one key: at most one image, and what may be its label."""

    name: bytes = b""
    offset: int = 0
    length: int = 0
    labels: dict[str, bytes] = field(default_factory=dict)
    """By the ending of the file that says it."""


def _samples(shard: Path, label_key: str | None, passed: Counter[str]) -> list[_Sample]:
    """The samples of a shard in the order of their first members."""
    samples: dict[str, _Sample] = {}
    with open(shard, "rb") as file:
        for member in _members(shard, file):
            folder, _, base = member.name.rpartition("/")
            if not member.isreg() or base.startswith("."):
                continue
            stem, _, rest = base.partition(".")  # webdataset: the key ends at the first dot
            ending = f".{rest.lower()}" if rest else ""
            sample = samples.setdefault(f"{folder}/{stem}", _Sample())
            if ending in EXTENSIONS or (f".{ending.rpartition('.')[2]}" in EXTENSIONS and not sample.name):
                passed.update(["second image of a sample"] if sample.name else [])
                sample.name = member.name.removeprefix("./").encode("utf-8", "surrogateescape")
                sample.offset, sample.length = member.offset_data, member.size
            elif ending in LABEL_ENDINGS:
                file.seek(member.offset_data)
                sample.labels[ending] = _label(file.read(member.size), ending, label_key)
            else:
                passed[ending] += 1
    return list(samples.values())


def _members(shard: Path, file: BinaryIO) -> Iterator[tarfile.TarInfo]:
    begin = file.read(4)
    command = next((command for magic, command in COMPRESSED.items() if begin.startswith(magic)), None)
    if command is not None:
        raise UserError(
            f"{shown(shard)} is compressed, so that no image can be read without all before it: {command} it first."
        )
    file.seek(0)
    end = 0
    try:
        with tarfile.open(fileobj=file, mode="r:") as tar:
            while (member := tar.next()) is not None:
                tar.members.clear()  # type: ignore[attr-defined]  # else memory grows with the shard
                yield member
            end = tar.offset
    except tarfile.TarError as error:
        raise UserError(f"{shown(shard)} is cut off or not a tar file ({error}). Copy or download it again.") from error
    file.seek(end)
    mark = file.read(tarfile.BLOCKSIZE)
    if len(mark) < tarfile.BLOCKSIZE or mark.strip(b"\0"):  # tarfile takes both for the end
        raise UserError(
            f"{shown(shard)} is cut off or damaged after byte {end:,}: the mark at the end of an archive is missing. "
            "Copy or download it again, or close the writer that made it."
        )


def _label(content: bytes, ending: str, key: str | None) -> bytes:
    """The text of a label, or nothing where the file says none."""
    if ending != ".json":
        text = content.strip()
        return b"" if len(text) > LONGEST_LABEL else text
    try:
        value = json.loads(content)
    except ValueError:
        return b""
    if isinstance(value, dict):
        value = next((value[name] for name in ([key] if key else LABEL_KEYS) if name in value), None)
    return str(value).encode() if isinstance(value, int | str) else b""


def _label_source(samples: Sequence[_Sample], key: str | None) -> str:
    """The ending whose files tell labels: of .cls files where there are any, of others where they look like classes.

    A `key` is one of .json files: then they are asked first.
    """
    for ending in (".json", *LABEL_ENDINGS) if key else LABEL_ENDINGS:
        told = [sample.labels[ending] for sample in samples if sample.labels.get(ending)]
        if told and (key or ending == ".cls" or len(set(told)) <= max(2, len(samples) // 2)):
            return ending
    return ""


def braces_expanded(pattern: str) -> list[str]:
    """`a-{0..2}.tar` to three names and `{x,y}.tar` to two, as a shell does. Raises `UserError` beyond 100,000."""
    found = re.search(r"\{([^{}]*)\}", pattern)
    if found is None:
        return [pattern]
    inner = found[1]
    numbers = re.fullmatch(r"(\d+)\.\.(\d+)", inner)
    if numbers:
        first, last = int(numbers[1]), int(numbers[2])
        if last - first >= 100_000:
            raise UserError(f"{{{inner}}} in {pattern!r} means {last - first + 1:,} files: at most 100,000 are read.")
        width = len(numbers[1]) if numbers[1].startswith("0") else 0
        choices = [f"{number:0{width}}" for number in range(first, last + 1)]
    else:
        choices = inner.split(",")
    head, tail = pattern[: found.start()], pattern[found.end() :]
    return [name for choice in choices for name in braces_expanded(head + choice + tail)]
