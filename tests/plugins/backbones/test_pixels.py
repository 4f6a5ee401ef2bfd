"""Raw pixels: the features of a definition written slowly, a run that evaluates them, and what cannot be done."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch

from ssl_bench.records.reading import read_record
from ssl_bench_plugins.backbones.pixels import Pixels
from tests.conftest import Command
from tests.toy import write_image_folder


def test_features_are_the_means_of_areas() -> None:
    images = torch.rand(2, 3, 12, 12)
    found = Pixels(Pixels.Config(side_px=4), image_px=12)(images)
    expected = torch.stack(
        [
            images[:, channel, 3 * row : 3 * row + 3, 3 * column : 3 * column + 3].mean(dim=(1, 2))
            for channel in range(3) for row in range(4) for column in range(4)
        ],
        dim=1,
    )  # fmt: skip
    assert torch.allclose(found, expected, atol=1e-6)
    small = torch.rand(2, 3, 8, 8)
    assert torch.equal(Pixels(Pixels.Config(), image_px=8)(small), small.flatten(1)), "small images as they are"


def test_a_run_evaluates_them_and_a_method_cannot_train_them(sslbench: Command, tmp_path: Path) -> None:
    data = write_image_folder(tmp_path / "birds", train=12, test=3)
    common = ("--arch", "pixels", "--data", data, "--with", "knn", "--set", "data.image_px=16")
    status, _, err = sslbench("run", "random", *common, "--run-id", "floor")
    assert (status, err) == (0, "")
    record = read_record(tmp_path / "results/runs/floor/record.json")
    assert (record.backbone.parameters, record.status) == (0, "finished")
    assert record.evaluations[0].measurements[0].value > 50, "the two classes of this set differ in color"
    status, out, _ = sslbench("table", "comparison")
    assert status == 0
    assert "| random | pixels |" in out
    status, _, err = sslbench("run", "simclr", *common, "--epochs", "1", "--set", "training.batch_size=4")
    assert status == 2
    assert "pixels has no weights, so 'simclr' cannot train it. Evaluate it with: sslbench run random" in err
    assert [path.name for path in (tmp_path / "results/runs").iterdir()] == ["floor"], "nothing was begun"


@pytest.mark.parametrize("image_px", [8, 33, 64])
def test_the_length_is_the_same_for_all_large_images(image_px: int) -> None:
    network = Pixels(Pixels.Config(), image_px=image_px)
    assert network(torch.rand(1, 3, image_px, image_px)).shape == (1, network.feature_dim)
    assert network.feature_dim == 3 * min(32, image_px) ** 2
