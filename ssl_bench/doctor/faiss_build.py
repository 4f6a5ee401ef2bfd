"""FAISS: which builds are installed, and a search in a process of its own, which an unsupported card aborts."""

from __future__ import annotations

import subprocess
import sys
from importlib.metadata import distributions

from ssl_bench.doctor.findings import Fact, Findings, Problem

SECONDS = 20.0
TRIAL = """
import faiss, numpy
rows = numpy.eye(8, dtype="float32")
_, found = faiss.knn(rows, rows, 1, metric=faiss.METRIC_INNER_PRODUCT)
assert found[:, 0].tolist() == list(range(8)), "it finds wrong neighbors"
cards = faiss.get_num_gpus() if hasattr(faiss, "get_num_gpus") else 0
print(faiss.__version__, cards, flush=True)
if cards and hasattr(faiss, "StandardGpuResources"):
    _, found = faiss.knn_gpu(faiss.StandardGpuResources(), rows, rows, 1, metric=faiss.METRIC_INNER_PRODUCT)
    assert found[:, 0].tolist() == list(range(8)), "it finds wrong neighbors on the card"
    print("gpu", flush=True)
"""
"""Each row is its own nearest neighbor; then the same on a card where this build sees one."""


def examine_faiss() -> Findings:
    """Builds by their distributions, then the trial."""
    builds = installed_builds()
    if not builds:
        return Findings((Fact("faiss", "not installed: torch searches neighbors, with the same numbers"),))
    listed = " and ".join(builds)
    problems = []
    if len(builds) > 1:
        names = " ".join(build.partition(" ")[0] for build in builds)
        problems.append(
            Problem("broken", f"{listed} install the same module, and one overwrites the other: pip uninstall {names}, "
                    "then pip install faiss-cpu")
        )  # fmt: skip
    words, problem = tried(TRIAL)
    if problem is not None:
        problems.append(problem)
    return Findings((Fact("faiss", f"{listed}: {words}"),), tuple(problems))


def installed_builds() -> list[str]:
    """E.g. ["faiss-cpu 1.12.0"]: distributions that install the module `faiss`."""
    found = {
        f"{one.name} {one.version}"
        for one in distributions()
        if (one.name or "").lower().replace("_", "-").startswith("faiss-") or (one.name or "").lower() == "faiss"
    }
    return sorted(found)


def tried(code: str, seconds: float = SECONDS) -> tuple[str, Problem | None]:
    """What became of a search in a process of its own, in words, and the problem if it is one."""
    try:
        done = subprocess.run(
            [sys.executable, "-c", code], capture_output=True, text=True, timeout=seconds, stdin=subprocess.DEVNULL
        )
    except subprocess.TimeoutExpired:
        words = f"a search does not end in {seconds:g} s"
        return words, Problem("broken", f"FAISS: {words}; pip install --force-reinstall faiss-cpu")
    lines = done.stdout.split("\n")
    if not lines[0]:
        return "it does not work", Problem(
            "broken", f"FAISS does not work ({_reason(done)}): pip install --force-reinstall faiss-cpu, or pip "
            "uninstall it, and torch searches"
        )  # fmt: skip
    cards = int(lines[0].split()[1])
    if not cards:
        return "searches on the CPU", None
    if "gpu" in lines:
        return f"searches on the CPU and on {cards} cards", None
    return "searches on the CPU, and not on the card", Problem(
        "broken", f"this FAISS sees a card and does not work on it ({_reason(done)}; its wheels need compute "
        "capability 7.0): pip uninstall it, then pip install faiss-cpu; torch searches on the card"
    )  # fmt: skip


def _reason(done: subprocess.CompletedProcess[str]) -> str:
    if done.returncode < 0:
        return f"it ends the process with signal {-done.returncode}"
    lines = done.stderr.strip().splitlines()
    return lines[-1] if lines else f"exit status {done.returncode}"
