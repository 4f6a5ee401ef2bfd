"""Facts of datasets: splits, classes, sizes, duplicates by content, and what a user should look at before training."""

from __future__ import annotations

import statistics
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from ssl_bench.dataset import Dataset, Split
from ssl_bench.inspection.looking import MOST_IMAGES, Looked, file_kinds, look, name_of

EXAMPLES = 3
"""Duplicates and unreadable images that are named."""

Range = tuple[float, float, float]
"""Smallest, median and largest."""


@dataclass(frozen=True)
class SplitFacts:
    """What is in one split."""

    images: int
    looked_at: int
    """Images that were read; sizes, gray and duplicates are of these."""
    labeled: bool
    class_counts: Mapping[str, int]
    """Images of each class that has any; empty without labels."""
    shorter_side_px: Range | None
    longer_side_px: Range | None
    gray: int
    file_kinds: Mapping[str, int]
    unreadable: Sequence[str]
    """One message each."""
    below_image_px: int
    """Images whose shorter side is smaller than what networks get."""

    @property
    def images_a_class(self) -> Range | None:
        """Smallest, median and largest number of images of a class; None without labels."""
        return _range(list(self.class_counts.values()))


@dataclass(frozen=True)
class Duplicates:
    """Images of one split that are, pixel by pixel, images of another one, or further copies within it."""

    where: str
    """E.g. "train" or "test in train"."""
    images: int
    of: int
    """Images that were compared."""
    other_labels: int
    """Those of them whose copy has another label."""
    examples: Sequence[tuple[str, str]]


@dataclass(frozen=True)
class DataFacts:
    """What is in one dataset."""

    name: str
    plugin: str
    path: str | None
    synthetic: bool
    image_px: int
    classes: int
    fingerprint: str
    notes: Sequence[str]
    splits: Mapping[str, SplitFacts]
    duplicates: Sequence[Duplicates]
    warnings: Sequence[str]


def examine(data: Dataset, plugin: str, most: int = MOST_IMAGES) -> tuple[DataFacts, dict[str, Looked]]:
    """The facts of a dataset, and what was seen of each split. Reads at most `most` images of each."""
    looked = {name: look(split, most) for name, split in data.splits.items()}
    splits = {name: _split_facts(data, split, looked[name]) for name, split in data.splits.items()}
    copies = [within(name, data.splits[name], looked[name]) for name in splits]
    bank = "pretraining" if "pretraining" in splits else "train"
    for fitted in dict.fromkeys((bank, "train")):
        if "test" in splits:
            one, other = (data.splits["test"], looked["test"]), (data.splits[fitted], looked[fitted])
            copies.append(between(f"test in {fitted}", one, other))
    facts = DataFacts(
        name=data.name, plugin=plugin, path=None if data.path is None else str(data.path), synthetic=data.synthetic,
        image_px=data.image_px, classes=len(data.classes), fingerprint=data.fingerprint, notes=data.notes,
        splits=splits, duplicates=[one for one in copies if one.images],
        warnings=_warnings(data, splits),
    )  # fmt: skip
    return facts, looked


def _split_facts(data: Dataset, split: Split, looked: Looked) -> SplitFacts:
    counts = Counter(split.labels) if split.labels is not None else Counter[int]()
    shorter = [min(size) for size in looked.sizes]
    return SplitFacts(
        images=looked.images,
        looked_at=len(looked.indices) + len(looked.unreadable),
        labeled=split.labels is not None,
        class_counts={data.classes[label]: counts[label] for label in sorted(counts)},
        shorter_side_px=_range(shorter),
        longer_side_px=_range([max(size) for size in looked.sizes]),
        gray=sum(looked.gray),
        file_kinds=file_kinds(split),
        unreadable=looked.unreadable,
        below_image_px=sum(side < data.image_px for side in shorter),
    )


def within(name: str, split: Split, looked: Looked) -> Duplicates:
    """Images of a split that repeat an earlier one of it."""
    first: dict[bytes, int] = {}
    pairs = []
    for index, digest in zip(looked.indices, looked.digests, strict=True):
        if digest in first:
            pairs.append((index, first[digest]))
        else:
            first[digest] = index
    return _duplicates(f"within {name}", len(looked.indices), pairs, split, split)


def between(where: str, asked: tuple[Split, Looked], fitted: tuple[Split, Looked]) -> Duplicates:
    """Images of the split `asked` that are in the split `fitted`, too."""
    known = dict(zip(fitted[1].digests, fitted[1].indices, strict=True))
    found = zip(asked[1].indices, asked[1].digests, strict=True)
    pairs = [(index, known[digest]) for index, digest in found if digest in known]
    return _duplicates(where, len(asked[1].indices), pairs, asked[0], fitted[0])


def _duplicates(where: str, of: int, pairs: Sequence[tuple[int, int]], one: Split, other: Split) -> Duplicates:
    labels, others = one.labels, other.labels
    told = 0 if labels is None or others is None or one is not other else sum(labels[a] != others[b] for a, b in pairs)
    examples = [(name_of(one, a), name_of(other, b)) for a, b in pairs[:EXAMPLES]]
    return Duplicates(where, len(pairs), of, told, examples)


def _warnings(data: Dataset, splits: Mapping[str, SplitFacts]) -> list[str]:
    found = []
    for name, facts in splits.items():
        if facts.unreadable:
            found.append(f"{name}: {_count(len(facts.unreadable), 'image')} cannot be read: {facts.unreadable[0]}")
        if len(facts.class_counts) == 1 and name == "train":
            found.append(
                f"{name}: one class only ({next(iter(facts.class_counts))}): methods that need no labels train on it, "
                "nothing can be scored on it"
            )
        single = [label for label, count in facts.class_counts.items() if count == 1]
        if single and name == "train":
            found.append(
                f"{name}: {_count(len(single), 'class')} with a single image ({', '.join(single[:EXAMPLES])}"
                f"{', ...' if len(single) > EXAMPLES else ''}): a probe learns little about them"
            )
        if facts.below_image_px and not data.synthetic:
            found.append(
                f"{name}: {facts.below_image_px:,} of {facts.looked_at:,} images are smaller than the {data.image_px} "
                "px that networks get and are enlarged (--set data.image_px=N)"
            )
    return found


def _count(number: int, noun: str) -> str:
    plural = "es" if noun.endswith("s") else "s"
    return f"{number:,} {noun}{plural * (number != 1)}"


def _range(values: Sequence[int]) -> Range | None:
    return (min(values), statistics.median(values), max(values)) if values else None
