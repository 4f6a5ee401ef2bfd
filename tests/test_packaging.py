"""What is installed: every package and data file is named in pyproject, and every entry point leads somewhere."""

from __future__ import annotations

import tomllib
from pathlib import Path

import pytest

from ssl_bench import registry

ROOT = Path(__file__).parent.parent
PROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text())
TOOL = PROJECT["tool"]["setuptools"]


def test_every_package_is_installed() -> None:
    folders = {import_name: folder for import_name, folder in TOOL["package-dir"].items() if folder != "benchmarks"}
    expected = {
        ".".join([name, *path.parent.relative_to(ROOT / folder).parts])
        for name, folder in folders.items()
        for path in (ROOT / folder).rglob("__init__.py")
    }
    assert expected - {"ssl_bench_plugins.template"} <= set(TOOL["packages"])
    for kind, patterns in (("tables", ["*.toml", "included/*.toml"]), ("published", ["*.csv"])):
        assert TOOL["package-data"][f"ssl_bench_benchmarks.{kind}"] == patterns
        assert all(list((ROOT / "benchmarks" / kind).glob(pattern)) for pattern in patterns)


def test_the_files_of_the_report_are_installed() -> None:
    files = {path.name for path in (ROOT / "ssl_bench" / "report").iterdir() if path.suffix not in (".py", "")}
    assert set(PROJECT["tool"]["setuptools"]["package-data"]["ssl_bench.report"]) == files


def test_faiss_is_an_extra() -> None:
    assert "faiss-cpu" in str(PROJECT["project"]["optional-dependencies"]["cpu"])
    assert "faiss" not in str(PROJECT["project"]["dependencies"])


@pytest.mark.parametrize("kind", registry.KINDS)
def test_every_entry_point_loads_and_tells_what_it_is(kind: registry.Kind) -> None:
    declared = PROJECT["project"]["entry-points"][registry.group_of(kind)]
    assert declared
    for name, target in declared.items():
        plugin = registry.Plugin(kind, name, target.partition(" ")[0], "sslbench", "0")
        if registry.find(kind, name).lacking():
            continue
        assert plugin.load() is not None
        assert plugin.describe()[0], f"{target} has no docstring"
