"""The logic of the GPU check, with the CPU or a stand-in in place of a card: says nothing of a card itself."""

from __future__ import annotations

import json
import sys
from collections.abc import Callable
from dataclasses import replace
from functools import partial
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import torch

from benchmarks.gpu_check import __main__ as script
from benchmarks.gpu_check import agreement, evaluations, memory, noise, speed, training, whole_run
from benchmarks.gpu_check.checks import Architecture, Bench, Check, Sizes, attempt
from benchmarks.gpu_check.report import markdown, write
from benchmarks.performance import dino_step
from ssl_bench.datasets.shapes.dataset import Shapes
from ssl_bench.method import Batch, Method, Progress, StepOutput
from ssl_bench.planning.choices import Choice, Way
from ssl_bench.planning.step_memory import StepMemory
from ssl_bench.runs.device_name import device_name
from ssl_bench.runs.predicting import StepPredictor
from ssl_bench.training import loop
from ssl_bench.training.micro_batches import Passes
from tests.fake_cuda import PASCAL, fake_cuda

TINY = Architecture("deit_ti16", {f"backbone.{key}": value for key, value in
                                  {"depth": 1, "dim": 32, "heads": 2, "patch_px": 8}.items()})  # fmt: skip
BENCH = Bench(
    torch.device("cpu"),
    Sizes((TINY,), image_px=32, batch=4, steps=2, test_images=20, bank=100, queries=20, turns=1, methods=("simclr",)),
)


def steps_with(*logs: dict[str, float], skipped: int = 0) -> Callable[..., None]:
    """In place of `training.run`: these steps, of which so many were skipped."""

    def run(
        request: object, bench: Bench, folder: Path, report: Callable[[object], None], dtype: object, state: Any
    ) -> None:
        state.scaling.skipped_steps = skipped
        for one in logs:
            state.step += 1
            report(SimpleNamespace(logs=one, step=state.step, total_steps=len(logs)))

    return run


def only(checks: object) -> Check:
    (found,) = checks  # type: ignore[misc]
    assert isinstance(found, Check)
    return found


def test_a_method_trains_through_the_shared_loop() -> None:
    found, fp16, bf16 = training.checks(Bench(BENCH.device, replace(BENCH.sizes, steps=8)))  # fp16 skips the first six
    assert (found.part, found.name, found.passed) == ("training", "simclr on deit_ti16", True)
    assert [(one.name, one.passed) for one in (fp16, bf16)] == [
        ("simclr on deit_ti16, fp16", True),
        ("simclr on deit_ti16, bf16", True),
    ]
    assert "8 steps of 4 images" in found.words
    assert found.figures["images_per_second"] > 0


def test_a_loss_that_is_no_number_fails(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(training, "run", steps_with({"loss": 1.0}, {"loss": float("nan")}))
    assert [found.passed for found in training.checks(BENCH)] == [False] * 3
    monkeypatch.setattr(training, "run", steps_with({"loss": 1.0}, {}))  # an infinite loss in fp16
    assert [found.passed for found in training.checks(BENCH)] == [False] * 3


def test_steps_that_all_overflow_fail(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(training, "run", steps_with({"loss": 1.0}, {"loss": 1.0}, skipped=1))
    assert [found.passed for found in training.checks(BENCH)] == [True] * 3
    monkeypatch.setattr(training, "run", steps_with({"loss": 1.0}, {"loss": 1.0}, skipped=2))
    assert {(found.passed, "2 steps skipped because gradients overflowed" in found.words)
            for found in training.checks(BENCH)} == {(False, True)}  # fmt: skip


def test_nothing_is_saved(monkeypatch: pytest.MonkeyPatch) -> None:
    saved: list[object] = []
    monkeypatch.setattr(loop, "save_checkpoint", lambda *given, **more: saved.append(given))
    for seconds in (0.0, 60.0):
        bench = Bench(BENCH.device, replace(BENCH.sizes, seconds_each=seconds))
        assert training.train_some("simclr", TINY, bench, "simclr").passed
    assert saved == []


@pytest.mark.parametrize("part", [training, agreement, memory])
def test_a_method_without_training_has_no_verdict(part: object) -> None:
    bench = Bench(BENCH.device, Sizes((TINY,), image_px=32, batch=4, planned_batch=4, steps=2, methods=("random",)))
    found = [one for one in part.checks(bench) if "as planned" not in one.name and one.name != agreement.VIEWS_CHECK]  # type: ignore[attr-defined]
    assert {(one.passed, one.words) for one in found} == {(None, "trains nothing")}


def test_a_check_that_raises_fails_with_its_reason() -> None:
    def oom() -> Check:
        raise torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 9 GiB\nmore")

    found = attempt("memory", "dino", oom)
    assert (found.passed, found.words) == (False, "out of memory: CUDA out of memory. Tried to allocate 9 GiB")
    assert attempt("memory", "dino", lambda: 1 // 0).words == "ZeroDivisionError: integer division or modulo by zero"  # type: ignore[arg-type,return-value]


def test_the_same_device_agrees_exactly_and_another_batch_does_not(monkeypatch: pytest.MonkeyPatch) -> None:
    found = only(one for one in agreement.checks(BENCH) if one.name != agreement.VIEWS_CHECK)
    assert found.passed
    assert [found.figures[what] for what in ("features", "loss", "gradients")] == [0.0, 0.0, 0.0]
    assert 0 < found.figures["loss in bf16"] < agreement.LOWER_PRECISION_LOSS
    calls = []

    def other_batch(*given: object) -> Batch:
        calls.append(given)
        batch = noise.noise_batch(*given)  # type: ignore[arg-type]
        return Batch(tuple(view + 0.01 * len(calls) for view in batch.views), batch.index, batch.labels)

    monkeypatch.setattr(agreement, "noise_batch", other_batch)
    assert only(one for one in agreement.checks(BENCH) if one.name != agreement.VIEWS_CHECK).passed is False


def test_views_finished_on_the_device_are_compared(monkeypatch: pytest.MonkeyPatch) -> None:
    first = next(agreement.checks(BENCH))
    assert (first.name, first.passed) == (agreement.VIEWS_CHECK, True)
    assert "4 at once" in first.words
    assert first.figures["images_per_second"] > 0
    monkeypatch.setattr(agreement.DeviceViews, "finish", lambda self, views, device: [one + 0.01 for one in views[:-1]])
    assert next(agreement.checks(BENCH)).passed is False


def test_tf32_is_off_only_inside() -> None:
    before = torch.backends.cudnn.allow_tf32
    with agreement.without_tf32():
        assert not torch.backends.cudnn.allow_tf32
        assert not torch.backends.cuda.matmul.allow_tf32
    assert torch.backends.cudnn.allow_tf32 == before


@pytest.mark.parametrize(("measured", "passed"), [(100, True), (108, True), (120, False), (85, False), (None, None)])
def test_prediction_against_the_allocator(
    measured: int | None, passed: bool | None, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(memory, "predict_step", lambda *given: SimpleNamespace(peak=100))
    monkeypatch.setattr(memory, "allocator_peak", lambda device: measured)
    way = Way(Choice("fp32", True, 2), StepMemory({"weights": 100}), True, 2, 4)
    monkeypatch.setattr(StepPredictor, "fastest", lambda self, asked, usable: (way, []))
    sizes, add = list[tuple[int, int | None]](), memory.add_gradients

    def recorded(method: Method, batch: Batch, progress: Progress, passes: Passes) -> StepOutput:
        sizes.append((len(batch.index), passes.micro_batch))
        return add(method, batch, progress, passes)

    monkeypatch.setattr(memory, "add_gradients", recorded)
    plain, checkpointing, planned = memory.checks(Bench(BENCH.device, replace(BENCH.sizes, planned_batch=6)))
    assert [plain.passed, checkpointing.passed, planned.passed] == [passed] * 3
    assert checkpointing.name == "simclr on deit_ti16, checkpointing"
    assert planned.name == "simclr on deit_ti16, 6 images as planned"
    assert "fp32, activation checkpointing, 2 at once: predicted" in planned.words
    assert sizes == [(4, None)] * 4 + [(6, 2)] * 2
    if measured:
        assert plain.figures["ratio"] == pytest.approx(100 / measured)


@pytest.mark.parametrize(
    ("there", "unit", "passed"), [(31.9, "%", True), (32.1, "%", False), (30.5, "", True), (31.6, "", False)]
)
def test_figures_of_an_evaluator_on_both_devices(
    there: float, unit: str, passed: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    values = iter([30.0, there])
    monkeypatch.setattr(evaluations, "figure", lambda *given: (next(values), "top1", unit))
    assert evaluations.compare("knn", None, None, BENCH).passed is passed  # type: ignore[arg-type]


def test_an_evaluator_runs() -> None:
    data = Shapes(Shapes.Config(train_images=40, test_images=20))
    network = next(iter(noise.built(noise.resolved("simclr", TINY, BENCH)).networks().values()))
    value, metric, unit = evaluations.figure("knn", network, data, BENCH.device)
    assert 0 <= value <= 100
    assert (metric.startswith("top1"), unit) == (True, "%")


def test_neighbors_are_compared_with_the_cpu(monkeypatch: pytest.MonkeyPatch) -> None:
    assert speed.compare_search(BENCH).passed
    real = speed.nearest

    def wrong(*given: object, device: object = None, **more: object) -> object:
        found = real(*given, **more)  # type: ignore[arg-type]
        return found if len(given) == 5 else found._replace(indices=found.indices + 1)  # five: with a device

    monkeypatch.setattr(speed, "nearest", wrong)
    assert speed.compare_search(BENCH).passed is False


def test_a_step_is_compared_with_lightlys_in_the_same_precision(monkeypatch: pytest.MonkeyPatch) -> None:
    """Seconds by hand: ours takes 2 in fp32 and 4 in fp16, lightly's 3; no view is made, no step is done."""
    asked: list[tuple[str, torch.dtype]] = []

    def contestant(name: str, seconds: dict[torch.dtype, float]) -> Callable[..., Callable[[], float]]:
        def make(views: object, dtype: torch.dtype) -> Callable[[], float]:
            asked.append((name, dtype))
            return lambda: seconds[dtype]

        return make

    ours = {torch.float32: 2.0, torch.float16: 4.0, torch.bfloat16: 3.0}
    monkeypatch.setattr(dino_step, "our_step", contestant("ours", ours))
    monkeypatch.setattr(dino_step, "lightly_step", contestant("lightly", dict.fromkeys(ours, 3.0)))
    monkeypatch.setattr(speed, "_timed", lambda step, device: step())
    fact = SimpleNamespace(label="all cores", value=1.5)
    monkeypatch.setattr(speed, "examine_images", lambda: SimpleNamespace(facts=[fact]))
    monkeypatch.setattr(speed, "compare_search", lambda bench: Check("speed", "neighbors", None, ""))
    monkeypatch.setattr(speed, "faiss", lambda: Check("speed", "FAISS", None, ""))
    fp32, fp16, bf16, views, *_ = speed.checks(BENCH)
    assert [(one.name, one.passed, one.figures["ratio"]) for one in (fp32, fp16, bf16)] == [
        ("DINO step, fp32", True, 1.5),
        ("DINO step, fp16", False, 0.75),
        ("DINO step, bf16", True, 1.0),
    ]
    assert sorted(asked, key=str) == sorted([(name, dtype) for name in ("ours", "lightly") for dtype in ours], key=str)
    assert views.words.endswith("2 images/s: they are the bottleneck")  # 4 images in 2 s are as many, rounded


STAND_IN = """
import json, pathlib, signal, sys, time
folder = pathlib.Path("results/runs/checked")
def stop(*signal): print({printed!r}); sys.exit({status})
signal.signal(signal.SIGINT, stop)
folder.mkdir(parents=True, exist_ok=True)
if "--resume" in sys.argv:
    (folder / "record.json").write_text({record!r})
else:
    (folder / "metrics.jsonl").write_text("{{}}\\n" * 3)
    time.sleep(9)
"""


def test_a_run_is_stopped_and_resumed() -> None:
    """A stand-in for `sslbench` and its record; the real one takes a minute on a CPU."""
    memory = {"memory_mb": 4096}
    training = {"resumed": 1, "memory": memory, "micro_batches": [{"images": 32}], "steps": 9, "seconds": 1.0}
    training["peak_memory_mb"] = 900.0
    record = {"status": "finished", "machine": {"device": device_name(BENCH.device)}, "training": training}

    def check(record: object, printed: str = "saved", status: int = 130) -> Check:
        text = STAND_IN.format(record=json.dumps(record), printed=printed, status=status)
        work = partial(whole_run.stopped_and_resumed, BENCH, (sys.executable, "-c", text))
        return attempt("run", "run", work)

    found = check(record)
    assert (found.passed, found.words) == (True, "9 steps in 1.0 s, 900 MiB")
    assert check(record, printed="Traceback (most recent call last)\nValueError: pin").words.endswith(
        ": ValueError: pin"
    )
    assert check(record, status=0).passed is False
    found = check({**record, "status": "failed", "training": {**training, "resumed": 0, "peak_memory_mb": 5000.0}})
    assert found.passed is False
    assert found.words == "status: failed, not finished; times resumed: 0, not 1; 5,000 MB were used"


def test_without_a_device_nothing_is_tested(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    fake_cuda(monkeypatch)
    assert script.main([]) == 0
    assert capsys.readouterr().out == "no CUDA device here. Nothing was tested.\n"
    fake_cuda(monkeypatch, PASCAL)
    assert script.main([]) == 1
    assert "whl/cu126" in capsys.readouterr().out


def test_a_part_whose_process_dies_or_takes_too_long() -> None:
    found = script.in_own_process("memory", 30.0, [sys.executable, "-c", "raise SystemExit('illegal address')"])
    assert [(one.passed, one.words) for one in found] == [(False, "its process ended with 1: illegal address")]
    late = script.in_own_process("memory", 0.5, [sys.executable, "-c", "import time; time.sleep(9)"])
    assert [(one.passed, one.words) for one in late] == [(False, "not tested: the part was stopped after 0 s")]


def test_checks_are_written_as_soon_as_they_are_done(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    into = tmp_path / "checks.jsonl"

    def two(bench: Bench) -> object:
        yield Check("memory", "one", True, "well", 0.5, {"ratio": 1.0})
        assert len(into.read_text().splitlines()) == 1
        yield Check("memory", "two", None, "no verdict")

    monkeypatch.setattr(memory, "checks", two)
    script.run_part("memory", BENCH, into)
    assert [Check(**json.loads(text)).name for text in into.read_text().splitlines()] == ["one", "two"]


def test_all_parts_together_take_less_than_ten_minutes() -> None:
    assert sum(script.PARTS.values()) < 600
    assert all(Path(script.__file__).with_name(f"{part}.py").exists() for part in script.PARTS)


def test_the_record(tmp_path: Path) -> None:
    checks = [Check("memory", "a", True, "1 | 2"), Check("memory", "b", False, "no"), Check("speed", "c", None, "")]
    path = write(tmp_path / "gpu", "nvidia-h100", "NVIDIA H100", checks)
    assert path.read_text() == markdown("NVIDIA H100", checks)
    assert "1 passed, 1 failed, 1 without a verdict" in path.read_text()
    rows = [line for line in path.read_text().splitlines() if line.startswith("|")]
    assert {row.count("|") for row in rows} == {6}
    document = json.loads((tmp_path / "gpu" / "nvidia-h100.json").read_text())
    assert [Check(**one) for one in document["checks"]] == checks
