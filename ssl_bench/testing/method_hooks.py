"""Checks of what a method may add to a run: `prepare`, `batch_views` and frozen parts."""

from __future__ import annotations

from random import Random

import torch
from torch import Tensor

from ssl_bench.method import Method
from ssl_bench.registry.preflight import wrong_frozen
from ssl_bench.testing.method_bench import (
    MIDDLE,
    STEPS_PER_EPOCH,
    Subject,
    moved,
    optimizer_of,
    same,
    some,
    state_of,
)
from ssl_bench.testing.outcomes import CheckSkipped, require


def prepare_moves_nothing_that_is_trained(subject: Subject) -> None:
    """`prepare` makes the same state from the same batches and moves no parameter."""
    if subject.plugin.prepare is Method.prepare:
        raise CheckSkipped("there is no prepare()")
    for bench in subject.benches:
        states = []
        for _ in range(2):
            method = bench.build(prepared=False)
            before = {name: parameter.detach().clone() for name, parameter in method.named_parameters()}
            bench.prepare(method)
            changed = moved(before, {name: parameter.detach() for name, parameter in method.named_parameters()})
            require(
                not changed,
                f"prepare() moves {some(changed)}: it may fill buffers; the optimizer and update() move parameters",
            )
            states.append(state_of(method))
        changed = moved(*states)
        require(
            not changed,
            f"prepare() makes a different {some(changed)} from the same batches: draw from torch's global generator, "
            "which the loop seeds, and from nothing else",
        )


def batch_views_depend_only_on_their_random_numbers(subject: Subject) -> None:
    """`batch_views` returns a tuple of tensors over the batch, bitwise the same for the same views and `Random`."""
    if subject.plugin.batch_views.__func__ is Method.batch_views.__func__:  # type: ignore[attr-defined]
        raise CheckSkipped("there is no batch_views()")
    for bench in subject.benches:
        made = []
        for seed in (1, 2):
            torch.manual_seed(seed)
            made.append(bench.kind.batch_views(bench.config, bench.batch(drawn=False).views, Random("step")))
        for views in made:
            require(
                isinstance(views, tuple) and all(isinstance(view, Tensor) for view in views),
                f"batch_views() gives {type(views).__name__}: return a tuple of tensors, the given views first",
            )
            short = [tuple(view.shape) for view in views if not view.ndim or len(view) != len(bench.batch().index)]
            require(
                not short, f"batch_views() gives a tensor of shape {short[:1]}: the first dimension must be the batch"
            )
        require(
            len(made[0]) == len(made[1]) and all(same(*pair) for pair in zip(*made, strict=True)),
            "batch_views() gives different views for the same Random: draw from its argument rng, e.g. "
            "torch.Generator().manual_seed(rng.getrandbits(63))",
        )


def frozen_parts_never_move(subject: Subject) -> None:
    """The parts in `frozen` exist, require no gradient and are bitwise the same after an epoch of steps."""
    if not subject.plugin.frozen:
        raise CheckSkipped("no part is declared frozen")
    for bench in subject.benches:
        method = bench.build()
        wrong = wrong_frozen(method)
        require(not wrong, f"the method {wrong}")
        optimizer = optimizer_of(method)
        parts = {name: method.get_submodule(name) for name in sorted(method.frozen)}
        before = {name: state_of(part, statistics=True) for name, part in parts.items()}
        for step in range(MIDDLE, MIDDLE + STEPS_PER_EPOCH):
            bench.train_step(method, optimizer, bench.batch(step), step)
        for name, part in parts.items():
            changed = moved(before[name], state_of(part, statistics=True))
            require(
                not changed,
                f"{name} is declared frozen, but its {some(changed)} moves: leave it alone in step() and update(), or "
                "take it out of `frozen`",
            )
