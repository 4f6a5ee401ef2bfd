"""The same images give bitwise the same training batches and labels, however they are stored."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from random import Random
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import torch
import webdataset
from PIL import Image

from ssl_bench import testing
from ssl_bench.dataset import Dataset, Split
from ssl_bench.datasets.opening import open_dataset
from ssl_bench.recipes.resolve import dataset_loaders
from ssl_bench.training.batches import EpochOrder, batches
from tests.toy import ToyMethod, write_image_folder

Labels = bool
Write = Callable[[Path, Path, Labels], str]
"""(image folder to copy, empty folder to write to, with labels) -> what --data takes."""
SPLITS = ("train", "val")


def listed(folder: Path) -> dict[str, list[Path]]:
    """The images of each split, shuffled: a container's own order must not matter where it has names."""
    found = {split: sorted((folder / split).rglob("*.png")) for split in SPLITS}
    for paths in found.values():
        Random(0).shuffle(paths)
    return found


def folder(source: Path, target: Path, labels: Labels) -> str:
    if labels:
        return str(source)
    (target / "flat").mkdir()
    for path in listed(source)["train"]:
        (target / "flat" / f"{path.parent.name}-{path.name}").write_bytes(path.read_bytes())
    return str(target / "flat")


def npz(source: Path, target: Path, labels: Labels) -> str:
    arrays: dict[str, Any] = {}
    for split in SPLITS if labels else SPLITS[:1]:
        paths = sorted((source / split).rglob("*.png"))  # arrays have no names
        arrays[f"{split}_images"] = np.stack([np.asarray(Image.open(path)) for path in paths])
        if labels:
            arrays[f"{split}_labels"] = np.array(["ab".index(path.parent.name) for path in paths])[:, None]
    np.savez_compressed(target / "set.npz", **arrays)
    return str(target / "set.npz")


def parquet(source: Path, target: Path, labels: Labels) -> str:
    for split, paths in listed(source).items():
        columns: dict[str, Any] = {
            "image": [{"bytes": p.read_bytes(), "path": f"{p.parent.name}-{p.name}"} for p in paths]
        }
        if labels:
            columns["label"] = ["ab".index(path.parent.name) for path in paths]
        if labels or split == "train":
            pq.write_table(pa.table(columns), target / f"{split}-00000-of-00001.parquet")
    return str(target)


def csv(source: Path, target: Path, labels: Labels) -> str:
    lines = ["path,label,split" if labels else "path"]
    for split, paths in listed(source).items():
        for path in paths:
            name = Path("images", split, path.parent.name, path.name)
            (target / name).parent.mkdir(parents=True, exist_ok=True)
            (target / name).write_bytes(path.read_bytes())
            lines += [f"{name},{path.parent.name},{split}"] if labels else [str(name)] * (split == "train")
    (target / "set.csv").write_text("\n".join(lines) + "\n")
    return str(target / "set.csv")


def shards(source: Path, target: Path, labels: Labels) -> str:
    for split, paths in listed(source).items():
        if not labels and split != "train":
            continue
        with webdataset.ShardWriter(f"{target}/{split}-%03d.tar", maxcount=9, verbose=0) as writer:
            for path in paths:
                sample = {"__key__": f"{path.parent.name}-{path.stem}", "png": path.read_bytes()}
                writer.write(sample | ({"cls": "ab".index(path.parent.name)} if labels else {}))
    return f"webdataset:{target}/{{train,val}}-*.tar" if labels else f"{target}/train-{{000..002}}.tar"


WRITERS: dict[str, Write] = {"folder": folder, "npz": npz, "parquet": parquet, "csv": csv, "webdataset": shards}


@pytest.fixture(scope="module")
def source(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_image_folder(tmp_path_factory.mktemp("same") / "set", train=12, test=2)


def pictures(split: Split) -> list[bytes]:
    return [split.image(index).tobytes() for index in range(len(split))]


def views_of(dataset: Dataset, workers: int) -> list[torch.Tensor]:
    """Both views, the indices and the labels of two epochs of batches."""
    make_views = ToyMethod.make_views(ToyMethod.Config())
    order = EpochOrder(len(dataset.pretraining), batch_size=8, epochs=2, seed=3)
    found: list[torch.Tensor] = []
    for batch in batches(dataset.pretraining, make_views, order, needs_labels=dataset.labeled, workers=workers):
        found += [*batch.views, batch.index, *([] if batch.labels is None else [batch.labels])]
    return found


@pytest.mark.parametrize("labels", [True, False], ids=["labeled", "unlabeled"])
@pytest.mark.parametrize("container", [name for name in WRITERS if name != "folder"])
def test_the_same_batches(source: Path, tmp_path: Path, container: str, labels: Labels) -> None:
    known = dataset_loaders()
    reference = open_dataset(folder(source, tmp_path, labels), known)
    (tmp_path / container).mkdir()
    stored = open_dataset(WRITERS[container](source, tmp_path / container, labels), known)
    assert (stored.labeled, stored.image_px) == (reference.labeled, reference.image_px) == (labels, 16)
    assert pictures(stored.train) == pictures(reference.train)
    if labels:
        assert stored.test is not None
        assert reference.test is not None
        assert list(stored.train.labels or []) == list(reference.train.labels or [])
        assert list(stored.test.labels or []) == list(reference.test.labels or [])
        assert pictures(stored.test) == pictures(reference.test)
    workers = int(container == "webdataset" and labels)
    for one, other in zip(views_of(stored, workers), views_of(reference, 0), strict=True):
        assert torch.equal(one, other)


@pytest.mark.parametrize("labels", [True, False], ids=["labeled", "unlabeled"])
@pytest.mark.parametrize("container", [name for name in WRITERS if name != "folder"])
def test_the_contract(source: Path, tmp_path: Path, container: str, labels: Labels) -> None:
    given = open_dataset(WRITERS[container](source, tmp_path, labels), dataset_loaders())
    results = testing.run_checks("dataset", type(given), path=given.path)
    assert not [result for result in results if result.outcome == "failed"]
