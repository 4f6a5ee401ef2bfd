"""Limits of containers, from files as the kernel writes them."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from ssl_bench.system import limits


@pytest.mark.parametrize(
    ("files", "cores"),
    [
        ({}, None),
        ({"cpu.max": "max 100000\n"}, None),
        ({"cpu.max": "250000 100000\n"}, 2.5),
        ({"cpu/cpu.cfs_quota_us": "-1\n", "cpu/cpu.cfs_period_us": "100000\n"}, None),
        ({"cpu/cpu.cfs_quota_us": "50000\n", "cpu/cpu.cfs_period_us": "100000\n"}, 0.5),
    ],
)
def test_cores_of_a_container(files: dict[str, str], cores: float | None, tmp_path: Path) -> None:
    write(files, tmp_path)
    assert limits.cgroup_cores(tmp_path) == cores


@pytest.mark.parametrize(("quota", "cores"), [(None, 3), (2.5, 3), (1.2, 2), (0.5, 1), (64.0, 3)])
def test_cores_are_the_smaller_of_both_limits(quota: float | None, cores: int, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(os, "sched_getaffinity", lambda pid: {0, 5, 7}, raising=False)
    monkeypatch.setattr(limits, "cgroup_cores", lambda: quota)
    assert limits.cores() == cores


@pytest.mark.parametrize(
    ("files", "expected"),
    [
        ({}, None),
        ({"memory.max": "max\n"}, None),
        ({"memory.max": "1048576\n"}, 2**20),
        ({"memory/memory.limit_in_bytes": "1048576\n"}, 2**20),
        ({"memory/memory.limit_in_bytes": "9223372036854771712\n"}, None),  # version 1's way to say "no limit"
    ],
)
def test_memory_of_a_container(files: dict[str, str], expected: int | None, tmp_path: Path) -> None:
    write(files, tmp_path)
    physical = os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE")
    assert limits.memory_bytes(tmp_path) == (expected or physical)


def write(files: dict[str, str], folder: Path) -> None:
    for name, content in files.items():
        path = folder / name
        path.parent.mkdir(exist_ok=True)
        path.write_text(content)
