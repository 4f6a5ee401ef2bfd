"""Descriptions from a plugin's source text: neither the module nor its package is imported."""

from __future__ import annotations

import ast
import importlib.machinery
import re
import sys
from pathlib import Path


def describe(target: str) -> tuple[str, str]:
    """(first line of the docstring, paper cited in it or in the module's) of the class `module:Class`."""
    module_name, _, attribute = target.partition(":")
    path = source_path(module_name)
    if path is None:
        return "", ""
    try:
        tree = ast.parse(path.read_text(encoding="utf-8"))
    except (OSError, SyntaxError, ValueError):
        return "", ""
    words = ast.get_docstring(tree) or ""
    paper = re.search(r"arXiv[: ]*(\d{4}\.\d{4,5})", words)
    summary = words.partition("\n")[0]
    for node in tree.body:
        if isinstance(node, ast.ClassDef) and node.name == attribute:
            summary = (ast.get_docstring(node) or summary).partition("\n")[0]
            paper = re.search(r"arXiv[: ]*(\d{4}\.\d{4,5})", ast.get_docstring(node) or "") or paper
    return summary, f"arXiv {paper.group(1)}" if paper else ""


def source_path(module_name: str) -> Path | None:
    """The file of a module; None where it is not installed or not Python source."""
    return _path(_find_spec(module_name))


def why_unreadable(module_name: str) -> str:
    """Why a module cannot be read: it is not installed or its source is not Python; "" if nothing seems wrong."""
    spec = _find_spec(module_name)
    if spec is None:
        return f"the module {module_name} is not installed"
    path = _path(spec)
    try:
        ast.parse(path.read_text(encoding="utf-8") if path else "")
    except SyntaxError as error:
        return f"{path}, line {error.lineno}, is not Python: {error.msg}"
    except (OSError, ValueError) as error:
        return f"{path} cannot be read: {error}"
    return ""


def _path(spec: importlib.machinery.ModuleSpec | None) -> Path | None:
    return Path(spec.origin) if spec and spec.origin and spec.origin.endswith(".py") else None


def _find_spec(module_name: str) -> importlib.machinery.ModuleSpec | None:
    """A module's spec, found as the import system finds it, without importing a parent package."""
    search: list[str] | None = None
    parts = module_name.split(".")
    for depth in range(len(parts)):
        name = ".".join(parts[: depth + 1])
        spec: importlib.machinery.ModuleSpec | None = None
        for finder in sys.meta_path:
            try:
                spec = finder.find_spec(name, search)
            except Exception:  # the finder of a third-party editable install
                spec = None
            if spec is not None:
                break
        if spec is None:
            return None
        search = list(spec.submodule_search_locations) if spec.submodule_search_locations is not None else None
        if depth == len(parts) - 1:
            return spec
        if search is None:
            return None
    return None
