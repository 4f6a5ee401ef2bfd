"""Import directions: the core imports no plugin, and the quick verbs import no torch."""

from __future__ import annotations

import ast
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parent.parent
CORE = sorted((ROOT / "ssl_bench").rglob("*.py"))


def imported(path: Path) -> set[str]:
    names: set[str] = set()
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.Import):
            names |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom):
            names.add(node.module or "")
    return names


@pytest.mark.parametrize("path", CORE, ids=lambda path: str(path.relative_to(ROOT)))
def test_the_core_names_no_plugin(path: Path) -> None:
    assert not [name for name in imported(path) if name.split(".")[0] in ("ssl_bench_plugins", "plugins")]
    assert "ssl_bench_plugins" not in path.read_text()


def test_plugins_import_contracts_and_building_blocks_only() -> None:
    forbidden = (
        "ssl_bench.runner",
        "ssl_bench.training",
        "ssl_bench.cli",
        "ssl_bench.tables",
        "ssl_bench.recipe",
        "ssl_bench.request",
    )
    for path in (ROOT / "plugins").rglob("*.py"):
        assert not [name for name in imported(path) if name.startswith(forbidden)], path


def test_importing_the_whole_core_loads_no_plugin() -> None:
    modules = [
        ".".join(path.relative_to(ROOT).with_suffix("").parts).removesuffix(".__init__")
        for path in CORE
        if path.name != "__main__.py"
    ]
    code = f"import importlib, sys\nfor m in {modules!r}: importlib.import_module(m)\n"
    code += "print([m for m in sys.modules if m.startswith('ssl_bench_plugins')])"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"


@pytest.mark.parametrize("arguments", [["--help"], ["list"], ["table", "--list"], ["run", "--help"]])
def test_quick_verbs_import_neither_torch_nor_plugins(arguments: list[str], tmp_path: Path) -> None:
    code = (
        "import sys\nfrom ssl_bench.cli.main import app\n"
        f"try:\n    app({arguments!r})\nexcept SystemExit as end:\n    assert not end.code, end.code\n"
        "print('LOADED', [m for m in sys.modules if m in ('torch', 'timm', 'ssl_bench_plugins')])"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, cwd=tmp_path)
    assert done.returncode == 0, done.stderr
    assert done.stdout.strip().endswith("LOADED []")


def test_a_method_is_one_file_of_at_most_300_lines() -> None:
    for path in (ROOT / "plugins" / "methods").glob("*.py"):
        assert len(path.read_text().splitlines()) <= 300, path
