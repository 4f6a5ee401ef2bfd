"""What every method's training logs at each step, in fp32 and in bf16, and that its parts add up."""

from __future__ import annotations

import math
from pathlib import Path

import pytest
import torch
from torch._subclasses.fake_tensor import FakeTensor, FakeTensorMode

from ssl_bench import registry
from ssl_bench.recipes.request import Request
from ssl_bench.recipes.resolve import resolve
from ssl_bench.training.loop import train
from ssl_bench.training.metrics_log import logged_steps, sent_to_host
from ssl_bench.training.state import TrainingState
from tests.contract.test_resume import METHODS, NETWORKS, parts
from tests.toy import write_image_folder

EVERY_STEP = {"step", "epoch", "loss", "lr", "weight_decay", "gradient_norm"}
WITH_PARTS = ("dino", "swav")
"""Methods whose loss is a cross-entropy with a target that moves."""
ENTROPIES = ("teacher_entropy", "code_entropy")


@pytest.fixture(scope="module")
def images(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_image_folder(tmp_path_factory.mktemp("data") / "tints", train=8, test=2, px=32)


@pytest.mark.parametrize("precision", ["fp32", "bf16"])
@pytest.mark.parametrize("method", METHODS)
def test_every_step_has_loss_schedule_and_gradient_and_entropy_plus_divergence_is_the_cross_entropy(
    images: Path, tmp_path: Path, method: str, precision: str
) -> None:
    values = NETWORKS["deit_ti16"] | {"training.batch_size": 8, "training.epochs": 1}
    if "local_views" in registry.method(method).Config.model_fields:
        values["method.local_views"] = 1
    resolved = resolve(Request(method=method, arch="deit_ti16", data=str(images), values=values))
    dtype = torch.bfloat16 if precision == "bf16" else None
    trained, views, optimizer, plan = parts(resolved, tmp_path / "run", dtype)
    train(trained, views, optimizer, plan, TrainingState())
    rows = list(logged_steps(tmp_path / "run"))
    assert len(rows) == plan.total_steps
    for row in rows:
        assert set(row) >= EVERY_STEP
        assert all(math.isfinite(value) for value in row.values())
        assert row["gradient_norm"] > 0
        assert ("kl" in row) == (method in WITH_PARTS)
        if "kl" in row:
            entropy = next(row[name] for name in ENTROPIES if name in row)
            assert row.get("cross_entropy", row["loss"]) == pytest.approx(entropy + row["kl"], abs=1e-5)
    assert rows[0]["feature_spread"] > 0


def test_values_on_the_host_are_exact() -> None:
    values = {"a": torch.tensor(1 / 3), "b": torch.tensor(1 / 3, dtype=torch.float64), "c": torch.tensor(7)}
    assert sent_to_host(values)() == {name: float(value) for name, value in values.items()}
    assert list(sent_to_host(values)()) == ["a", "b", "c"]
    assert sent_to_host({})() == {}


def test_values_on_a_card_wait_for_what_was_launched_before_alone(monkeypatch: pytest.MonkeyPatch) -> None:
    """Fake tensors on a card and a mock of its events: that a copy really does not wait is torch's promise."""
    called: list[object] = []

    class Event:
        def record(self, stream: object) -> None:
            called.append(("record", stream))

        def synchronize(self) -> None:
            called.append("synchronize")

    monkeypatch.setattr(torch.cuda, "Event", Event)
    monkeypatch.setattr(torch.cuda, "current_stream", str)
    monkeypatch.setattr(FakeTensor, "tolist", lambda values: called.append("read") or [0.5] * len(values))
    with FakeTensorMode():
        read = sent_to_host({"loss": torch.ones((), device="cuda"), "norm": torch.ones((), device="cuda")})
        assert called == [("record", "cuda:0")]
        assert read() == {"loss": 0.5, "norm": 0.5}
    assert called[1:] == ["synchronize", "read"]
