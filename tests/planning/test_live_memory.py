"""The count of live tensors against sums by hand; sizes are multiples of 512 bytes, so that rounding shows only where
it is meant to."""

from __future__ import annotations

import torch
from torch._subclasses.fake_tensor import FakeTensorMode

from ssl_bench.planning.live_memory import LiveMemory
from ssl_bench.planning.shapes_alone import ShapesAlone

KB = 1024


def test_a_chain_of_products_by_hand() -> None:
    """a 4 KB; b = a + a 4 KB; c = b * b 4 KB; del b; d = c.sum() rounds up to 512 bytes: peak 12 KB + 0.5, now 8.5."""
    for tensors in (torch.no_grad(), FakeTensorMode(allow_non_fake_inputs=True), ShapesAlone()):  # type: ignore[no-untyped-call]
        memory = LiveMemory()
        with tensors, memory:
            a = torch.ones(32, 32)
            b = a + a
            c = b * b
            assert memory.peak == 12 * KB
            del b
            assert sum(memory.now.values()) == 8 * KB
            d = c.sum()
            assert sum(memory.now.values()) == 8 * KB + 512
            del a, c, d
            assert sum(memory.now.values()) == 0
            assert memory.peak == 12 * KB


def test_views_of_a_storage_count_once() -> None:
    memory = LiveMemory()
    with memory:
        a = torch.ones(64, 64)
        kept = a.t()[:3]
        del a
    assert sum(memory.now.values()) == memory.peak == 16 * KB
    del kept


def test_parts_are_of_the_moment_of_the_peak() -> None:
    memory = LiveMemory()
    weights = torch.ones(64, 64)
    memory.add([weights, None], "weights")
    with memory:
        first = weights + 1
        second = weights + 2
        memory.move([second], "gradients")
        third = weights + 3
        del first, second, third
    assert memory.at_peak == {"weights": 16 * KB, "activations": 32 * KB, "gradients": 16 * KB}
    assert memory.peak == 64 * KB
    assert +memory.now == {"weights": 16 * KB}
