"""MAE as a third party writes it: one file, no change to the core; checked, trained, resumed and tabulated."""

from __future__ import annotations

import json
import os
import signal
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file

from ssl_bench import registry
from ssl_bench.method import Batch, Progress
from ssl_bench.runs.display import TerminalDisplay
from ssl_bench.testing import run_checks
from ssl_bench.training.loop import StepReport
from ssl_bench_plugins.backbones.deit import DeitTi16, ViTSettings
from tests.conftest import Command
from tests.plugins.mae import MAE, MAESettings, masked_loss, patch_pixels, sines_and_cosines
from tests.toy import write_image_folder

SETTINGS = ("backbone.depth=1", "backbone.dim=32", "backbone.patch_px=8", "training.precision=fp32")
SMALL = ["--arch", "deit_ti16", "--batch-size", "8", *(word for value in SETTINGS for word in ("--set", value))]


@pytest.fixture
def mae_bench(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """The distribution mae-bench 1.0 with the one file, as pip would install it."""
    info = tmp_path / "site" / "mae_bench-1.0.dist-info"
    info.mkdir(parents=True)
    (info / "METADATA").write_text("Metadata-Version: 2.1\nName: mae-bench\nVersion: 1.0\n")
    (info / "entry_points.txt").write_text("[ssl_bench.methods.v1]\nmae = outside_mae:MAE\n")
    (tmp_path / "site" / "outside_mae.py").write_text(Path(__file__).with_name("mae.py").read_text())
    monkeypatch.syspath_prepend(str(tmp_path / "site"))
    registry.refresh()
    yield
    registry.refresh()
    sys.modules.pop("outside_mae", None)


def test_every_check_holds() -> None:
    found = run_checks("method", MAE)
    assert [(one.name, one.message) for one in found if one.outcome == "failed"] == []
    assert sum(one.outcome == "ok" for one in found) >= 20


def test_pixels_of_patches() -> None:
    """Two rows of three patches of 2 px, each value named by where it lies."""
    y, x, color = torch.meshgrid(torch.arange(4), torch.arange(6), torch.arange(3), indexing="ij")
    image = (100 * y + 10 * x + color).permute(2, 0, 1)[None]
    found = patch_pixels(image, 2)
    assert found.shape == (1, 6, 12)
    assert found[0, 4].tolist() == [220, 221, 222, 230, 231, 232, 320, 321, 322, 330, 331, 332]


def test_the_loss_is_the_mean_over_masked_patches() -> None:
    """Patch by patch: (x - mean) / sqrt(sum of squares / (n - 1) + 1e-6)."""
    torch.manual_seed(0)
    predictions, pixels = torch.randn(2, 3, 12, dtype=torch.float64), torch.randn(2, 3, 12, dtype=torch.float64)
    masked = torch.tensor([[True, False, True], [False, False, True]])
    errors = []
    for image, patch in masked.nonzero().tolist():
        values = pixels[image, patch].tolist()
        mean = sum(values) / 12
        spread = (sum((value - mean) ** 2 for value in values) / 11 + 1e-6) ** 0.5
        wanted = [(value - mean) / spread for value in values]
        pairs = zip(predictions[image, patch].tolist(), wanted, strict=True)
        errors.append(sum((one - other) ** 2 for one, other in pairs) / 12)
    assert float(masked_loss(predictions, pixels, masked)) == pytest.approx(sum(errors) / 3, abs=1e-12)


def test_the_position_table() -> None:
    """Row 1, column 2 of 3 x 3 in 8 dimensions: sines and cosines of 1 and 1 / 100, then of 2 and 2 / 100."""
    table = sines_and_cosines(3, 8)
    angles = torch.tensor([1.0, 0.01, 2.0, 0.02])
    expected = torch.cat([angles[:2].sin(), angles[:2].cos(), angles[2:].sin(), angles[2:].cos()])
    torch.testing.assert_close(table[1 * 3 + 2], expected)


def test_the_encoder_sees_kept_patches_only() -> None:
    torch.manual_seed(0)
    config = MAESettings(crop_px=32, patch_px=8, decoder_dim=16, decoder_depth=1, decoder_heads=2)
    method = MAE(config, lambda **_: DeitTi16(ViTSettings(patch_px=8, dim=32, depth=1, heads=2), image_px=32))
    lengths: list[int] = []
    method.encoder.network.blocks[0].norm1.register_forward_pre_hook(  # type: ignore[union-attr]
        lambda _, given: lengths.append(given[0].shape[1])
    )
    images, order = torch.randn(3, 3, 32, 32), torch.stack([torch.randperm(16) for _ in range(3)])
    method.step(Batch((images, order), torch.arange(3)), Progress(0, 10, 0, 1))
    assert lengths == [1 + 4]  # CLS and a quarter of 16 patches


def test_it_trains_resumes_bitwise_and_stands_in_a_table(
    sslbench: Command, mae_bench: None, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    data = write_image_folder(tmp_path / "tints", train=12, test=6, px=32)
    arguments = ["run", "mae", *SMALL, "--data", str(data), "--epochs", "2", "--with", "knn"]
    status, out, err = sslbench(*arguments, "--run-id", "whole")
    assert status == 0, out + err

    def stop(self: Any, report: StepReport) -> None:
        if report.step == 3:
            os.kill(os.getpid(), signal.SIGUSR1)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(TerminalDisplay, "step", stop)
        assert sslbench(*arguments, "--run-id", "cut")[0] != 0
    runs = tmp_path / "results" / "runs"
    assert not (runs / "cut" / "weights.safetensors").exists()
    status, out, err = sslbench("run", "--resume", str(runs / "cut"))
    assert status == 0, out + err
    one, other = (load_file(runs / name / "weights.safetensors") for name in ("whole", "cut"))
    assert [name for name in one if not torch.equal(one[name], other[name])] == []
    assert not [name for name in one if "mask" in name or "decoder" in name]  # the architecture's own weights

    record = json.loads((runs / "whole" / "record.json").read_text())
    assert record["method_plugin"] == "mae-bench 1.0"
    status, out, err = sslbench("table")
    assert status == 0, out + err
    assert "| mae    | deit_ti16 |" in out


def test_a_convolutional_network_is_refused_before_anything_is_trained(
    sslbench: Command, mae_bench: None, tmp_path: Path
) -> None:
    data = write_image_folder(tmp_path / "tints", train=12, test=6, px=32)
    status, _, err = sslbench("run", "mae", "--arch", "resnet18", "--data", str(data), "--batch-size", "8")
    assert status == 2
    assert "needs masking, which resnet18 does not have" in err
    assert not list(tmp_path.glob("results/runs/*"))
