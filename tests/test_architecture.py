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
    allowed = {*AUTHORS_MODULES, "blocks"}
    for path in (ROOT / "plugins").rglob("*.py"):
        rooms = {room_of(name) for name in imported(path) if name.startswith("ssl_bench.")}
        if "tests" not in path.parts:  # the template's own tests use ssl_bench.testing
            assert rooms <= allowed, (path, rooms - allowed)


AUTHORS_MODULES = {
    *("method", "backbone", "evaluator", "dataset", "settings", "errors", "measurement", "logger"),
}
"""What a plugin author imports beside `blocks` and `testing`."""


def room_of(module: str) -> str:
    """The folder or file directly below the package, e.g. "blocks" of ssl_bench.blocks.views."""
    return module.split(".")[1]


def test_at_the_top_of_the_package_stands_what_a_plugin_author_imports() -> None:
    at_the_top = {path.stem for path in (ROOT / "ssl_bench").glob("*.py")} - {"__init__"}
    assert at_the_top == AUTHORS_MODULES


def test_there_is_no_import_circle_between_folders() -> None:
    needs: dict[str, set[str]] = {}
    for path in CORE:
        module = ".".join(path.relative_to(ROOT).with_suffix("").parts)
        if module.count("."):
            own = room_of(module)
            found = {room_of(name) for name in imported(path) if name.startswith("ssl_bench.")}
            found |= {room for room in from_the_package(path) if (ROOT / "ssl_bench" / room).is_dir()}
            needs.setdefault(own, set()).update(found - {own, "__init__"})
    while free := [room for room, others in needs.items() if not others & needs.keys()]:
        for room in free:
            del needs[room]
    assert not needs, f"each of these needs another of them: {needs}"


def from_the_package(path: Path) -> set[str]:
    """Names of `from ssl_bench import NAME`."""
    nodes = [node for node in ast.walk(ast.parse(path.read_text())) if isinstance(node, ast.ImportFrom)]
    return {alias.name for node in nodes if node.module == "ssl_bench" for alias in node.names}


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


@pytest.mark.parametrize(
    "arguments", [["--help"], ["list"], ["table", "--list"], ["run", "--help"], ["bench", "--help"]]
)
def test_quick_verbs_import_neither_torch_nor_plugins(arguments: list[str], tmp_path: Path) -> None:
    code = (
        "import sys\nfrom ssl_bench.cli.main import app\n"
        f"try:\n    app({arguments!r})\nexcept SystemExit as end:\n    assert not end.code, end.code\n"
        "print('LOADED', [m for m in sys.modules if m in ('torch', 'timm', 'ssl_bench_plugins')])"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, cwd=tmp_path)
    assert done.returncode == 0, done.stderr
    assert done.stdout.strip().endswith("LOADED []")


def test_a_method_is_one_file_of_at_most_330_lines() -> None:
    for path in (ROOT / "plugins" / "methods").glob("*.py"):
        assert len(path.read_text().splitlines()) <= 330, path
