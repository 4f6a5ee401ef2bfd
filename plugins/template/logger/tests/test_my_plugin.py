"""The contract of sslbench, check by check."""

from __future__ import annotations

from collections.abc import Callable

from my_plugin import MyPlugin

from ssl_bench.testing import parametrize_with_checks


@parametrize_with_checks([MyPlugin], expected_failures={})
def test_contract(plugin: type, check: Callable[[type], None]) -> None:
    """`expected_failures={"name of the check": "reason"}` turns a check off for a reason."""
    check(plugin)
