"""The comparison with lightly's building blocks: twins start from the same backbone, and a pair is measured in full."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch

from benchmarks.peers.lightly_training import TWINS, compare, main, table
from ssl_bench import registry
from ssl_bench.errors import UserError
from ssl_bench.method import evaluated_network
from ssl_bench.recipes.request import Request
from ssl_bench.recipes.resolve import Resolved, resolve
from ssl_bench.runs.building import build_method
from ssl_bench.runs.display import TerminalDisplay
from ssl_bench.runs.folder import Start
from ssl_bench.runs.runner import run
from tests.toy import write_image_folder

HEADS = {
    "simclr": {"method.out_dim": 8},
    "byol": {"method.hidden_dim": 16, "method.out_dim": 8},
    "dino": {"method.hidden_dim": 16, "method.out_dim": 16, "method.bottleneck_dim": 8, "method.local_views": 1},
}


@pytest.fixture(scope="module")
def data(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_image_folder(tmp_path_factory.mktemp("data") / "tints", train=20, test=10, px=16)


def small(method: str, data: Path, **values: Any) -> Resolved:
    shared = {"backbone.depth": 1, "backbone.dim": 32, "backbone.patch_px": 8, "training.precision": "fp32"}
    shared |= {"training.epochs": 1, "training.batch_size": 8}
    return resolve(Request(method, "deit_ti16", str(data), evaluators=("knn",), values=shared | HEADS[method] | values))


@pytest.mark.parametrize("name", sorted(TWINS))
def test_a_twin_starts_from_the_same_backbone_and_trains_as_many_heads(name: str, data: Path) -> None:
    resolved = small(name, data)
    built = []
    for candidate in (resolved, replace(resolved, method=registry.method(f"lightly-{name}"))):
        torch.manual_seed(0)
        built.append(build_method(candidate))
    ours, theirs = (evaluated_network(one).state_dict() for one in built)
    assert ours.keys() == theirs.keys()
    assert all(torch.equal(ours[key], theirs[key]) for key in ours)
    matrices = [sorted(p.numel() for p in one.parameters() if p.requires_grad and p.ndim > 1) for one in built]
    assert matrices[0] == matrices[1]


@pytest.mark.parametrize("name", sorted(TWINS))
def test_a_pair_is_measured_and_written_once(name: str, data: Path, tmp_path: Path, capsys: Any) -> None:
    folder = tmp_path / "runs" / name
    with TerminalDisplay() as display:
        record = run(small(name, data), Start(folder, False, "sslbench run"), display)
    pair = compare(folder, tmp_path / "peers")
    assert json.loads((tmp_path / "peers" / f"lightly-{name}.json").read_text()) == json.loads(json.dumps(pair))
    assert pair["digest"] == record.digest
    assert pair["n"] == 20
    measured = {m.metric: m.value for e in record.evaluations if e.subject == "trained" for m in e.measurements}
    assert pair["ours"] == measured["top1_k20"]
    assert pair["difference"] == pytest.approx(pair["ours"] - pair["lightly"])
    assert pair["final_logs"]["lightly"].keys() >= {"loss", "lr"}
    assert f"{pair['difference']:+.1f}" in table([pair])
    with pytest.raises(UserError, match="exists; remove it"):
        compare(folder, tmp_path / "peers")


def test_only_a_run_with_a_twin_is_taken(data: Path, tmp_path: Path, capsys: Any) -> None:
    (tmp_path / "nothing").mkdir()
    assert main([str(tmp_path / "nothing")]) == 2
    assert "record.json" in capsys.readouterr().err
