"""docs/plugin-api.md lists what the modules for plugin authors have, and official plugins import nothing else."""

from __future__ import annotations

import ast
import re
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.test_architecture import AUTHORS_MODULES, ROOT

PAGE = "docs/plugin-api.md"
LISTED = {
    module: re.findall(r"`(\w+)`", names)
    for module, names in re.findall(r"^\| `([\w.]+)` \| (.*) \|$", (ROOT / PAGE).read_text(), re.MULTILINE)
}


def public_names(path: Path) -> list[str]:
    """Its `__all__`, else what a module defines under a name without underscore, in its order."""
    names: list[str] = []
    for node in ast.parse(path.read_text()).body:
        if isinstance(node, ast.FunctionDef | ast.ClassDef):
            names.append(node.name)
        elif isinstance(node, ast.Assign):
            targets = [target.id for target in node.targets if isinstance(target, ast.Name)]
            if targets == ["__all__"]:
                return list(ast.literal_eval(node.value))
            names += targets
        elif isinstance(node, ast.AnnAssign) and isinstance(node.target, ast.Name):
            names.append(node.target.id)
    return [name for name in names if not name.startswith("_")]


def modules() -> Iterator[tuple[str, Path]]:
    package = ROOT / "ssl_bench"
    for path in (*(package / f"{name}.py" for name in sorted(AUTHORS_MODULES)), *package.glob("blocks/[a-z]*.py")):
        yield ".".join(path.relative_to(ROOT).with_suffix("").parts), path
    yield "ssl_bench.testing", package / "testing" / "__init__.py"


@pytest.mark.parametrize(("module", "path"), list(modules()), ids=lambda value: str(value).rpartition(".")[2])
def test_the_page_lists_a_modules_public_names(module: str, path: Path) -> None:
    assert LISTED.get(module) == public_names(path), f"write the row of {module} in {PAGE} as on the right"


def test_the_page_lists_no_other_module() -> None:
    assert set(LISTED) == {module for module, _ in modules()}


def test_plugins_import_names_of_the_page_only() -> None:
    for path in (*ROOT.glob("plugins/**/*.py"), *ROOT.glob("tests/plugins/*_like.py"), ROOT / "tests/plugins/mae.py"):
        for node in ast.walk(ast.parse(path.read_text())):
            if isinstance(node, ast.ImportFrom) and node.module in LISTED:
                unknown = {alias.name for alias in node.names} - set(LISTED[node.module])
                assert not unknown, f"{path} imports {unknown} from {node.module}"
