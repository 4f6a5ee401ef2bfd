"""Freed memory stays with the process: counted as page faults, which the kernel counts and not the code under test."""

from __future__ import annotations

import ctypes
import os
import subprocess
import sys

import pytest

from ssl_bench.system import allocator
from ssl_bench.system.allocator import USERS_OWN, keep_freed_memory

FAULTS = """
import resource, sys
from ssl_bench.system.allocator import keep_freed_memory
kept = keep_freed_memory() if sys.argv[1] != "leave" else None
def work():
    for size in (64, 80, 48):  # more than the 32 MiB up to which glibc learns to keep blocks
        bytearray(size * 2**20)
work()
if sys.argv[1] == "return":
    kept = keep_freed_memory(False)
before = resource.getrusage(resource.RUSAGE_SELF).ru_minflt
work()
print(kept, (resource.getrusage(resource.RUSAGE_SELF).ru_minflt - before) * resource.getpagesize() // 2**20)
"""
PAGES_MB = 64 + 80 + 48
SAME_BITS = """
import hashlib, torch
from ssl_bench.system.allocator import keep_freed_memory
torch.set_num_threads(1)
def digest():
    torch.manual_seed(0)
    network = torch.nn.Sequential(
        torch.nn.Conv2d(3, 16, 3), torch.nn.BatchNorm2d(16), torch.nn.GELU(), torch.nn.Flatten(),
        torch.nn.Linear(14400, 64),
    )
    for _ in range(3):
        network(torch.randn(16, 3, 32, 32)).square().mean().backward()
    gradients = b"".join(p.grad.numpy().tobytes() for p in network.parameters())
    return hashlib.sha256(gradients).hexdigest()
before = digest()
keep_freed_memory()
print(before == digest())
"""


def has_glibc() -> bool:
    return sys.platform.startswith("linux") and hasattr(ctypes.CDLL(None), "gnu_get_libc_version")


def in_process(code: str, *arguments: str, **environment: str) -> str:
    kept = {name: value for name, value in os.environ.items() if name not in USERS_OWN}
    done = subprocess.run(
        [sys.executable, "-c", code, *arguments], env=kept | environment, capture_output=True, text=True, check=True
    )
    return done.stdout.strip()


@pytest.mark.skipif(not has_glibc(), reason="glibc alone")
def test_large_blocks_are_used_again_without_the_kernel() -> None:
    kept, faulted_mb = in_process(FAULTS, "keep").split()
    assert kept == "True"
    assert int(faulted_mb) < 0.05 * PAGES_MB
    for otherwise in ("leave", "return"):
        assert int(in_process(FAULTS, otherwise).split()[1]) > 0.9 * PAGES_MB


@pytest.mark.skipif(not has_glibc(), reason="glibc alone")
@pytest.mark.parametrize("name", USERS_OWN)
def test_what_the_user_decided_stays(name: str) -> None:
    value = "glibc.malloc.check=0" if name == "GLIBC_TUNABLES" else "65536"
    assert in_process(FAULTS, "keep", **{name: value}).split()[0] == "False"


@pytest.mark.skipif(not has_glibc(), reason="glibc alone")
def test_no_number_changes() -> None:
    assert in_process(SAME_BITS) == "True"


@pytest.mark.parametrize("system", ["darwin", "win32"])
def test_other_systems_are_left_alone(monkeypatch: pytest.MonkeyPatch, system: str) -> None:
    monkeypatch.setattr(allocator.sys, "platform", system)
    assert not keep_freed_memory()


def test_another_c_library_is_left_alone(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in USERS_OWN:
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setattr(allocator, "_libc", lambda: None)
    assert not keep_freed_memory()
