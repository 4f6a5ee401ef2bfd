"""The speed of a network alone: a record of the method random without evaluators, which tables of networks fold."""

from __future__ import annotations

import re
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch

from ssl_bench.evaluation.speed import THROUGHPUT_BATCH, patient_speed
from ssl_bench.method import evaluated_network
from ssl_bench.recipes.request import Request
from ssl_bench.recipes.resolve import Resolved, resolve
from ssl_bench.records.cost import TrainingRecord
from ssl_bench.records.reading import read_record
from ssl_bench.records.record import RunRecord, write_record
from ssl_bench.runs import machine
from ssl_bench.runs.building import build_method, seed_initial_weights
from ssl_bench.runs.describe import describe_backbone, describe_data
from ssl_bench.runs.device_name import device_name
from ssl_bench.runs.folder import Start, new_run
from ssl_bench.runs.recording import Outcome, run_record
from ssl_bench.runs.state import BeforeTraining
from ssl_bench.runs.trial import require_images_fit

FEW_IMAGES = {"data.train_images": 10, "data.test_images": 10}
"""Of the embedded set, which only gives the record its image size: none is shown to the network."""


@dataclass(frozen=True)
class SpeedRequest:
    """Which network is measured, and how."""

    arch: str
    image_px: int = 224
    batch: int = THROUGHPUT_BATCH
    values: tuple[tuple[str, Any], ...] = ()
    """Settings by `section.setting`: backbone.* and machine.*."""
    wait_seconds: float = 60.0
    """How long to try again while the machine is busy."""
    again: bool = False
    """Measure although there is a figure of this machine."""
    command: str = ""


def measure_throughput(
    request: SpeedRequest, results: Path, say: Callable[[str], None] = lambda line: None
) -> tuple[Path, RunRecord]:
    """Measure one network, record it under `results`/runs, and return the record's path with the record.

    A figure of this machine is read, not measured again, unless it was left out or `again` asks for it; a figure that
    is left out this time replaces none. Raises `UserError` for a wrong name, size or setting before anything is
    measured.
    """
    resolved = resolve(
        Request(
            method="random", arch=request.arch, data="shapes", evaluators=(),
            values={"data.image_px": request.image_px, **FEW_IMAGES, **dict(request.values)},
        )
    )  # fmt: skip
    device = machine.choose_device(resolved.machine.device)
    machine.set_up(device, tf32=resolved.machine.tf32)
    path = results / "runs" / _run_id(resolved, request, device) / "record.json"
    earlier = read_record(path) if path.exists() else None
    if earlier is not None and earlier.backbone.inference_images_per_second is not None and not request.again:
        return path, earlier
    seed_initial_weights(resolved.recipe.training.seed)
    method = build_method(resolved).to(device)
    network = evaluated_network(method)
    require_images_fit(network, request.image_px, resolved.recipe.arch, resolved)
    speed = patient_speed(
        network, request.image_px, device, batch=request.batch, wait_seconds=request.wait_seconds, say=say
    )
    before = BeforeTraining(
        precision="fp32", precision_reason="nothing is trained", threads=torch.get_num_threads(),
        speed=speed.as_record(), untrained=(),
    )  # fmt: skip
    state = new_run(resolved, describe_data(resolved)).model_copy(update={"before_training": before})
    nothing = TrainingRecord(
        steps=0, epochs=0, seconds=0, images_per_second=0, peak_memory_mb=round(machine.peak_memory_mb(device), 1),
        resumed=0, final_logs={},
    )  # fmt: skip
    start = Start(path.parent, resume=False, command=request.command)
    outcome = Outcome("finished", "", nothing, ())
    record = run_record(resolved, start, state, outcome, describe_backbone(resolved, network), device)
    if earlier is not None:
        if speed.note and earlier.backbone.inference_images_per_second is not None:
            say(f"{speed.note}; the earlier figure stays")
            return path, earlier
        path.unlink()
    write_record(record, path)
    return path, record


def _run_id(resolved: Resolved, request: SpeedRequest, device: torch.device) -> str:
    """One for each network, image size, batch and machine, e.g. `throughput-deit_s16-224px-b128-amd_epyc-2t`; settings
    of the network are told apart by the beginning of the recipe's digest."""
    words = ["throughput", resolved.recipe.arch, f"{request.image_px}px", f"b{request.batch}"]
    words += [resolved.recipe.digest[:4]] if request.values else []
    words += [device_name(device).lower(), f"{torch.get_num_threads()}t"]
    return "-".join(re.sub(r"[^\w.]+", "_", word) for word in words)
