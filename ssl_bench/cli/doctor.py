"""`sslbench doctor`: what this machine has and can do, and what to fix."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from ssl_bench.cli.encodings import print_json
from ssl_bench.cli.options import RESULTS

if TYPE_CHECKING:
    from ssl_bench.doctor.findings import Findings, Problem


def register(app: typer.Typer) -> None:
    """Add the verb."""

    @app.command(epilog="Example: sslbench doctor --json")
    def doctor(
        results: Annotated[Path, typer.Option(metavar="DIR", help="where runs are kept")] = RESULTS,
        as_json: Annotated[bool, typer.Option("--json", help="print one JSON document")] = False,
    ) -> None:
        """Examine this machine: devices, torch build, speeds, FAISS, disks, packages, plugins. Takes seconds.

        Ends with what to fix, the most important first. Exit status 1 where something does not work.
        """
        from ssl_bench.doctor.examination import examine
        from ssl_bench.doctor.findings import by_importance

        found: dict[str, Findings] = {}
        for title, findings in examine(results):
            found[title] = findings
            if not as_json:
                _show(title, findings)
        problems = by_importance([problem for findings in found.values() for problem in findings.problems])
        if as_json:
            print_json(
                {
                    "parts": {title: _plain(findings) for title, findings in found.items()},
                    "to_fix": [{"severity": problem.severity, "text": problem.text} for problem in problems],
                }
            )
        else:
            _show_problems(problems)
        if any(problem.severity == "broken" for problem in problems):
            raise typer.Exit(1)


def _show(title: str, findings: Findings) -> None:
    print(title)
    width = max((len(fact.label) for fact in findings.facts), default=0)
    for fact in findings.facts:
        print(f"  {fact.label:<{width}}  {fact.text}", flush=True)


def _show_problems(problems: list[Problem]) -> None:
    print()
    if not problems:
        print("nothing to fix")
        return
    print("to fix, the most important first")
    for number, problem in enumerate(problems, start=1):
        print(f"  {number}. {problem.severity}: {problem.text}")


def _plain(findings: Findings) -> dict[str, dict[str, object]]:
    return {fact.label: {"text": fact.text, "value": fact.value} for fact in findings.facts}
