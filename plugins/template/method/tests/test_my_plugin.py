"""The contract of sslbench, check by check, and a case computed by hand."""

from __future__ import annotations

from collections.abc import Callable

import pytest
import torch
from my_plugin import MyPlugin, negative_cosine

from ssl_bench.testing import parametrize_with_checks


@parametrize_with_checks([MyPlugin], expected_failures={})
def test_contract(plugin: type, check: Callable[[type], None]) -> None:
    """`expected_failures={"name of the check": "reason"}` turns a check off for a reason."""
    check(plugin)


def test_loss_of_known_vectors() -> None:
    """Parallel vectors give -1, perpendicular ones 0: their mean is -1/2."""
    one, other = torch.tensor([[2.0, 0.0], [0.0, 3.0]]), torch.tensor([[1.0, 0.0], [5.0, 0.0]])
    assert float(negative_cosine(one, other)) == pytest.approx(-0.5)
