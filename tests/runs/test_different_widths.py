"""A method whose networks have different widths: trained, evaluated by epoch, resumed; the wide one is evaluated."""

from __future__ import annotations

import json
import signal
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any, ClassVar

import pytest
import torch
from safetensors.torch import load_file
from torch import Tensor, nn

from ssl_bench import registry
from ssl_bench.backbone import Backbone
from ssl_bench.blocks.views import Crop, MultiCrop
from ssl_bench.method import Batch, Method, Preset, Progress, StepOutput
from ssl_bench.settings import Settings
from ssl_bench.testing import CheckFailed, checks_of
from tests.conftest import Command
from tests.toy import ToyBackbone, write_image_folder


class Narrow(ToyBackbone):
    """Two features instead of the architecture's."""

    def __init__(self, *, image_px: int) -> None:
        super().__init__(image_px=image_px)
        self.feature_dim = 2
        self.layers = nn.Sequential(nn.Flatten(), nn.Linear(3 * image_px**2, 2))


class Distilled(Method):
    """widths: a narrow network learns what a wide one sees (unpublished)."""

    class Config(Settings):
        """None."""

    presets: ClassVar = {"paper": Preset("", {"optimizer.base_lr": 1e-3})}
    first = "wide"

    def __init__(self, config: Any, make_backbone: Any) -> None:
        super().__init__(config, make_backbone)
        self.wide = make_backbone()
        self.narrow = Narrow(image_px=self.wide.image_px)
        self.lift = nn.Linear(2, self.wide.feature_dim)

    @classmethod
    def make_views(cls, config: Any) -> Any:
        return MultiCrop([(Crop(32, (0.5, 1.0)), 2)])

    def step(self, batch: Batch, progress: Progress) -> StepOutput:
        wide: Tensor = self.wide(batch.views[0])
        lifted = self.lift(self.narrow(batch.views[1]))
        return StepOutput((lifted - wide.detach()).square().mean() + (wide.std(dim=0) - 1).square().mean())

    def networks(self) -> dict[str, Backbone]:
        both = {"wide": self.wide, "narrow": self.narrow}
        return dict(sorted(both.items(), key=lambda pair: pair[0] != self.first))


class NarrowFirst(Distilled):
    """narrow_first: names the narrow network first (unpublished)."""

    first = "narrow"


@pytest.fixture(autouse=True)
def installed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    info = tmp_path / "widths-1.0.dist-info"
    info.mkdir()
    (info / "METADATA").write_text("Metadata-Version: 2.1\nName: widths\nVersion: 1.0\n")
    plugins = f"widths = {__name__}:Distilled\nnarrow_first = {__name__}:NarrowFirst\n"
    (info / "entry_points.txt").write_text(f"[ssl_bench.methods.v1]\n{plugins}")
    monkeypatch.syspath_prepend(str(tmp_path))
    registry.refresh()
    yield
    sys.path.remove(str(tmp_path))
    registry.refresh()


def words(method: str, folder: Path) -> list[str]:
    if not folder.exists():
        write_image_folder(folder, train=12, test=6, px=32)
    settings = ("backbone.depth=1", "backbone.dim=32", "backbone.patch_px=8", "training.precision=fp32")
    given = ["run", method, "--arch", "deit_ti16", "--data", str(folder), "--batch-size", "8", "--with", "knn"]
    return [*given, *(word for value in settings for word in ("--set", value))]


def test_both_are_trained_and_evaluated_by_epoch_and_resume_bitwise(
    sslbench: Command, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    arguments = [*words("widths", tmp_path / "tints"), "--epochs", "2", "--eval-every", "1"]
    status, out, err = sslbench(*arguments, "--run-id", "whole")
    assert status == 0, out + err

    def stop(self: Any, report: Any) -> None:
        if report.step == 4:
            signal.raise_signal(signal.SIGINT)

    with monkeypatch.context() as patch:
        patch.setattr("ssl_bench.runs.display.TerminalDisplay.step", stop)
        assert sslbench(*arguments, "--run-id", "cut")[0] == 130
    runs = tmp_path / "results" / "runs"
    status, out, err = sslbench("run", "--resume", runs / "cut")
    assert status == 0, out + err
    one, other = (load_file(runs / name / "weights.safetensors") for name in ("whole", "cut"))
    assert [name for name in one if not torch.equal(one[name], other[name])] == []
    curves = [json.loads((runs / name / "record.json").read_text())["curves"]["summaries"] for name in ("whole", "cut")]
    assert curves[0] == curves[1]
    assert [(one["network"], one["points"]) for one in curves[0]] == [("wide", 2), ("narrow", 2)]
    status, out, err = sslbench("eval", "whole", "--set", "evaluators.knn.temperature=0.5")
    assert status == 0, out + err  # the wide one's weights load into the architecture


def test_a_first_network_of_another_width_is_refused_before_training(sslbench: Command, tmp_path: Path) -> None:
    status, _, err = sslbench(*words("narrow_first", tmp_path / "tints"))
    assert status == 2
    assert "evaluates its network 'narrow', which is not deit_ti16 as make_backbone() builds it" in err
    assert not (tmp_path / "results").exists()
    check = next(one for one in checks_of("method") if one.name == "networks are parts of the method")
    with pytest.raises(CheckFailed, match="names 'narrow' first"):
        check(NarrowFirst)
    check(Distilled)
