"""Checks of a method's state: only `update` moves it, and a resumed run restores it."""

from __future__ import annotations

import tempfile
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from ssl_bench.backbone import Backbone
from ssl_bench.method import Method
from ssl_bench.testing.method_bench import (
    MIDDLE,
    STEPS_PER_EPOCH,
    Subject,
    moved,
    optimizer_of,
    progress_at,
    some,
    state_of,
)
from ssl_bench.testing.outcomes import CheckFailed, CheckSkipped, require
from ssl_bench.training.checkpoint import load_latest, save_checkpoint


def step_moves_no_state(subject: Subject) -> None:
    """`step` leaves `state_dict()` and the method's own numbers as they are, but for batch norm's running statistics.

    Those are left out because batch norm writes them in every forward pass in training mode.
    """
    for bench in subject.working:
        method = bench.build()
        for step in (0, MIDDLE):
            before, plain = state_of(method), _plain(method)
            bench.step(method, bench.batch(), step)
            changed = moved(before, state_of(method)) + moved_plain(plain, _plain(method))
            require(
                not changed,
                f"step() moves {some(changed)}: return what is needed in `carry` and move state in update(), which "
                "the loop calls once per optimizer step",
            )


def before_optimizer_moves_no_state(subject: Subject) -> None:
    """`before_optimizer` changes gradients only: no parameter, no buffer, no other attribute of the method."""
    for bench in subject.working:
        method = bench.build()
        if not any(parameter.requires_grad for parameter in method.parameters()):
            raise CheckSkipped("nothing is trained")
        optimizer = optimizer_of(method)
        for step in (0, MIDDLE, MIDDLE + STEPS_PER_EPOCH - 1):  # the first and the last one of an epoch
            bench.train_step(method, optimizer, bench.batch(step), step)  # so that the teacher differs from its student
            bench.step(method, bench.batch(step), step).loss.backward()  # type: ignore[no-untyped-call]
            before, plain = state_of(method, statistics=True), _plain(method)
            method.before_optimizer(progress_at(step))
            changed = moved(before, state_of(method, statistics=True)) + moved_plain(plain, _plain(method))
            require(
                not changed,
                f"before_optimizer() moves {some(changed)}: it may clip or drop gradients; move state in update()",
            )


def state_moves_in_update(subject: Subject) -> None:
    """State that no gradient trains (teacher, queue, center) moves within an epoch of steps and updates.

    A network without any trained weight must not stay as it was; of the method's own buffers, one at least has to move.
    """
    for bench in subject.working:
        method = bench.build()
        trained = {name for name, parameter in method.named_parameters() if parameter.requires_grad}
        frozen = {name for name, _ in method.named_parameters() if not _is_declared(name, method)} - trained
        held = {name.partition(".")[0] for name in frozen} - {name.partition(".")[0] for name in trained}
        parameters = {name for name, _ in method.named_parameters()}
        buffers = {
            name
            for name in state_of(method)
            if name not in parameters and _is_own(name, method) and not _is_declared(name, method)
        }
        if not held and not buffers:
            raise CheckSkipped("there is no state besides the trained parameters")
        optimizer, before = optimizer_of(method), state_of(method)
        for step in range(MIDDLE, MIDDLE + STEPS_PER_EPOCH):
            bench.train_step(method, optimizer, bench.batch(step), step)
        changed = set(moved(before, state_of(method)))
        for top in sorted(held):
            group = {name for name in frozen if name.partition(".")[0] == top}
            require(
                bool(group & changed),
                f"{top} ({len(group)} frozen tensors) is the same after {STEPS_PER_EPOCH} steps: move it in update(), "
                "e.g. ssl_bench.blocks.ema.move_towards(self.teacher, self.student, momentum)",
            )
        if buffers:
            require(
                bool(buffers & changed),
                f"{some(sorted(buffers))} is the same after {STEPS_PER_EPOCH} steps: move it in update(), in place "
                "(self.center.lerp_(...), not self.center = ...)",
            )


def state_is_saved_and_restored_bit_for_bit(subject: Subject) -> None:
    """A new method with the saved state continues like the saved one: the same state, the same next losses."""
    for bench in subject.working:
        method = bench.build()
        optimizer = optimizer_of(method)
        for step in range(MIDDLE, MIDDLE + 2):
            bench.train_step(method, optimizer, bench.batch(step), step)
        with tempfile.TemporaryDirectory() as folder:
            save_checkpoint(Path(folder), 2, method.state_dict(), optimizer.state_dict(), {})
            saved = load_latest(Path(folder))
        assert saved is not None
        restored = bench.build(seed=99)
        again = optimizer_of(restored)
        try:
            restored.load_state_dict(saved.method)
        except RuntimeError as error:
            raise CheckFailed(
                f"a new method does not take the saved state: {error}. Make every buffer in __init__ with its final "
                "shape"
            ) from error
        again.load_state_dict(saved.optimizer)
        changed = moved(state_of(method, statistics=True), state_of(restored, statistics=True))
        require(not changed, f"{some(changed)} is not what was saved: do not compute state in load_state_dict")
        for step in range(MIDDLE + 2, MIDDLE + 4):
            batch = bench.batch(step)
            losses = [
                float(bench.train_step(one, its, batch, step)) for one, its in ((method, optimizer), (restored, again))
            ]
            require(
                losses[0] == losses[1],
                f"after a restart the next loss is {losses[1]!r} instead of {losses[0]!r}: state is kept outside of "
                "state_dict(); register it with register_buffer() instead of a plain attribute",
            )


def _plain(method: Method) -> dict[str, Any]:
    """The method's attributes that are numbers, strings or tensors and not part of `state_dict`."""
    values: dict[str, Any] = {}
    for name, value in vars(method).items():
        if isinstance(value, Tensor):
            values[name] = value.detach().clone()
        elif isinstance(value, (int, float, str)) and name != "training":
            values[name] = value
    return values


def moved_plain(before: Mapping[str, Any], after: Mapping[str, Any]) -> list[str]:
    """Names of plain attributes that have changed."""
    changed = []
    for name in dict.fromkeys([*before, *after]):
        one, other = before.get(name), after.get(name)
        if isinstance(one, Tensor) and isinstance(other, Tensor):
            equal = one.shape == other.shape and torch.equal(one, other)
        else:
            equal = type(one) is type(other) and one == other
        if not equal:
            changed.append(name)
    return changed


def _is_declared(name: str, method: Method) -> bool:
    """Whether a tensor belongs to a part that `frozen` names."""
    return any(name.startswith(f"{part}.") for part in method.frozen)


def _is_own(name: str, method: Method) -> bool:
    """Whether a buffer belongs to the method itself or its losses, not to a backbone (e.g. a table of positions)."""
    inside = [prefix for prefix, module in method.named_modules() if isinstance(module, Backbone)]
    return not any(name.startswith(f"{prefix}.") for prefix in inside)
