"""The scripts behind two findings of results/README.md: their figures against hand-made cases."""

from __future__ import annotations

import math
from pathlib import Path
from types import SimpleNamespace
from typing import Any, cast

import numpy as np
import pytest
import torch
from PIL import Image
from torch.nn import functional

from benchmarks.light_of_shapes import EVEN, explained, light, write_even
from benchmarks.stale_keys import fresh_loss, told
from ssl_bench.datasets.shapes.render import draw, scene
from ssl_bench.method import Batch


def test_the_share_of_the_variance_that_causes_explain() -> None:
    random = torch.Generator().manual_seed(0)
    causes, noise = torch.randn(20_000, 2, generator=random), torch.randn(20_000, 3, generator=random)
    caused = causes @ torch.randn(2, 3, generator=random) + 5
    caused = caused / caused.std(0)
    assert explained(caused, causes) == pytest.approx(1, abs=1e-4)
    assert explained(noise, causes) == pytest.approx(0, abs=1e-2)
    assert explained(caused + noise / noise.std(0), causes) == pytest.approx(0.5, abs=1e-2)


def test_the_light_and_the_even_one(tmp_path: Path) -> None:
    values = light(0, "train", 3)
    gain, slope, _ = scene(0, "train", 2).light
    assert values[2, :2].tolist() == pytest.approx([math.log(gain), slope / gain])
    assert values[:, 3:].tolist() == pytest.approx(values[:, :3].square())
    write_even(tmp_path, (("test", 11),))
    (path,) = tmp_path.glob("test/*/00010.png")
    lit = scene(0, "test", 10)
    assert path.parent == next(tmp_path.glob("test/*/00000.png")).parent, "classes take turns of ten"
    even = type(lit)(**{**vars(lit), "light": EVEN})
    assert np.array_equal(np.asarray(Image.open(path)), draw(even, 32, 32)[0])


def test_the_loss_with_fresh_keys_counts_the_batchs_other_keys_as_so_many() -> None:
    random = torch.Generator().manual_seed(0)
    queries, keys = (functional.normalize(torch.randn(6, 4, generator=random), dim=1) for _ in range(2))
    within = functional.cross_entropy(queries @ keys.T / 0.1, torch.arange(6))
    assert fresh_loss(queries, keys, 5, 0.1).item() == pytest.approx(within.item(), abs=1e-5)
    many = torch.cat([queries @ keys.T, *[(queries @ keys.T).masked_fill(torch.eye(6).bool(), -math.inf)] * 2], 1)
    thrice = functional.cross_entropy(many / 0.1, torch.arange(6))
    assert fresh_loss(queries, keys, 15, 0.1).item() == pytest.approx(thrice.item(), abs=1e-5)


def test_the_oldest_batch_of_the_queue_is_the_one_to_be_replaced_next() -> None:
    axes = torch.eye(4)
    queries = axes[:1].expand(2, 4)
    method = SimpleNamespace(
        query=lambda images, parts: queries, parts_of=lambda batch: 1, config=SimpleNamespace(temperature=0.1),
        queue=torch.stack([axes[1], axes[1], axes[0], axes[0]]), queue_position=torch.tensor(2),
    )  # fmt: skip
    found = told(cast(Any, method), Batch((torch.zeros(2, 1),), torch.arange(2)), torch.stack([axes[0], axes[2]]))
    assert found[2:] == [0.5, 0.5, 0.0, 1.0]
