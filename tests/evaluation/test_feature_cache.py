"""Features and decoded images in the cache: bitwise what is computed without it, whatever happens to the files."""

from __future__ import annotations

import functools
import os
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image
from torch import Tensor, nn

from ssl_bench.backbone import Backbone
from ssl_bench.blocks.preprocessing import Preprocessing
from ssl_bench.datasets import content
from ssl_bench.datasets.image_files import ImageFiles
from ssl_bench.datasets.listing import ImageFile
from ssl_bench.evaluation import decoded_images
from ssl_bench.evaluation.evaluate import build_evaluators, evaluate_network
from ssl_bench.evaluation.features import FeatureStore
from ssl_bench.evaluation.network_fingerprint import Undecidable, code_fingerprint, network_fingerprint
from ssl_bench.measurement import Measurement
from tests.toy import ToyBackbone, ToyDataset
from tests.weights.networks import vit


class CountedDataset(ToyDataset):
    """Photos of changing sizes; counts how often an image is decoded."""

    def __init__(self, count: int = 20, content: str = "toy") -> None:
        super().__init__(count=count, px=12)
        self.content, self.decoded, self.image_px = content, 0, 8
        for split in (self.train, self.test):
            split.image = functools.partial(self._image, split.seed)  # type: ignore[method-assign]

    @property
    def fingerprint(self) -> str:
        return self.content

    def _image(self, seed: int, index: int) -> Image.Image:
        self.decoded += 1
        pixels = np.random.default_rng([seed, index]).integers(0, 256, (13 + index % 3, 14, 3))
        return Image.fromarray(pixels.astype(np.uint8))


class Network(ToyBackbone):
    """Counts its passes; features of its own for a probe."""

    passes = 0

    def forward(self, images: Tensor) -> Tensor:
        type(self).passes += 1
        return super().forward(images)

    def probe_features(self, images: Tensor) -> Tensor:
        return torch.cat([self(images), images.mean(dim=(2, 3))], dim=1)


def network(seed: int = 0) -> Network:
    torch.manual_seed(seed)
    return Network(image_px=8)


@pytest.fixture(autouse=True)
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("SSLBENCH_CACHE", str(tmp_path / "cache"))
    monkeypatch.setenv("SSLBENCH_CACHE_GB", "1")
    monkeypatch.setattr(decoded_images, "BLOCK", 4)
    Network.passes = 0
    return tmp_path / "cache"


def store(backbone: Backbone, dataset: ToyDataset, **changes: Any) -> FeatureStore:
    settings: dict[str, Any] = {
        "image_px": 8, "device": torch.device("cpu"), "autocast_dtype": None, "batch_size": 6, "workers": 0
    }  # fmt: skip
    return FeatureStore(backbone, dataset, **(settings | changes))


def without_cache(monkeypatch: pytest.MonkeyPatch, backbone: Backbone, **changes: Any) -> Tensor:
    with monkeypatch.context() as patch:
        patch.setenv("SSLBENCH_CACHE_GB", "0")
        return store(backbone, CountedDataset(), **changes)("train").vectors


def test_every_number_is_bitwise_the_same_without_cache_with_an_empty_one_and_with_a_full_one(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    evaluators = build_evaluators([("knn", {"neighbors": [3], "reported": 3}), ("linear-probe", {"min_steps": 5})])

    def numbers(gb: str) -> list[Measurement]:
        monkeypatch.setenv("SSLBENCH_CACHE_GB", gb)
        records = evaluate_network(
            network(), "trained", evaluators, CountedDataset(), seed=0, device=torch.device("cpu"), workers=0,
            run_dir=tmp_path, places=["knn", "probe"],
        )  # fmt: skip
        return [one for record in records for one in record.measurements]

    expected = numbers("0")
    assert not (tmp_path / "cache").exists()
    assert numbers("1") == expected
    passes = Network.passes
    assert numbers("1") == expected
    assert Network.passes == passes, "the network ran again"


def test_images_are_decoded_once_for_all_networks_kinds_and_normalizations() -> None:
    dataset = CountedDataset()
    for seed in range(3):
        found = store(network(seed), dataset)
        found("train")
        found("train", "probe_features")
        found("test")
    store(network(), dataset, preprocessing=Preprocessing(mean=(0.5, 0.5, 0.5), std=(0.5, 0.5, 0.5)))("train")
    sizes = 20 + 12  # `is_native` looks at sizes, which this split tells by decoding
    assert dataset.decoded <= sizes + 20 + 12
    before = dataset.decoded
    store(network(), dataset, preprocessing=Preprocessing(interpolation="bilinear"))("train")
    assert dataset.decoded == before + 20, "other levels are decoded on their own"


def other_weight(backbone: Network) -> None:
    with torch.no_grad():
        backbone.layers[1].weight[0, 0] += 1e-7  # type: ignore[index, operator]


def other_buffer(backbone: Network) -> None:
    backbone.layers[2].running_mean += 1  # type: ignore[operator]


def other_epsilon(backbone: Network) -> None:
    backbone.layers[2].eps = 1e-3  # type: ignore[assignment]


def other_attribute(backbone: Network) -> None:
    backbone.scale_of_something = 2


def other_tensor(backbone: Network) -> None:
    backbone.plain_tensor = torch.ones(2)


def other_layer(backbone: Network) -> None:
    backbone.layers[3] = nn.Identity()  # type: ignore[index]


@pytest.mark.parametrize(
    "change", [other_weight, other_buffer, other_epsilon, other_attribute, other_tensor, other_layer]
)
def test_whatever_changes_a_network_changes_its_fingerprint(change: Callable[[Network], None]) -> None:
    one, same, other = network(), network(), network()
    assert network_fingerprint(one) == network_fingerprint(same.train(False))
    change(other)
    assert network_fingerprint(other) != network_fingerprint(one)


def test_networks_of_a_vit_have_a_fingerprint_that_heads_change() -> None:
    one, other = vit(), vit()
    assert network_fingerprint(one) == network_fingerprint(vit())
    blocks = next(module for module in other.modules() if hasattr(module, "num_heads"))
    blocks.num_heads = 4
    assert network_fingerprint(other) != network_fingerprint(one)


@pytest.mark.parametrize(
    "changes",
    [
        {"batch_size": 5},
        {"autocast_dtype": torch.bfloat16},
        {"preprocessing": Preprocessing(mean=(0.5, 0.5, 0.5))},
        {"preprocessing": Preprocessing(interpolation="bilinear")},
        {"dataset": CountedDataset(content="other")},
        {"dataset": CountedDataset(count=19)},
    ],
    ids=["batch size", "precision", "normalization", "interpolation", "other images", "fewer images"],
)
def test_what_else_decides_a_number_is_extracted_anew(changes: dict[str, Any]) -> None:
    store(network(), CountedDataset())("train")
    Network.passes = 0
    store(network(), **{"dataset": CountedDataset(), **changes})("train")
    assert Network.passes > 0


def test_a_network_with_hooks_or_local_functions_is_not_kept(folder: Path) -> None:
    hooked, local = network(), network()
    hooked.layers[1].register_forward_hook(lambda *given: None)  # type: ignore[operator]
    local.function = lambda x: x
    for one in (hooked, local):
        with pytest.raises(Undecidable):
            network_fingerprint(one)
        store(one, CountedDataset())("train")
    assert not (folder / "features").exists()


def test_an_edit_of_a_plugin_changes_the_fingerprint_of_its_code(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.syspath_prepend(tmp_path)
    sums = set()
    for text in ("scale = 1", "scale = 2"):
        (tmp_path / "toy_plugin_of_one_file.py").write_text(text)
        code_fingerprint.cache_clear()
        sums.add(code_fingerprint(frozenset({"toy_plugin_of_one_file"})))
    assert len(sums) == 2
    monkeypatch.setitem(sys.modules, "typed_in_a_notebook", type(sys)("typed_in_a_notebook"))
    with pytest.raises(Undecidable):
        code_fingerprint(frozenset({"typed_in_a_notebook"}))


def flip_a_byte(path: Path) -> None:
    content = bytearray(path.read_bytes())
    content[-5] ^= 1
    path.write_bytes(content)


def cut(path: Path) -> None:
    path.write_bytes(path.read_bytes()[:-20])


def empty(path: Path) -> None:
    path.write_bytes(b"")


@pytest.mark.parametrize("damage", [flip_a_byte, cut, empty])
@pytest.mark.parametrize("kind", ["features", "decoded"])
def test_damage_is_never_a_number(
    kind: str, damage: Callable[[Path], None], folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    expected = without_cache(monkeypatch, network())
    store(network(), CountedDataset())("train")
    (path,) = (folder / kind).glob("*" if kind == "features" else "*/levels")
    damage(path)
    if kind == "decoded":
        for one in (folder / "features").iterdir():
            one.unlink()
    assert torch.equal(store(network(), CountedDataset())("train").vectors, expected)
    Network.passes = 0
    assert torch.equal(store(network(), CountedDataset())("train").vectors, expected)
    assert Network.passes == 0, "features are kept again"


def test_features_under_the_name_of_others_are_not_taken(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    store(network(0), CountedDataset())("train")
    (first,) = (folder / "features").iterdir()
    content = first.read_bytes()
    store(network(1), CountedDataset())("train")
    (second,) = set((folder / "features").iterdir()) - {first}
    second.write_bytes(content)
    assert torch.equal(store(network(1), CountedDataset())("train").vectors, without_cache(monkeypatch, network(1)))


def test_what_does_not_fit_or_cannot_be_written_is_computed(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    expected = without_cache(monkeypatch, network())
    with monkeypatch.context() as patch:
        patch.setenv("SSLBENCH_CACHE_GB", "0.000001")
        assert torch.equal(store(network(), CountedDataset())("train").vectors, expected)
    assert not list(folder.glob("decoded/*"))
    (folder / "file").write_text("")
    with monkeypatch.context() as patch:
        patch.setenv("SSLBENCH_CACHE", str(folder / "file"))
        assert torch.equal(store(network(), CountedDataset())("train").vectors, expected)


def test_a_pass_that_ends_early_keeps_nothing(folder: Path) -> None:
    class Broken(Network):
        def forward(self, images: Tensor) -> Tensor:
            if self.passes == 2:
                raise KeyboardInterrupt
            return super().forward(images)

    with pytest.raises(KeyboardInterrupt):
        store(Broken(image_px=8), CountedDataset())("train")
    assert not list(folder.glob("*/*"))


def test_networks_in_training_keep_no_features_and_share_the_images(folder: Path) -> None:
    dataset = CountedDataset()
    store(network(), dataset, keep=False)("train")
    before = dataset.decoded
    store(network(1), dataset, keep=False)("train")
    assert dataset.decoded == before
    assert not (folder / "features").exists()


def test_files_of_a_large_set_that_change_are_noticed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    Image.new("RGB", (8, 8)).save(tmp_path / "a.png")
    files = [(0, ImageFile("a.png", (tmp_path / "a.png").stat().st_size))]
    assert ImageFiles(tmp_path, files).times == "", "a small set is read whole"
    monkeypatch.setattr(content, "ALL_FILES", 0)
    before = ImageFiles(tmp_path, files).times
    os.utime(tmp_path / "a.png", (1, 1))
    assert ImageFiles(tmp_path, files).times != before
