"""The moving average of weights against a loop over numbers."""

import pytest
import torch
from torch import nn

from ssl_bench.blocks.ema import copy_weights, move_towards


def network(seed, dtype=torch.float64):
    torch.manual_seed(seed)
    return nn.Sequential(nn.Conv2d(3, 4, 3), nn.BatchNorm2d(4), nn.Linear(5, 2)).to(dtype)


@pytest.mark.parametrize("momentum", [0.0, 0.3, 0.996, 1.0])
def test_each_number_is_averaged(momentum):
    teacher, student = network(0), network(1)
    expected = [
        [momentum * t + (1 - momentum) * s for t, s in zip(a.flatten().tolist(), b.flatten().tolist(), strict=True)]
        for a, b in zip(teacher.parameters(), student.parameters(), strict=True)
    ]
    move_towards(teacher, student, momentum)
    for parameter, numbers in zip(teacher.parameters(), expected, strict=True):
        assert parameter.flatten().tolist() == pytest.approx(numbers, abs=1e-12)


def test_buffers_and_the_student_stay():
    teacher, student = network(0), network(1)
    student[1].running_mean.fill_(7.0)
    student[1].num_batches_tracked.fill_(3)
    before = {name: value.clone() for name, value in student.state_dict().items()}
    move_towards(teacher, student, 0.5)
    assert teacher[1].running_mean.tolist() == [0.0] * 4
    assert int(teacher[1].num_batches_tracked) == 0
    assert all(torch.equal(value, before[name]) for name, value in student.state_dict().items())


def test_bitwise_the_same_twice_and_in_any_memory_format():
    results = []
    for memory_format in (torch.contiguous_format, torch.contiguous_format, torch.channels_last):
        teacher, student = network(0, torch.float32), network(1, torch.float32)
        teacher[0].to(memory_format=memory_format)
        student[0].to(memory_format=memory_format)
        for momentum in (0.99, 0.999, 0.5):
            move_towards(teacher, student, momentum)
        results.append([parameter.detach().clone() for parameter in teacher.parameters()])
    for other in results[1:]:
        assert all(torch.equal(a, b) for a, b in zip(results[0], other, strict=True))


def test_parameters_go_together_by_name():
    """A student with a predictor in the middle has more parameters than its teacher."""
    torch.manual_seed(0)
    teacher = nn.ModuleDict({"first": nn.Linear(2, 2), "last": nn.Linear(2, 2)})
    student = nn.ModuleDict({"first": nn.Linear(2, 2), "predictor": nn.Linear(2, 2), "last": nn.Linear(2, 2)})
    copy_weights(teacher, student)
    assert torch.equal(teacher["first"].weight, student["first"].weight)
    assert torch.equal(teacher["last"].weight, student["last"].weight)


def test_no_gradient_is_recorded():
    teacher, student = network(0).requires_grad_(False), network(1)
    move_towards(teacher, student, 0.5)
    assert all(p.grad_fn is None and not p.requires_grad for p in teacher.parameters())
