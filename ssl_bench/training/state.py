"""The state of training besides the tensors: what a resumed run continues from and the record reports."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Mapping
from dataclasses import dataclass, field

import torch

from ssl_bench.errors import UserError
from ssl_bench.method import Method
from ssl_bench.training.checkpoint import Checkpoint
from ssl_bench.training.precision import ScalingState


@dataclass
class TrainingState:
    """What a resumed run needs besides the tensors."""

    step: int = 0
    seconds: float = 0.0
    cpu_seconds: float = 0.0
    """CPU time of the main process during `seconds`."""
    waited_seconds: float | None = 0.0
    """Seconds for which its main thread waited for a core; None where the system does not report them."""
    resumed: int = 0
    sums: dict[str, float] = field(default_factory=dict)
    """Sums of the logged values over the current epoch."""
    counted: int = 0
    final_logs: dict[str, float] = field(default_factory=dict)
    """Means over the last complete epoch, and the last probe of the features."""
    probed: dict[str, float] = field(default_factory=dict)
    """The doctor's last probe of the features."""
    lasting: dict[str, int] = field(default_factory=dict)
    """For how many steps each sign of a collapse that shows now has been present, by its cause."""
    micro_batches: dict[str, int] = field(default_factory=dict)
    """Steps done in micro-batches, by the largest number of images in one; a resumed run may use others."""
    scaling: ScalingState = field(default_factory=ScalingState)
    """Of the loss in fp16."""
    peak_memory_mb: float = 0.0
    """Highest memory of training on a card, not counting what `after_step` takes; in 2^20 bytes, 0 on a CPU."""

    def add_to_means(self, logs: Mapping[str, float], *, epoch_done: bool) -> None:
        """Count a step's values for the epoch's means, none of a skipped step; `final_logs` at the end of the epoch."""
        sums: defaultdict[str, float] = defaultdict(float, self.sums)
        for name, value in logs.items():
            sums[name] += value
        self.sums, self.counted = dict(sums), self.counted + bool(logs)
        if epoch_done:
            self.final_logs = {name: value / self.counted for name, value in self.sums.items()} | self.probed
            self.sums, self.counted = {}, 0

    def note_peak(self, device: torch.device) -> None:
        """Raise `peak_memory_mb` to the highest memory of a card since `reset_peak`."""
        if device.type == "cuda":
            self.peak_memory_mb = max(self.peak_memory_mb, torch.cuda.max_memory_allocated(device) / 2**20)


def reset_peak(device: torch.device) -> None:
    """Forget what a card held in memory before now."""
    if device.type == "cuda":
        torch.cuda.reset_peak_memory_stats(device)


def restore(method: Method, optimizer: torch.optim.Optimizer, checkpoint: Checkpoint) -> TrainingState:
    """Restore method and optimizer from a checkpoint, bit for bit and in the same memory formats.

    Raises `UserError` for a checkpoint of another network or of another version of sslbench.
    """
    try:
        method.load_state_dict(checkpoint.method)
        optimizer.load_state_dict(checkpoint.optimizer)
        scaling = ScalingState(**checkpoint.state.get("scaling", {}))
        state = TrainingState(**{**checkpoint.state, "scaling": scaling})
    except (RuntimeError, ValueError, KeyError, TypeError) as error:
        raise UserError(
            f"the checkpoint does not fit this run ({str(error).splitlines()[0]}): it is from another run or "
            "from another version of sslbench or of the method's plugin. Start the run again with --restart."
        ) from None
    state.resumed += 1
    return state
