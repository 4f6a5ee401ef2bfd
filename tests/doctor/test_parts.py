"""Each part of the examination on made-up surroundings; cards are a stand-in for torch.cuda."""

from __future__ import annotations

import dataclasses
import shutil
from collections import namedtuple
from pathlib import Path

import pytest
import torch

from ssl_bench.doctor import devices, faiss_build, host, images, packages, products
from ssl_bench.doctor.findings import Findings, Problem, by_importance, examined
from ssl_bench.doctor.rates import rate_of
from ssl_bench.evaluation.speed import Timing
from ssl_bench.registry.entry_points import Plugin
from tests.fake_cuda import DEFAULT_WHEEL, GB, HOPPER, PASCAL, fake_cuda, fake_nvidia_smi

Usage = namedtuple("Usage", "total used free")


def texts(found: Findings) -> str:
    return "\n".join(f"{fact.label}: {fact.text}" for fact in found.facts)


def problems(found: Findings) -> list[tuple[str, str]]:
    return [(problem.severity, problem.text) for problem in found.problems]


# Findings


def test_a_part_that_fails_says_why() -> None:
    def broken() -> Findings:
        raise OSError("no such device\nand more")

    found = examined(broken)
    assert texts(found) == "failed: OSError: no such device"
    assert problems(found) == [("note", "a part could not be examined: OSError: no such device")]


def test_the_most_important_problem_comes_first() -> None:
    given = [Problem("note", "a"), Problem("slow", "b"), Problem("broken", "c"), Problem("slow", "d")]
    assert [problem.text for problem in by_importance(given)] == ["c", "b", "d", "a"]


# Devices


def test_a_usable_card_with_its_memory(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    fake_cuda(monkeypatch, HOPPER)
    fake_nvidia_smi(monkeypatch, tmp_path, f"{HOPPER.name}, 580.65, 9.0")
    found = devices.examine_devices()
    assert "compute capability 9.0, driver 580.65, 79.0 of 80.0 GB free" in texts(found)
    assert "cuda:0 precisions: fp32, TF32, fp16 and bf16" in texts(found)
    assert {fact.label: fact.value for fact in found.facts}["cuda:0 free"] == 79 * GB
    assert not found.problems


def test_pascal_on_a_default_wheel_and_a_card_in_use(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    fake_cuda(monkeypatch, PASCAL, dataclasses.replace(HOPPER, free=30 * GB), built_for=DEFAULT_WHEEL)
    fake_nvidia_smi(monkeypatch, tmp_path)
    first, second = problems(devices.examine_devices())
    assert first[0] == "broken"
    assert "GTX 1050 Ti has compute capability 6.1" in first[1]
    assert "whl/cu126" in first[1]
    assert second[0] == "slow"
    assert second[1].startswith("50.0 of 80.0 GB of NVIDIA H100")


def test_a_card_that_torch_does_not_see(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.delenv("CUDA_VISIBLE_DEVICES", raising=False)
    monkeypatch.setattr(torch.version, "cuda", None)
    fake_cuda(monkeypatch)
    fake_nvidia_smi(monkeypatch, tmp_path, "NVIDIA A100, 550.1, 8.0")
    ((severity, text),) = problems(devices.examine_devices())
    assert severity == "broken"
    assert "NVIDIA A100 is installed, and this torch" in text
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "-1")
    found = devices.examine_devices()
    assert not found.problems
    assert "hides all cards" in texts(found)


# Speeds


def test_rates_of_a_quiet_and_of_a_busy_machine() -> None:
    quiet = [Timing(wall, 2 * wall) for wall in (1.0, 1.01, 1.02)]
    assert rate_of(quiet, 202, threads=2, device_type="cpu").per_second == pytest.approx(200)
    busy = [Timing(wall, 1.0) for wall in (1.5, 2.0, 4.0)]  # two threads that had half a core each, at best
    rate = rate_of(busy, 100, threads=2, device_type="cpu")
    assert rate.per_second == pytest.approx(200)
    assert rate.by_cpu_time
    on_card = rate_of([Timing(wall, 0.0) for wall in (0.5, 1.0)], 100, threads=2, device_type="cuda")
    assert on_card.per_second == pytest.approx(200)


def test_operations_of_matrix_products(monkeypatch: pytest.MonkeyPatch) -> None:
    """A clock in which a product of side n takes n^3 ns, so that 0.1 s is met by 256 and not by 512."""
    sides: list[int] = []
    seconds = {"now": 0.0}

    def mm(left: torch.Tensor, right: torch.Tensor) -> torch.Tensor:
        sides.append(len(left))
        seconds["now"] += len(left) ** 3 / 1e9
        return left

    monkeypatch.setattr(torch, "mm", mm)
    for clock in ("perf_counter", "process_time"):
        monkeypatch.setattr(f"ssl_bench.evaluation.speed.time.{clock}", lambda: seconds["now"])
    monkeypatch.setattr(products, "SIDES", (512, 464, 128))
    rate = products.product_speed(torch.device("cpu"), torch.float32)
    assert sides == [256, 256, *([464] * (products.ROUNDS + 1))]  # 464^3 is just below 10^8
    assert rate.per_second == pytest.approx(2e9)


def test_products_in_every_precision(monkeypatch: pytest.MonkeyPatch) -> None:
    fake_cuda(monkeypatch)
    monkeypatch.setattr(products, "SIDES", (32,))
    monkeypatch.setattr(products, "TRIAL_SIDE", 16)
    found = products.examine_products()
    assert [fact.label for fact in found.facts] == ["cpu fp32", "cpu fp16", "cpu bf16"]
    assert all(isinstance(fact.value, float) and fact.value > 0 for fact in found.facts)
    assert "times fp32" in found.facts[2].text


def test_images_per_second(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(images, "ROUNDS", 1)
    monkeypatch.setattr(images, "DECODED_PER_ROUND", 1)
    monkeypatch.setattr(images, "VIEWED_PER_ROUND", 1)
    monkeypatch.setattr(images, "cores", lambda: 7)
    monkeypatch.setattr("ssl_bench.doctor.images.features.check_feature", lambda name: False)
    found = images.examine_images()
    values = {fact.label: fact.value for fact in found.facts}
    assert "dino's 10 views" in texts(found)
    assert values["all cores"] == pytest.approx(7 * values["views"])  # type: ignore[operator]
    assert values["decoding"] > values["views"]  # type: ignore[operator]
    assert "libjpeg-turbo" in problems(found)[0][1]


# Machine and disks


def test_more_threads_than_cores(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(host, "cores", lambda: 2)
    monkeypatch.setattr(host, "cgroup_cores", lambda: 2.0)
    monkeypatch.setattr("os.cpu_count", lambda: 64)
    monkeypatch.setattr("os.getloadavg", lambda: (0.5, 0.5, 0.5))
    monkeypatch.setattr(torch, "get_num_threads", lambda: 64)
    found = host.examine_host()
    assert "cores: 2 of 64: its container has 2 cores' worth of time" in texts(found)
    assert problems(found) == [
        ("slow", "torch uses 64 threads on 2 cores, and they wait for each other: export OMP_NUM_THREADS=2")
    ]
    monkeypatch.setattr(torch, "get_num_threads", lambda: 2)
    monkeypatch.setattr("os.getloadavg", lambda: (5.5, 0.5, 0.5))
    assert [severity for severity, _ in problems(host.examine_host())] == ["note"]


@pytest.mark.parametrize(
    ("free", "severities"), [(500 * GB, []), (5 * GB, ["note", "note"]), (GB // 2, ["broken", "broken"])]
)
def test_free_space(free: int, severities: list[str], monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setattr(shutil, "disk_usage", lambda place: Usage(free, 0, free))
    monkeypatch.setattr(host, "SHARED_MEMORY", tmp_path / "none")
    found = host.examine_disks(tmp_path / "not" / "yet", tmp_path / "none")
    assert [severity for severity, _ in problems(found)] == severities
    assert not (tmp_path / "not").exists()


def test_little_shared_memory_and_a_folder_that_is_not_ours(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    shared = tmp_path / "shm"
    shared.mkdir()
    monkeypatch.setattr(
        shutil, "disk_usage", lambda place: Usage(64 * 2**20 if place == shared else 90 * GB, 0, 90 * GB)
    )
    monkeypatch.setattr("os.access", lambda place, mode: place != tmp_path)
    found = problems(host.examine_disks(tmp_path / "results", shared))
    assert [severity for severity, _ in found] == ["broken", "slow"]
    assert "--results DIR" in found[0][1]
    assert "64 MB" in found[1][1]


# FAISS


@pytest.mark.parametrize(
    ("code", "words", "problem"),
    [
        ("print('1.9.0', 0)", "searches on the CPU", None),
        ("print('1.9.0', 2); print('gpu')", "searches on the CPU and on 2 cards", None),
        ("import os; print('1.9.0', 1, flush=True); os.abort()", "not on the card", "ends the process with signal 6"),
        ("import os; os.abort()", "does not work", "ends the process with signal 6"),
        ("assert False, 'it finds wrong neighbors'", "does not work", "it finds wrong neighbors"),
        ("import time; time.sleep(9)", "does not end", "does not end"),
    ],
)
def test_what_becomes_of_a_search(code: str, words: str, problem: str | None) -> None:
    found, trouble = faiss_build.tried(code, seconds=1.5 if "sleep" in code else 20.0)
    assert words in found
    assert (trouble is None) is (problem is None)
    assert problem is None or (trouble is not None and problem in trouble.text)


def test_two_builds_of_faiss(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(faiss_build, "tried", lambda code: ("searches on the CPU", None))
    monkeypatch.setattr(faiss_build, "installed_builds", lambda: ["faiss-cpu 1.9", "faiss-gpu-cu12 1.9"])
    ((severity, text),) = problems(faiss_build.examine_faiss())
    assert severity == "broken"
    assert "pip uninstall faiss-cpu faiss-gpu-cu12, then pip install faiss-cpu" in text
    monkeypatch.setattr(faiss_build, "installed_builds", list)
    assert "not installed" in texts(faiss_build.examine_faiss())


# Packages and plugins


def test_requirements_that_are_not_met(monkeypatch: pytest.MonkeyPatch) -> None:
    lines = ["torch>=99", "pillow>=1", "no-such-package>=2", "also-none; extra == 'x'", "never; python_version<'3'"]
    monkeypatch.setattr(packages, "requires", lambda name: lines)
    first, second = packages.unmet_requirements("it")
    assert first.startswith(
        f"torch {packages.version('torch')} is installed, and it needs >=99: pip install 'torch>=99'"
    )
    assert second == "no-such-package is not installed: pip install 'no-such-package>=2'"


def test_torchvision_of_another_torch(monkeypatch: pytest.MonkeyPatch) -> None:
    assert packages.why_torchvision_does_not_fit() == ""

    def missing(*_: object) -> None:
        raise RuntimeError("operator torchvision::nms does not exist")

    monkeypatch.setattr("torchvision.ops.nms", missing)
    assert "torchvision::nms does not exist" in packages.why_torchvision_does_not_fit()


def test_extras_that_are_missing_are_no_problem(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(
        packages, "install_line", lambda name, extras: f"pip install '{name}[hf]'" if extras == ("hf",) else ""
    )
    found = packages.examine_packages()
    assert "extra hf: not installed: pip install 'sslbench[hf]'" in texts(found)
    assert not found.problems


def test_a_broken_plugin_is_named_with_its_distribution(monkeypatch: pytest.MonkeyPatch) -> None:
    mine = Plugin("method", "mine", "mine:Mine", "my-package", "0.3")
    late = Plugin("method", "late", "late:Late", "late-package", "1", misfit="it is for another API")
    monkeypatch.setattr(packages.registry, "plugins", lambda kind: [mine, late] if kind == "method" else [])
    monkeypatch.setattr(packages, "why_broken_each", lambda found, seconds: dict.fromkeys(found, "it raises"))
    monkeypatch.setattr(packages.registry, "fault", lambda plugin: plugin.misfit)
    found = packages.examine_plugins()
    assert "third-party: late-package 1, my-package 0.3" in texts(found)
    words = sorted(text for _, text in problems(found))
    assert words[0].startswith("the method late of late-package 1 is broken: it is for another API")
    assert words[1].endswith("it raises. Update or uninstall my-package")
