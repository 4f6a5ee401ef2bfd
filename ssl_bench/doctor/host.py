"""Processor, threads, memory, shared memory and disks."""

from __future__ import annotations

import os
import platform
import shutil
from pathlib import Path

import torch

from ssl_bench.doctor.findings import Fact, Findings, Problem
from ssl_bench.runs.device_name import device_name
from ssl_bench.system.files import cache_folder
from ssl_bench.system.limits import cgroup_cores, cores, memory_bytes

GB = 10**9
LITTLE_DISK, SCARCE_DISK = 1 * GB, 10 * GB
"""Below the first a run cannot save itself; below the second a study soon cannot."""
SHARED_MEMORY, LITTLE_SHARED_MEMORY = Path("/dev/shm"), 512 * 2**20
"""Worker processes pass their batches through it; a container has 64 MB by default."""


def examine_host() -> Findings:
    """Processor and threads, memory, load."""
    allowed, threads = cores(), torch.get_num_threads()
    facts = [
        Fact("processor", device_name(torch.device("cpu"))),
        Fact("cores", _cores_in_words(allowed), allowed),
        Fact("threads", f"{threads} of torch", threads),
        Fact("system", f"{platform.platform()}, Python {platform.python_version()}"),
    ]
    problems = []
    if threads > allowed:
        problems.append(
            Problem("slow", f"torch uses {threads} threads on {allowed} cores, and they wait for each other: "
                    f"export OMP_NUM_THREADS={allowed}")
        )  # fmt: skip
    if (memory := memory_bytes()) is not None:
        facts.append(Fact("memory", f"{memory / 2**30:.1f} GB", memory))
    if hasattr(os, "getloadavg"):
        load = os.getloadavg()[0]
        facts.append(Fact("load", f"{load:.1f} processes on average over the last minute", load))
        if load > allowed:
            problems.append(
                Problem("note", f"the machine is busy: {load:.1f} processes for {allowed} cores; what is measured here "
                        "is less than it can do")
            )  # fmt: skip
    return Findings(tuple(facts), tuple(problems))


def _cores_in_words(allowed: int) -> str:
    present, quota = os.cpu_count() or allowed, cgroup_cores()
    if allowed >= present:
        return f"{allowed}"
    limit = f"its container has {quota:g} cores' worth of time" if quota is not None else "of its affinity"
    return f"{allowed} of {present}: {limit}"


def examine_disks(results: Path, shared_memory: Path = SHARED_MEMORY) -> Findings:
    """Free space where runs, caches and batches of worker processes lie."""
    facts, problems = [], []
    for label, folder in (("results", results), ("cache", cache_folder())):
        place = _nearest_existing(folder)
        free = shutil.disk_usage(place).free
        facts.append(Fact(label, f"{free / GB:.1f} GB free in {folder}", free))
        if not os.access(place, os.W_OK):
            problems.append(Problem("broken", _unwritable(label, folder)))
        elif free < LITTLE_DISK:
            problems.append(Problem("broken", f"only {free / GB:.1f} GB are free in {folder}: {_room(label)}"))
        elif free < SCARCE_DISK:
            problems.append(Problem("note", f"{free / GB:.1f} GB are free in {folder}: enough for small runs"))
    if shared_memory.is_dir():
        total = shutil.disk_usage(shared_memory).total
        facts.append(Fact("shared memory", f"{total / 2**30:.1f} GB in {shared_memory}", total))
        if total < LITTLE_SHARED_MEMORY:
            problems.append(
                Problem("slow", f"{shared_memory} has {total / 2**20:.0f} MB, too little for worker processes, so that "
                        "views are made in the main process: docker run --shm-size=8g")
            )  # fmt: skip
    return Findings(tuple(facts), tuple(problems))


def _nearest_existing(folder: Path) -> Path:
    place = Path(os.path.abspath(folder))
    while not place.exists():
        place = place.parent
    return place


def _unwritable(label: str, folder: Path) -> str:
    way = "--results DIR" if label == "results" else "SSLBENCH_CACHE=DIR"
    return f"{folder} cannot be written: give another folder with {way}"


def _room(label: str) -> str:
    return "make room, or give another disk with --results DIR" if label == "results" else "sslbench cache --clear all"
