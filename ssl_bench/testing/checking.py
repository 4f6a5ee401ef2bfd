"""Running the checks of a kind on a plugin: as a list of results or as parametrized pytest tests."""

from __future__ import annotations

import importlib
import inspect
import traceback
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

from ssl_bench.backbone import Backbone
from ssl_bench.dataset import Dataset
from ssl_bench.errors import UserError, did_you_mean
from ssl_bench.evaluator import Evaluator
from ssl_bench.logger import Logger
from ssl_bench.method import Method
from ssl_bench.registry.entry_points import KINDS, Kind
from ssl_bench.testing.outcomes import CheckFailed, CheckResult, CheckSkipped

if TYPE_CHECKING:
    import pytest

CONTRACTS: Mapping[Kind, type] = {
    "method": Method,
    "backbone": Backbone,
    "evaluator": Evaluator,
    "dataset": Dataset,
    "logger": Logger,
}


@dataclass(frozen=True)
class Check:
    """One named check; calling it on a plugin class raises `CheckFailed` or `CheckSkipped`, or returns."""

    name: str
    meaning: str
    """The first line of the check's docstring."""
    look: Callable[[Any], None]
    """The check itself, called with the subject made from a plugin."""
    subject: Callable[[type], Any]

    def __call__(self, plugin: type) -> None:
        """Check `plugin`. An exception of the plugin becomes a `CheckFailed` that names the plugin's line."""
        try:
            self.look(self.subject(plugin))
        except (CheckFailed, CheckSkipped):
            raise
        except Exception as error:  # third-party code may raise anything
            raise CheckFailed(f"{type(error).__name__}: {error}{_place(plugin, error)}") from error


def kind_of(plugin: type) -> Kind:
    """The kind of plugin that a class is. Raises `UserError` if it is none."""
    for kind in KINDS:
        if isinstance(plugin, type) and issubclass(plugin, CONTRACTS[kind]):
            return kind
    known = ", ".join(f"{contract.__module__}.{contract.__name__}" for contract in CONTRACTS.values())
    raise UserError(f"{plugin!r} is not a plugin: it must be a subclass of one of {known}")


def checks_of(kind: Kind, settings: Mapping[str, Any] | None = None, path: Path | None = None) -> list[Check]:
    """The checks of a kind, the most fundamental ones first.

    `settings` replace those of the plugin's Config that the checks would choose, `path` is a dataset's folder.
    What the checks of one list have in common, such as a network or a measurement, is made once per plugin.
    """
    module = importlib.import_module(f"ssl_bench.testing.{kind}s")
    made: dict[type, Any] = {}

    def subject(plugin: type) -> Any:
        if plugin not in made:
            made[plugin] = module.Subject(plugin, dict(settings or {}), path)
        return made[plugin]

    return [
        Check(look.__name__.replace("_", " "), (inspect.getdoc(look) or "").partition("\n")[0], look, subject)
        for look in module.CHECKS
    ]


def run_checks(
    kind: Kind,
    plugin: type,
    *,
    expected_failures: Mapping[str, str] | None = None,
    settings: Mapping[str, Any] | None = None,
    path: Path | None = None,
    report: Callable[[CheckResult], None] = lambda result: None,
) -> list[CheckResult]:
    """Every check of `kind` on `plugin`; `report` is called after each.

    `expected_failures` maps names of checks to the reason why they may fail; a class can carry its own in an attribute
    of that name. An expected failure that passes is a failure: the reason no longer holds. Raises `UserError` for a
    plugin of another kind or a name that is no check.
    """
    if kind_of(plugin) != kind:
        raise UserError(f"{plugin.__name__} is a {kind_of(plugin)}, not a {kind}")
    checks = checks_of(kind, settings, path)
    expected = _expected(plugin, expected_failures, checks)
    results = []
    for check in checks:
        results.append(_result(check, plugin, expected.get(check.name)))
        report(results[-1])
    return results


def parametrize_with_checks(
    plugins: Sequence[type],
    *,
    expected_failures: Mapping[str, str] | None = None,
    settings: Mapping[str, Any] | None = None,
    path: Path | None = None,
) -> pytest.MarkDecorator:
    """A pytest decorator for a test with the arguments (plugin, check), one test for each check of each class.

    Expected failures become strict xfails with their reason, checks that do not apply are skipped.
    """
    import pytest

    cases = []
    for plugin in plugins:
        checks = checks_of(kind_of(plugin), settings, path)
        expected = _expected(plugin, expected_failures, checks)
        for check in checks:
            marks = []
            if check.name in expected:
                marks = [pytest.mark.xfail(reason=expected[check.name], strict=True, raises=CheckFailed)]
            run = partial(_in_pytest, check)
            cases.append(pytest.param(plugin, run, marks=marks, id=f"{plugin.__name__}-{check.name}"))
    return pytest.mark.parametrize(("plugin", "check"), cases)


def _in_pytest(check: Check, plugin: type) -> None:
    import pytest

    __tracebackhide__ = True
    try:
        check(plugin)
    except CheckSkipped as skipped:
        pytest.skip(str(skipped))


def _expected(plugin: type, given: Mapping[str, str] | None, checks: Sequence[Check]) -> dict[str, str]:
    expected = {**getattr(plugin, "expected_failures", {}), **(given or {})}
    names = [check.name for check in checks]
    for name in expected:
        if name not in names:
            raise UserError(f"expected_failures names no check {name!r}.{did_you_mean(name, names)} Checks: {names}")
    return expected


def _result(check: Check, plugin: type, expected: str | None) -> CheckResult:
    try:
        check(plugin)
    except CheckSkipped as skipped:
        return CheckResult(check.name, "skipped", str(skipped))
    except CheckFailed as failed:
        if expected is not None:
            return CheckResult(check.name, "expected failure", expected)
        return CheckResult(check.name, "failed", str(failed))
    if expected is not None:
        return CheckResult(
            check.name,
            "failed",
            f"passes although it was expected to fail ({expected}): remove it from expected_failures",
        )
    return CheckResult(check.name, "ok")


def _place(plugin: type, error: BaseException) -> str:
    """Where in the plugin's own files an exception came from, e.g. " (my_method.py, line 42)"."""
    try:
        folder = Path(inspect.getfile(plugin)).parent
    except (OSError, TypeError):
        return ""
    lines = [frame for frame in _frames(error) if Path(frame.filename).is_relative_to(folder)]
    return f" ({Path(lines[-1].filename).name}, line {lines[-1].lineno})" if lines else ""


def _frames(error: BaseException) -> Iterator[traceback.FrameSummary]:
    yield from traceback.extract_tb(error.__traceback__)
