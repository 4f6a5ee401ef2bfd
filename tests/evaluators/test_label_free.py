"""Label-free measures: the equations written slowly, in float64 (1e-6 relative), and cases with a known answer."""

from __future__ import annotations

import math
from pathlib import Path
from random import Random

import pytest
import torch
from torch import Tensor

from ssl_bench.backbone import Backbone
from ssl_bench.blocks.views import Crop
from ssl_bench.errors import UserError
from ssl_bench.evaluation.features import FeatureStore
from ssl_bench.evaluator import Evaluation, Measurement
from ssl_bench.evaluators.label_free import (
    LabelFree,
    LabelFreeConfig,
    chosen,
    effective_rank,
    rankme,
    uniformity,
)
from tests.toy import ToyBackbone, ToyDataset


def features(n: int, dim: int, rank: int | None = None, seed: int = 0) -> Tensor:
    generator = torch.Generator().manual_seed(seed)
    vectors = torch.randn(n, dim, generator=generator, dtype=torch.float64) * torch.logspace(0, -1, dim) + 0.3
    if rank is None:
        return vectors
    return vectors[:, :rank] @ torch.randn(rank, dim, generator=generator, dtype=torch.float64)


@pytest.mark.parametrize(("n", "dim", "rank"), [(50, 8, None), (8, 50, None), (40, 20, 3), (2, 2, None)])
def test_ranks_from_singular_values(n: int, dim: int, rank: int | None) -> None:
    z = features(n, dim, rank)
    sigma = torch.linalg.svd(z, full_matrices=False).S.tolist()
    p = [s / sum(sigma) + 1e-7 for s in sigma]
    assert rankme(z) == pytest.approx(math.exp(-sum(one * math.log(one) for one in p)), rel=1e-4 if rank else 1e-6)
    sigma = torch.linalg.svd(z - z.mean(0), full_matrices=False).S.tolist()
    p = [s / sum(sigma) for s in sigma]
    entropy = -sum(one * math.log(one) for one in p if one > 1e-12)
    assert effective_rank(z) == pytest.approx(math.exp(entropy), rel=1e-6)


def test_ranks_of_known_matrices() -> None:
    assert rankme(torch.eye(7).double()) == pytest.approx(7, abs=1e-4)
    assert rankme(torch.ones(9, 5).double()) == pytest.approx(1, abs=1e-4)
    corners = torch.cat((torch.eye(3), -torch.eye(3))).double()
    assert effective_rank(corners + 100) == pytest.approx(3), "the mean does not count"
    assert rankme(corners + 100) < 1.2, "and does for RankMe"


def test_uniformity_over_all_pairs(monkeypatch: pytest.MonkeyPatch) -> None:
    x = torch.nn.functional.normalize(features(23, 5), dim=1)
    pairs = [(i, j) for i in range(23) for j in range(i)]
    mean = sum(math.exp(-2 * float(((x[i] - x[j]) ** 2).sum())) for i, j in pairs) / len(pairs)
    assert uniformity(x) == pytest.approx(math.log(mean), rel=1e-9)
    monkeypatch.setattr("ssl_bench.evaluators.label_free.PAIRS_AT_ONCE", 50)
    assert uniformity(x) == pytest.approx(math.log(mean), rel=1e-9), "in blocks of two rows"
    assert uniformity(x[:1].repeat(4, 1)) == pytest.approx(0, abs=1e-9)
    assert uniformity(torch.tensor([[1.0, 0.0], [-1.0, 0.0]]).double()) == pytest.approx(-8)


class Channels(Backbone):
    """Mean and deviation of each channel: features that a crop and a color jitter move."""

    Config = ToyBackbone.Config
    kind = "convnet"

    def forward(self, images: Tensor) -> Tensor:
        return torch.cat((images.mean((2, 3)), images.std((2, 3))), dim=1)


def measure(dataset: ToyDataset, seed: int = 0, **config: int) -> dict[str, Measurement]:
    backbone = Channels(None, image_px=8).eval()
    store = FeatureStore(
        backbone, dataset, image_px=8, device=torch.device("cpu"), autocast_dtype=None, batch_size=16, workers=0
    )
    evaluation = Evaluation(backbone, store, dataset, seed, Path("unused"))
    return {one.metric: one for one in LabelFree(LabelFreeConfig(**config)).evaluate(evaluation)}


def test_every_measure_from_its_equation() -> None:
    dataset = ToyDataset(count=90)
    found = measure(dataset)
    backbone = Channels(None, image_px=8)
    crop = Crop(
        8, (0.2, 1.0), jitter_probability=0.8, brightness=0.4, contrast=0.4, saturation=0.4, hue=0.1,
        gray_probability=0.2,
    )  # fmt: skip
    total = 0.0
    for index in range(90):
        random = Random(f"0-{index}")
        views = torch.stack([crop(dataset.train.image(index), random) for _ in range(2)])
        a, b = torch.nn.functional.normalize(backbone(views).double(), dim=1)
        total += float(((a - b) ** 2).sum())
    assert found["alignment"].value == pytest.approx(total / 90, rel=1e-5)
    assert found["alignment"].value > 0.001
    assert found["feature_spread"].value < 1
    assert [name for name, one in found.items() if one.primary] == ["rankme"]
    assert 1 < found["rankme"].value <= 6
    assert {name for name, one in found.items() if not one.higher_is_better} == {"uniformity", "alignment"}


def test_images_and_views_are_the_same_for_every_run_and_at_most_as_many_as_asked() -> None:
    few = {"images": 20, "uniformity_images": 10, "alignment_images": 5}
    first, second = measure(ToyDataset(), seed=0, **few), measure(ToyDataset(), seed=7, **few)
    assert first == second
    assert [first[name].n for name in ("rankme", "uniformity", "alignment")] == [20, 10, 5]
    assert ", 20 images of train, native 8 px" in first["rankme"].protocol.text
    drawn = chosen(100, 30)
    assert len(set(drawn.tolist())) == 30
    assert drawn.tolist() == sorted(drawn.tolist()) != list(range(30))
    assert chosen(5, 30).tolist() == [0, 1, 2, 3, 4]


def test_one_image_cannot_be_compared() -> None:
    with pytest.raises(UserError, match="compares images with one another"):
        measure(ToyDataset(count=1))
