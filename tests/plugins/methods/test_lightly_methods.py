"""Methods made of lightly's blocks: the parts that `update` moves against lightly's own, the contract, and refusals."""

from __future__ import annotations

import contextlib
from pathlib import Path
from typing import Any

import pytest
import torch
from torch.nn.functional import normalize

from ssl_bench import registry
from ssl_bench.errors import UserError
from ssl_bench.recipes.request import Request
from ssl_bench.recipes.resolve import resolve
from ssl_bench.registry import extras
from ssl_bench.testing.checking import checks_of
from ssl_bench.testing.outcomes import CheckSkipped
from tests.conftest import Command
from tests.methods import INSTALLED
from tests.toy import write_image_folder

LIGHTLY = [name for name in INSTALLED if name.startswith("lightly-")]
needs_lightly = pytest.mark.skipif(not LIGHTLY, reason="lightly is not installed")


@pytest.fixture(scope="module")
def data(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_image_folder(tmp_path_factory.mktemp("data") / "tints", train=20, test=4, px=32)


CHECKS = (
    "views have one shape for every image",
    "views depend only on their random numbers",
    "views reach worker processes",
    "every trained parameter gets a gradient",
    "step moves no state",
    "state moves in update",
    "state is saved and restored bit for bit",
)
"""Those that lightly's blocks would fail as they are, or nearly; all of them take `sslbench check` half a minute."""


@pytest.mark.parametrize("name", LIGHTLY)
def test_the_contract_is_kept(name: str) -> None:
    checks = {check.name: check for check in checks_of("method")}
    for one in CHECKS:
        with contextlib.suppress(CheckSkipped):
            checks[one](registry.method(name))


@needs_lightly
def test_the_queue_is_lightlys_memory_bank() -> None:
    """Losses over five batches and a queue of two and a half, where lightly's loss moves its bank itself."""
    from lightly.loss import NTXentLoss

    from ssl_bench_plugins.methods.lightly_two_views import Queue

    theirs, ours = NTXentLoss(0.2, memory_bank_size=(10, 6)), NTXentLoss(0.2)
    ours.memory_bank = Queue((10, 6))
    ours.load_state_dict({"memory_bank.bank": theirs.memory_bank.bank, "memory_bank.bank_ptr": torch.zeros(1)})
    generator = torch.Generator().manual_seed(0)
    for _ in range(5):
        queries = torch.randn(4, 6, generator=generator, requires_grad=True)
        keys = normalize(torch.randn(4, 6, generator=generator), dim=1)
        before = ours.memory_bank.bank.clone()
        loss = ours(queries, keys)
        assert torch.equal(ours.memory_bank.bank, before)
        assert loss.item() == pytest.approx(theirs(queries, keys).item(), rel=1e-6)
        ours.memory_bank.enqueue(keys)
        assert torch.allclose(ours.memory_bank.bank, theirs.memory_bank.bank)


@needs_lightly
def test_the_center_is_lightlys() -> None:
    from lightly.loss import DINOLoss

    from ssl_bench_plugins.methods.lightly_multi_crop import StillDINOLoss

    theirs, ours = DINOLoss(5), StillDINOLoss(5)
    generator = torch.Generator().manual_seed(0)
    for _ in range(3):
        teacher, student = torch.randn(2, 3, 5, generator=generator), torch.randn(4, 3, 5, generator=generator)
        center = ours.center.clone()
        loss = ours(list(teacher), list(student))
        assert torch.equal(ours.center, center)
        assert torch.equal(loss, theirs(list(teacher), list(student)))
        ours.move_center(teacher)
        assert torch.equal(ours.center, theirs.center)
        assert bool(ours.center.any())


@needs_lightly
@pytest.mark.parametrize(
    ("method", "setting", "value", "other"),
    [
        ("simclr", "scale", (0.2, 0.9), ""),
        ("byol", "scale", (0.2, 0.9), ""),
        ("mocov2", "crop_scale", (0.2, 0.9), ""),
        ("mocov2", "batch_norm_splits", 2, "1"),
        ("swav", "queue_size", 16, "0"),
        ("dino", "predictor", True, "false"),
        ("dino", "assignment", "sinkhorn", "centering"),
        ("dino", "head_layers", 2, "3"),
    ],
)
def test_what_lightlys_blocks_lack_is_refused(data: Path, method: str, setting: str, value: Any, other: str) -> None:
    values = {"training.batch_size": 8, f"method.{setting}": value}
    with pytest.raises(UserError, match=rf"lightly's .*run {method}") as error:
        resolve(Request(f"lightly-{method}", "resnet18", str(data), values=values))
    assert not other or f"--set method.{setting}={other}" in str(error.value)


@needs_lightly
def test_a_run_is_recorded_and_tabulated(sslbench: Command, data: Path) -> None:
    narrow = ("--set", "backbone.depth=1", "--set", "backbone.dim=32", "--set", "backbone.heads=2")
    quick = ("--set", "training.precision=fp32", "--epochs", "1", "--batch-size", "8", "--with", "knn")
    status, _, err = sslbench("run", "lightly-simclr", "--arch", "deit_ti16", "--data", data, *narrow, *quick)
    assert status == 0, err
    status, out, _ = sslbench("table")
    assert status == 0
    assert "lightly-simclr" in out


def test_without_lightly_the_extra_is_named(sslbench: Command, data: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(extras, "_is_installed", lambda name: name != "lightly")
    status, out, _ = sslbench("list", "methods")
    assert status == 0
    rows = [line for line in out.splitlines() if line.strip().startswith("lightly-")]
    assert len(rows) == 5
    assert all(line.endswith("(needs pip install 'sslbench[lightly]')") for line in rows)
    status, out, err = sslbench("run", "lightly-byol", "--arch", "resnet18", "--data", data)
    assert (status, out) == (2, "")
    assert err.count("\n") == 1
    assert "'lightly-byol' needs packages that are not installed: pip install 'sslbench[lightly]'" in err


def test_extras_of_an_entry_point_are_read_from_metadata(monkeypatch: pytest.MonkeyPatch) -> None:
    assert extras.split_extras("a.b:C [x, y-z]") == ("a.b:C", ("x", "y-z"))
    assert extras.split_extras("a.b:C") == ("a.b:C", ())
    lines = ["torch>=2", "lightly>=1.5; extra == 'x'", 'missing_thing ; python_version > "3" and extra == "y"']
    monkeypatch.setattr(extras, "requirements", lambda name: lines)
    monkeypatch.setattr(extras, "_is_installed", lambda name: name != "missing_thing")
    assert extras.install_line("some", ("x",)) == ""
    assert extras.install_line("some", ("x", "y")) == "pip install 'some[y]'"
