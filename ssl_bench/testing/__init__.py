"""Contract checks that a plugin author runs: in pytest by one decorator, or with `sslbench check NAME`.

    from ssl_bench.testing import parametrize_with_checks

    @parametrize_with_checks([MyMethod], expected_failures={"step reads no tensor value": "my loss picks by value"})
    def test_contract(plugin, check):
        check(plugin)

`checking` runs them; `methods` lists the checks of a method (`method_*` hold them), `backbones`, `evaluators`,
`datasets` and `loggers` hold those of their kind, `common` what all kinds share, `subjects` the networks and images
they run on.
"""

from ssl_bench.testing.checking import Check, checks_of, kind_of, parametrize_with_checks, run_checks
from ssl_bench.testing.outcomes import CheckFailed, CheckResult, CheckSkipped

__all__ = [
    "Check",
    "CheckFailed",
    "CheckResult",
    "CheckSkipped",
    "checks_of",
    "kind_of",
    "parametrize_with_checks",
    "run_checks",
]
