"""A method with a memory, a pass before training and clusters between epochs needs no change of the core."""

from __future__ import annotations

import json
import math
import os
import signal
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file
from torch.nn.functional import normalize

from ssl_bench import registry
from ssl_bench.method import Batch, Progress
from ssl_bench.recipes.request import Request
from ssl_bench.recipes.resolve import Resolved, resolve
from ssl_bench.runs import runner
from ssl_bench.runs.folder import Start
from ssl_bench.testing.checking import run_checks
from ssl_bench.training.loop import StepReport, Stopped
from tests.conftest import Command
from tests.plugins.deepcluster_like import UNKNOWN, DeepCluster, spherical_kmeans
from tests.toy import ToyBackbone, write_image_folder

VALUES = {
    "backbone.width": 0.125, "training.precision": "fp32", "training.batch_size": 8, "training.epochs": 3,
    "evaluators.knn.neighbors": [3], "evaluators.knn.reported": 3, "machine.workers": 0,
}  # fmt: skip


@pytest.fixture
def installed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    info = tmp_path / "cluster_bench-1.0.dist-info"
    info.mkdir()
    (info / "METADATA").write_text("Metadata-Version: 2.1\nName: cluster-bench\nVersion: 1.0\n")
    (info / "entry_points.txt").write_text(
        "[ssl_bench.methods.v1]\ndeepcluster = tests.plugins.deepcluster_like:DeepCluster\n"
    )
    monkeypatch.syspath_prepend(str(tmp_path))
    registry.refresh()
    yield
    sys.path.remove(str(tmp_path))
    registry.refresh()


def recipe(images: Path) -> Resolved:
    return resolve(Request(method="deepcluster", arch="resnet18", data=str(images), evaluators=("knn",), values=VALUES))


class Display:
    def __init__(self, stop_after: int | None = None) -> None:
        self.stop_after = stop_after

    def line(self, label: str, text: str) -> None:
        pass

    def say(self, text: str) -> None:
        pass

    def step(self, report: StepReport) -> None:
        if report.step == self.stop_after:
            os.kill(os.getpid(), signal.SIGINT)


def test_it_passes_the_checks() -> None:
    results = run_checks("method", DeepCluster)
    assert [(one.name, one.message) for one in results if one.outcome == "failed"] == []
    skipped = {one.name for one in results if one.outcome == "skipped"}
    assert "prepare moves nothing that is trained" not in skipped


def test_it_trains_resumes_bitwise_and_is_tabulated(installed: None, sslbench: Command, tmp_path: Path) -> None:
    images = write_image_folder(tmp_path / "tints", train=9, test=4, px=16)  # 18 images, 2 dropped in each epoch
    runs = tmp_path / "results" / "runs"
    whole = runner.run(recipe(images), Start(runs / "whole", False, "test"), Display())
    assert whole.status == "finished"
    assert whole.method_plugin == "cluster-bench 1.0"
    with pytest.raises(Stopped):
        runner.run(recipe(images), Start(runs / "cut", False, "test"), Display(stop_after=3))
    (checkpoint,) = (runs / "cut" / "checkpoints").iterdir()
    saved = load_file(checkpoint / "method.safetensors")
    assert saved["memory"].any(dim=2).all(), "the pass before step 0 saw the images that the first epoch dropped"
    assert (saved["assignments"] >= 0).all()
    runner.run(recipe(images), Start(runs / "cut", True, "test"), Display())
    ours, theirs = (load_file(runs / name / "weights.safetensors") for name in ("whole", "cut"))
    assert all(torch.equal(ours[name], theirs[name]) for name in ours)
    losses = [json.loads(line)["loss"] for line in (runs / "whole" / "metrics.jsonl").read_text().splitlines()]
    assert len(losses) == 6
    assert sslbench("table", "--results", str(tmp_path / "results"))[0] == 0
    assert "deepcluster" in (tmp_path / "results" / "tables" / "comparison.md").read_text()


def test_kmeans_is_the_one_written_slowly() -> None:
    rows = normalize(torch.rand(40, 5, dtype=torch.float64, generator=torch.Generator().manual_seed(0)), dim=1)
    start = torch.cat([rows[:4], -rows[:1]])  # all cosines of rows are positive: the last cluster stays empty
    centers, assigned = spherical_kmeans(rows, start, 10)
    slow = [row.clone() for row in start]
    for _ in range(10):
        nearest = [max(range(5), key=lambda k, row=row: float(row @ slow[k])) for row in rows]
        for k in range(5):
            members = [row for row, cluster in zip(rows, nearest, strict=True) if cluster == k]
            if members:
                total = torch.stack(members).sum(dim=0)
                slow[k] = total / total.norm()
    assert torch.allclose(centers, torch.stack(slow), atol=1e-12)
    assert torch.equal(centers[4], start[4]), "an empty cluster keeps its center"
    assert assigned.tolist() == [max(range(5), key=lambda k, row=row: float(row @ slow[k])) for row in rows]


def test_the_loss_is_the_cross_entropy_of_every_crop_and_head_without_unknown_images() -> None:
    torch.manual_seed(0)
    config = DeepCluster.Config(images=6, crop_px=8, prototypes=(3, 2), hidden_dim=8, dim=4)
    method = DeepCluster(config, lambda drop_path=0.0: ToyBackbone()).eval()
    method.prototypes.normal_()
    method.assignments.copy_(torch.tensor([[0, 1, 2, UNKNOWN, 0, 1], [1, 0, 1, UNKNOWN, 0, 0]]))
    batch = Batch((torch.randn(4, 3, 8, 8), torch.randn(4, 3, 8, 8)), torch.tensor([5, 3, 0, 2]))
    embeddings = [normalize(method.projector(method.backbone(view)).detach(), dim=1) for view in batch.views]
    losses = []
    for head, clusters in enumerate((3, 2)):
        terms = []
        for crop in embeddings:
            for row, image in zip(crop, batch.index.tolist(), strict=True):
                if image != 3:
                    scores = [float(row @ method.prototypes[head, k]) / 0.1 for k in range(clusters)]
                    total = math.log(sum(math.exp(score) for score in scores))
                    terms.append(total - scores[int(method.assignments[head, image])])
        losses.append(sum(terms) / len(terms))
    loss = method.step(batch, Progress(0, 8, 0, 2)).loss
    assert loss.item() == pytest.approx(sum(losses) / 2, rel=1e-5)
    assert not method.prototypes.requires_grad


def test_clusters_are_found_after_the_last_step_of_an_epoch_only() -> None:
    torch.manual_seed(0)
    config = DeepCluster.Config(images=4, crop_px=8, prototypes=(2,), hidden_dim=8, dim=4)
    method = DeepCluster(config, lambda drop_path=0.0: ToyBackbone())
    rows = normalize(torch.tensor([[1.0, 0, 0, 0], [1, 0.1, 0, 0], [0, 0, 1, 0], [0, 0, 1, 0.1]]), dim=1)
    carry = {"index": torch.tensor([2, 0, 3, 1]), "embeddings": rows[[2, 0, 3, 1]].unsqueeze(1).expand(-1, 2, -1)}
    method.update(carry, Progress(2, 8, 0, 2))
    assert torch.equal(method.memory[0], rows)
    assert (method.assignments == UNKNOWN).all()
    torch.manual_seed(1)
    method.update(carry, Progress(3, 8, 0, 2))
    first, second, third, fourth = method.assignments[0].tolist()
    assert {first, second, third, fourth} <= {0, 1}
    assert (first, third) == (second, fourth)
