"""Every variant of DINO in sslbench's tables: its loss against the paper's equations written with loops.

The settings come from the descriptions, so that a row added there is checked here. Tolerance 1e-9 in float64, 1e-6 for
Sinkhorn.
"""

from __future__ import annotations

import math

import pytest
import torch

from ssl_bench.tables.loading import built_in_tables, load_table
from tests.plugins.methods.test_dino import LATER, K, a_batch, method, pairs, softmax, state, views


def dino_variants() -> dict[str, dict]:
    """ "Table: variant" -> settings of the method, each combination once."""
    found, seen = {}, set()
    for table in built_in_tables():
        runs = load_table(table).description.runs
        for variant in runs.variant if runs else ():
            given = {n.removeprefix("method."): v for n, v in variant.set.items() if n.startswith("method.")}
            key = repr(sorted(given.items()))
            if variant.method == "dino" and key not in seen:
                seen.add(key)
                found[f"{table}: {variant.name}"] = given
    return found


VARIANTS = dino_variants()


def test_the_tables_have_every_switch_of_the_ablations():
    settings = {(name, value) for given in VARIANTS.values() for name, value in given.items()}
    assert {
        ("teacher", "student_copy"), ("teacher", "previous_iteration"), ("teacher", "previous_epoch"),
        ("assignment", "sinkhorn"), ("assignment", "softmax"), ("loss", "mse"), ("predictor", True),
        ("local_views", 0), ("local_views", 2), ("local_views", 6), ("local_views", 10), ("teacher_temperature", 0.1),
    } <= settings  # fmt: skip


@pytest.mark.parametrize("name", VARIANTS)
def test_the_loss_is_the_equations(name):
    given = VARIANTS[name]
    dino = method(**given)
    images = views(batch=3, local_views=dino.config.local_views)
    with torch.no_grad():
        dino.center.copy_(torch.linspace(-0.2, 0.2, K))
        for parameter in dino.teacher.parameters():  # another network than the student
            parameter.mul_(1.05)
    out = dino.step(a_batch(images), LATER)
    assert out.loss.item() == pytest.approx(
        slow_loss(dino, images, given), abs=1e-6 if given.get("assignment") == "sinkhorn" else 1e-9
    )


def slow_loss(dino, images, given) -> float:
    start, end = given.get("teacher_temperature_start", 0.04), given.get("teacher_temperature", 0.07)
    temperature = start + (end - start) * 3 / 29  # epoch 3 of a ramp over 30 epochs
    with torch.no_grad():
        teacher = torch.stack([scores_of(dino.teacher, view) for view in images[:2]])
        student = torch.stack([scores_of(dino.student, view) for view in images])
    centered = teacher - dino.center if given.get("assignment", "centering") == "centering" else teacher
    if given.get("loss") == "mse":
        cosines = [cosine(t, s) for t, s in pairs(centered, student)]
        return 2 - 2 * sum(cosines) / len(cosines)
    if given.get("assignment") == "sinkhorn":
        rows = [sinkhorn_in_loops(view.tolist(), temperature) for view in teacher]
    else:
        rows = [[softmax([x / temperature for x in row]) for row in view.tolist()] for view in centered]
    targets = torch.tensor(rows, dtype=torch.float64)
    entropies = [
        -sum(p * math.log(q) for p, q in zip(t, softmax([x / 0.1 for x in s]), strict=True))
        for t, s in pairs(targets, student)
    ]
    return sum(entropies) / len(entropies)


def scores_of(network, view):
    """Backbone, MLP, a predictor where there is one, l2-normalization, normalized rows (section 3.1)."""
    hidden = network.head.mlp(network.backbone(view))
    if len(list(network.head.predictor.parameters())):
        first, _, second = network.head.predictor
        pre = hidden @ first.weight.T + first.bias
        gelu = pre * 0.5 * (1 + torch.erf(pre / math.sqrt(2)))
        hidden = gelu @ second.weight.T + second.bias
    rows = network.head.last_layer.rows
    return (hidden / hidden.norm(dim=1, keepdim=True)) @ (rows / rows.norm(dim=1, keepdim=True)).T


def cosine(one, other) -> float:
    return sum(a * b for a, b in zip(one, other, strict=True)) / math.dist(one, [0] * K) / math.dist(other, [0] * K)


def sinkhorn_in_loops(scores, temperature):
    table = [[math.exp(x / temperature) for x in row] for row in scores]
    for _ in range(3):
        totals = [sum(row[column] for row in table) for column in range(K)]
        table = [[x / total for x, total in zip(row, totals, strict=True)] for row in table]
        table = [[x / sum(row) for x in row] for row in table]
    return table


def test_only_the_student_has_a_predictor_and_no_other_variant_has():
    for name, given in VARIANTS.items():
        dino = method(**given)
        assert not list(dino.teacher.head.predictor.parameters()), name
        assert bool(list(dino.student.head.predictor.parameters())) is given.get("predictor", False), name


@pytest.mark.parametrize("name", VARIANTS)
def test_an_update_moves_what_the_variant_says(name):
    """The center only where it is subtracted; the teacher in the middle of an epoch."""
    given = VARIANTS[name]
    dino = method(**given)
    out = dino.step(a_batch(views(local_views=dino.config.local_views)), LATER)
    before = state(dino.teacher)
    with torch.no_grad():
        for parameter in dino.student.parameters():
            parameter.add_(0.01)
    dino.update(out.carry, LATER)
    assert bool(dino.center.any()) is (given.get("assignment", "centering") == "centering")
    momentum = 1 - 0.004 * (1 + math.cos(math.pi * LATER.step / LATER.total_steps)) / 2
    student = state(dino.student)
    for key, value in dino.teacher.state_dict().items():
        expected = {
            "momentum": momentum * before[key] + (1 - momentum) * student[key],
            "student_copy": student[key],
            "previous_iteration": before[key],  # the student before this step is the teacher's own start
            "previous_epoch": student[key] if (LATER.step + 1) % LATER.steps_per_epoch == 0 else before[key],
        }[given.get("teacher", "momentum")]
        torch.testing.assert_close(value, expected, atol=1e-12, rtol=0)
