"""Optional packages of a plugin: its entry point names an extra of its distribution, `module:Class [extra]`.

Read from metadata; nothing is imported.
"""

from __future__ import annotations

import re
from importlib.metadata import PackageNotFoundError, distribution
from importlib.metadata import requires as requirements


def split_extras(value: str) -> tuple[str, tuple[str, ...]]:
    """An entry point's value -> (`module:Class`, its extras)."""
    target, _, extras = value.partition("[")
    return target.strip(), tuple(re.findall(r"[\w.-]+", extras))


def install_line(name: str, extras: tuple[str, ...]) -> str:
    """How to install the packages that these extras of the distribution `name` still lack; "" if they lack none."""
    lacking = [extra for extra in extras if not all(map(_is_installed, _packages(name, extra)))]
    return f"pip install '{name}[{','.join(lacking)}]'" if lacking else ""


def _packages(name: str, extra: str) -> list[str]:
    """Names of the packages that an extra adds."""
    marker = re.compile(rf"extra\s*==\s*['\"]{re.escape(extra)}['\"]")
    lines = [line for line in requirements(name) or () if marker.search(line)]
    return [found[0] for line in lines if (found := re.match(r"[\w.-]+", line))]


def _is_installed(name: str) -> bool:
    try:
        distribution(name)
    except PackageNotFoundError:
        return False
    return True
