"""Checks of what a method trains: which parameters get a gradient, and that the loss falls along it."""

from __future__ import annotations

from collections.abc import Mapping

from torch import Tensor, nn

from ssl_bench.method import Method
from ssl_bench.testing.method_bench import MIDDLE, Subject, optimizer_of, some
from ssl_bench.testing.outcomes import require

STEPS_TO_FALL = 12


def loss_falls_on_one_batch(subject: Subject) -> None:
    """Twelve steps of AdamW at 1e-3 on one batch, with teacher, queue and center held still, lower the loss.

    Held still, because a queue that fills with one batch, or a target that sharpens, may raise a sound loss.
    """
    for bench in subject.working:
        method, batch = bench.build(), bench.batch()
        optimizer = optimizer_of(method)
        losses = [float(bench.train_step(method, optimizer, batch, update=False)) for _ in range(STEPS_TO_FALL + 1)]
        require(
            losses[-1] < losses[0] - 1e-3 * max(abs(losses[0]), 0.1),
            f"the loss goes from {losses[0]:.4f} to {losses[-1]:.4f} in {STEPS_TO_FALL} steps on one repeated batch "
            f"({bench.network.name}): look for a gradient that is reversed or scaled away, a student that "
            "is detached, before_optimizer() dropping gradients, or noise in the loss",
        )


def same_seed_same_loss(subject: Subject) -> None:
    """Built and stepped twice from the same seeds, a method gives bitwise the same losses."""
    for bench in subject.working:
        runs = []
        for _ in range(2):
            method = bench.build(seed=5)
            optimizer = optimizer_of(method)
            runs.append([float(bench.train_step(method, optimizer, bench.batch(), MIDDLE + i)) for i in range(2)])
        require(
            runs[0] == runs[1],
            f"the same seeds give the losses {runs[0]} and {runs[1]}: draw from torch's global generator, which the "
            "loop seeds, and from nothing else (no numpy, no clock, no generator that outlives a run)",
        )


def every_trained_parameter_gets_a_gradient(subject: Subject) -> None:
    """In one of three steps, every parameter that requires a gradient gets one that is not all 0."""
    for bench in subject.working:
        method = bench.build()
        optimizer = optimizer_of(method)
        without = {name for name, parameter in method.named_parameters() if parameter.requires_grad}
        for step in (0, MIDDLE, MIDDLE + 1):
            bench.step(method, bench.batch(step), step).loss.backward()  # type: ignore[no-untyped-call]
            for name, parameter in method.named_parameters():
                if parameter.grad is not None and bool(parameter.grad.any()):
                    without.discard(name)
            optimizer.step()
            optimizer.zero_grad(set_to_none=True)
        require(
            not without,
            f"{some(sorted(without))} never gets a gradient ({bench.network.name}): use it in the loss, or, if it is "
            "a teacher or otherwise not trained, freeze it with requires_grad_(False) in __init__",
        )


def parameter_groups_cover_what_is_trained(subject: Subject) -> None:
    """`parameter_groups` holds every trained parameter once, and no other."""
    for bench in subject.working:
        method = bench.build()
        listed = [id(parameter) for group in method.parameter_groups() for parameter in group.parameters]
        names = {id(parameter): name for name, parameter in method.named_parameters()}
        trained = {id(parameter) for parameter in method.parameters() if parameter.requires_grad}
        missing = [names[one] for one in trained - set(listed)]
        require(not missing, f"parameter_groups() leaves out {some(missing)}: it would never be trained")
        require(len(set(listed)) == len(listed), "parameter_groups() lists a parameter twice: make the groups disjoint")
        frozen = [names.get(one, "a parameter of no module") for one in set(listed) - trained]
        require(not frozen, f"parameter_groups() lists {some(frozen)}, which is not trained: leave it out")


def teacher_gets_no_gradient(subject: Subject) -> None:
    """No network that `update` moves toward another one, or that is frozen, has a gradient after the backward pass.

    A teacher is known by what happens to it: `update` moves it along the difference to another parameter of its shape.
    """
    for bench in subject.working:
        method = bench.build()
        optimizer = optimizer_of(method)
        before: dict[str, Tensor] = {}

        def remember(method: Method = method, before: dict[str, Tensor] = before) -> None:
            before.update({name: parameter.detach().clone() for name, parameter in method.named_parameters()})

        bench.train_step(method, optimizer, bench.batch(), before_update=remember)
        for name, parameter in method.named_parameters():
            if parameter.grad is None or not bool(parameter.grad.any()):
                continue
            require(
                parameter.requires_grad and not _follows_another(name, parameter.detach() - before[name], before),
                f"{name} has a gradient, but update() moves it like a teacher's: compute the teacher's output under "
                "torch.no_grad() in step(), and freeze it with requires_grad_(False) in __init__",
            )


def _follows_another(name: str, step: Tensor, before: Mapping[str, Tensor]) -> bool:
    """Whether `step` points from the parameter to another one of its shape, as a moving average's does."""
    if not bool(step.any()):
        return False
    for other, value in before.items():
        if other == name or value.shape != step.shape or step.numel() < 4:
            continue
        difference = value - before[name]
        cosine = nn.functional.cosine_similarity(step.flatten().double(), difference.flatten().double(), dim=0)
        if float(cosine) > 0.999:  # 0 where both are equal
            return True
    return False
