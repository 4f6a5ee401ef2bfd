"""Checks of one step of a method: loss, logs, carry, and what it must not change."""

from __future__ import annotations

import time
from typing import Any

import torch
from torch import Tensor
from torch._subclasses.fake_tensor import DataDependentOutputException, FakeTensorMode

from ssl_bench.method import Batch, StepOutput
from ssl_bench.testing.method_bench import MIDDLE, Subject, progress_at, same
from ssl_bench.testing.outcomes import CheckFailed, require

SLOWEST_STEP_SECONDS = 5.0


def loss_is_a_finite_scalar(subject: Subject) -> None:
    """`step` returns a StepOutput whose loss is one finite number with a gradient, at the start and in the middle."""
    for bench in subject.benches:
        method = bench.build()
        for step in (0, MIDDLE):
            output = bench.step(method, bench.batch(), step)
            require(
                isinstance(output, StepOutput) and isinstance(output.loss, Tensor),
                f"step() gives {type(output).__name__}: return StepOutput(loss, logs, carry)",
            )
            loss = output.loss
            require(
                loss.ndim == 0 and loss.is_floating_point(),
                f"the loss is {loss.dtype} of shape {tuple(loss.shape)}: reduce it to one number, e.g. loss.mean()",
            )
            require(
                bool(torch.isfinite(loss)),
                f"the loss is {loss.item()} at step {step} on {bench.network.name}: look for a logarithm or a "
                "division by 0, and for a normalization without eps",
            )
            require(
                loss.requires_grad,
                "the loss has no gradient: compute the student's part outside of torch.no_grad() and without detach()",
            )


def logs_are_scalars_without_gradient(subject: Subject) -> None:
    """Every value of `logs` and of `batch_logs` is one number without a graph."""
    for bench in subject.working:
        method = bench.build()
        output = bench.step(method, bench.batch())
        for name, value in {**output.logs, **method.batch_logs(output.carry)}.items():
            require(
                isinstance(value, Tensor) and value.numel() == 1 and value.ndim == 0,
                f"logs[{name!r}] is {_shown(value)}: log one number as a tensor of shape (), e.g. value.mean()",
            )
            require(not value.requires_grad, f"logs[{name!r}] keeps the graph alive: log {name}.detach()")


def carry_has_a_leading_dimension_and_no_gradient(subject: Subject) -> None:
    """Tensors of `carry` can be concatenated over micro-batches and have no graph."""
    for bench in subject.working:
        for name, value in bench.step(bench.build(), bench.batch()).carry.items():
            require(
                isinstance(value, Tensor) and value.ndim >= 1,
                f"carry[{name!r}] is {_shown(value)}: give it a leading dimension over samples or partial sums, "
                "e.g. mean[None]",
            )
            require(not value.requires_grad, f"carry[{name!r}] keeps the graph alive: carry {name}.detach()")


def step_leaves_the_batch_as_it_is(subject: Subject) -> None:
    """`step` does not write into the views: the loop may use a batch twice."""
    for bench in subject.working:
        batch, kept = bench.batch(), bench.batch()
        bench.step(bench.build(), batch)
        pairs = zip((*batch.views, batch.index), (*kept.views, kept.index), strict=True)
        require(
            all(same(one, other) for one, other in pairs),
            "step() changes the batch in place: write `views = views + noise` instead of `views += noise`",
        )


def step_reads_no_tensor_value(subject: Subject) -> None:
    """`step` runs on fake tensors, which predict the memory of a run."""
    for bench in subject.working:
        method, real = bench.build(), bench.batch()
        with FakeTensorMode(allow_non_fake_inputs=True):
            views = tuple(torch.empty(view.shape, dtype=view.dtype) for view in real.views)
            index = torch.empty(real.index.shape, dtype=torch.int64)
            labels = None if real.labels is None else torch.empty(real.labels.shape, dtype=torch.int64)
            try:
                method.step(Batch(views, index, labels), progress_at(MIDDLE))
            except DataDependentOutputException as error:
                raise CheckFailed(
                    f"step() reads the value of a tensor on the host ({error}): leave out .item(), float(tensor) and "
                    "`if tensor:` there; use torch.where, or decide in update()"
                ) from error


def a_step_takes_seconds(subject: Subject) -> None:
    """A step of eight small images on a narrow network takes at most 5 s on a CPU: it is used in tests."""
    for bench in subject.working:
        method, batch = bench.build(), bench.batch()
        begun = time.process_time()
        bench.step(method, batch).loss.backward()  # type: ignore[no-untyped-call]
        seconds = time.process_time() - begun
        require(
            seconds <= SLOWEST_STEP_SECONDS,
            f"a step takes {seconds:.1f} s of CPU time on {bench.network.name}: give the method a preset "
            '"small-data" with a smaller head, queue or number of prototypes',
        )


def _shown(value: Any) -> str:
    return f"a tensor of shape {tuple(value.shape)}" if isinstance(value, Tensor) else repr(value)
