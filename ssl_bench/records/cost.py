"""The parts of a record that say what a run cost: on which machine, how fast, in how much time and memory."""

from __future__ import annotations

from typing import Literal

from ssl_bench.records.part import Amount, RecordPart


class SpeedRecord(RecordPart):
    """Images per second of a network, with the evidence that nothing else slowed it down."""

    inference_images_per_second: Amount | None = None
    """At `inference_batch` images per forward pass, fp32, on the run's device."""
    inference_batch: int | None = None
    inference_spread: Amount | None = None
    """(Longest - shortest) / median time of the rounds that count (`speed`); None for a single one."""
    inference_cpu_share: Amount | None = None
    """CPU time / (wall clock time x threads) of the rounds; None in records that did not look at it."""
    inference_note: str = ""
    """Why the rate is left out, e.g. because the machine was busy."""


class MachineRecord(RecordPart):
    """Where it ran."""

    device: str
    cores: int
    threads: int
    precision: str
    """fp32, bf16 or fp16 (autocast), as chosen; `precision_reason` says why."""
    precision_reason: str
    platform: str
    activation_checkpointing: bool | None = None
    """Whether activations were computed again in the backward pass; None in records that did not say."""
    tf32: bool | None = None
    """Whether fp32 products could use TF32; None on devices without it, and in records of earlier versions, which left
    torch's default: TF32 in convolutions only."""
    compiled: bool | None = None
    """Whether the networks were compiled by torch.compile; None in records of earlier versions."""
    augment_on: Literal["workers", "device"] | None = None
    """Where views got their color; None in records of earlier versions: in the workers."""


class MicroBatchRecord(RecordPart):
    """Steps that saw their batch in micro-batches."""

    images: int
    """Most images in a forward pass."""
    steps: int
    exact: bool
    """Whether gradients are those of the whole batch."""
    reason: str = ""
    """Why they are not, e.g. "batch norm sees 32 images of 256"."""


class MemoryRecord(RecordPart):
    """How a step was planned for the memory there was; `TrainingRecord.peak_memory_mb` is what was measured."""

    memory_mb: Amount
    """What the run was given (`--memory`), or what was free; in 2^20 bytes, as all sizes here."""
    usable_mb: Amount
    """Of it, what tensors can use."""
    predicted_peak_mb: Amount | None = None
    """Of the tensors of a training step; None: it could not be told."""
    predicted_by: str = ""
    """"upper bound" where that was clearly below the limit, "prediction", or "measured small steps"."""
    micro_batch: int | None = None
    """Images at once; None: the whole batch."""
    activation_checkpointing: bool = False
    stepped_down: tuple[str, ...] = ()
    """What was changed where memory ran out despite the plan, and at which step."""
    note: str = ""
    """E.g. why micro-batches are an approximation, or by how much a limit was exceeded."""


class TrainingRecord(RecordPart):
    """What training cost and how it ended."""

    steps: int
    epochs: Amount
    seconds: Amount
    """Of training steps and data loading, over all sessions of a resumed run; evaluation not included."""
    cpu_seconds: Amount | None = None
    """CPU time of the main process during `seconds`; None in records of earlier versions."""
    waited_share: Amount | None = None
    """Part of `seconds` in which the main thread could have run and another process had its core; None where the system
    does not tell, and in records of earlier versions."""
    undisturbed_seconds: Amount | None = None
    """`seconds` where the machine was quiet: what tables compare; None where it was busy or nothing tells."""
    timing_note: str = ""
    """Why the time does not count, e.g. because the machine was busy."""
    images_per_second: Amount
    peak_memory_mb: Amount
    """Highest resident memory of the main process on a CPU, of the allocator in training on a GPU; in 2^20 bytes."""
    resumed: int
    """Number of resumes."""
    final_logs: dict[str, float]
    """Mean of each logged value over the last epoch."""
    micro_batches: tuple[MicroBatchRecord, ...] = ()
    """One for each size of micro-batches; empty where every step saw its whole batch at once."""
    memory: MemoryRecord | None = None
    """None in records of earlier versions, and where nothing was trained."""
    skipped_steps: int = 0
    """Steps of `steps` that moved nothing, because gradients overflowed in fp16."""
