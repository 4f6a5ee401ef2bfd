"""The registry: names from metadata alone, and every way in which a third-party plugin can be broken."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from ssl_bench import registry
from ssl_bench.errors import UserError
from ssl_bench.registry.entry_points import BrokenPlugin, Plugin

Install = Callable[..., Path]

METHOD = '''"""Dense things (arXiv 2011.09157)."""

from ssl_bench.method import Method
from ssl_bench.settings import Settings


class Dense(Method):
    """DenseCL: contrast of local features.

    More words.
    """

    class Config(Settings):
        pass

    make_views = step = networks = None  # written, as far as a class shows it


class Bare(Method):
    """Has no settings model."""


class Stranger:
    """Is no method."""


instance = 3
'''


@pytest.fixture
def install(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Install]:
    """Lay a distribution with entry points, and a module, where Python finds them."""
    monkeypatch.syspath_prepend(str(tmp_path))
    loaded = set(sys.modules)

    def add(distribution: str, entry_points: str, version: str = "1.0", **modules: str) -> Path:
        info = tmp_path / f"{distribution.replace('-', '_')}-{version}.dist-info"
        info.mkdir()
        (info / "METADATA").write_text(f"Metadata-Version: 2.1\nName: {distribution}\nVersion: {version}\n")
        (info / "entry_points.txt").write_text(entry_points)
        for name, source in modules.items():
            (tmp_path / f"{name}.py").write_text(source)
        registry.refresh()
        return tmp_path

    yield add
    registry.refresh()
    for name in set(sys.modules) - loaded:
        if name.startswith("third_party"):
            del sys.modules[name]


def methods(**targets: str) -> str:
    return "[ssl_bench.methods.v1]\n" + "".join(f"{name} = {target}\n" for name, target in targets.items())


def test_a_plugin_is_found_described_and_loaded(install: Install) -> None:
    install("dense-bench", methods(dense="third_party:Dense"), third_party=METHOD)
    plugin = registry.find("method", "dense")
    assert plugin == Plugin("method", "dense", "third_party:Dense", "dense-bench", "1.0")
    assert plugin.origin == "dense-bench 1.0"
    assert plugin.describe() == ("DenseCL: contrast of local features.", "arXiv 2011.09157")
    assert "third_party" not in sys.modules
    assert registry.method("dense").__name__ == "Dense"


def test_an_unknown_name_is_answered_with_the_nearest_and_the_list(install: Install) -> None:
    install("dense-bench", methods(dense="third_party:Dense", sparse="third_party:Sparse"))
    with pytest.raises(UserError, match=r"no method is called 'dens'\. Did you mean 'dense'\?") as caught:
        registry.method("dens")
    assert "sparse" in str(caught.value)
    assert "sslbench list" in str(caught.value)


def test_one_name_of_two_distributions_names_both(install: Install) -> None:
    install("alice-bench", methods(dense="third_party:Dense"))
    install("bob-bench", methods(dense="third_party_too:Dense", other="third_party_too:Other"), version="2.1")
    with pytest.raises(UserError, match="dense") as caught:
        registry.find("method", "dense")
    for words in ("alice-bench 1.0", "bob-bench 2.1", "third_party:Dense", "third_party_too:Dense"):
        assert words in str(caught.value)
    assert len([plugin for plugin in registry.plugins("method") if plugin.name == "dense"]) == 2
    assert registry.find("method", "other").distribution == "bob-bench"


def test_a_second_copy_of_one_distribution_is_no_conflict(install: Install, tmp_path: Path) -> None:
    install("dense-bench", methods(dense="third_party:Dense"))
    install("Dense_Bench", methods(dense="third_party:Dense"), version="0.9")
    assert len([plugin for plugin in registry.plugins("method") if plugin.name == "dense"]) == 1


@pytest.mark.parametrize(
    ("source", "reason"),
    [
        ("import no_such_module_at_all", "ModuleNotFoundError"),
        ("def broken(:", "SyntaxError"),
        ("raise RuntimeError('no license')", "RuntimeError: no license"),
        ("x = 1", "AttributeError"),
    ],
)
def test_an_import_failure_names_its_distribution_and_the_rest_works(
    install: Install, source: str, reason: str
) -> None:
    install("bad-bench", methods(bad="third_party_bad:Bad"), third_party_bad=source)
    install("dense-bench", methods(dense="third_party:Dense"), third_party=METHOD)
    with pytest.raises(BrokenPlugin, match=r"bad-bench 1\.0") as caught:
        registry.method("bad")
    assert reason in str(caught.value)
    assert registry.method("dense").__name__ == "Dense"


@pytest.mark.parametrize(
    ("attribute", "reason"),
    [("Stranger", "is not a Method"), ("instance", "is not a Method"), ("Bare", "has no Config")],
)
def test_what_is_no_plugin_is_refused_with_the_reason(install: Install, attribute: str, reason: str) -> None:
    install("odd-bench", methods(odd=f"third_party:{attribute}"), third_party=METHOD)
    with pytest.raises(BrokenPlugin, match=reason) as caught:
        registry.method("odd")
    assert "odd-bench 1.0" in str(caught.value)


def test_another_major_of_the_api_is_not_seen(install: Install) -> None:
    install("old-bench", "[ssl_bench.methods.v0]\nancient = third_party:Dense\n")
    assert "ancient" not in registry.names("method")


def test_a_module_that_cannot_be_found_or_read_has_no_description(install: Install) -> None:
    install("odd-bench", methods(a="no_such_module_at_all:X", b="third_party_bad:X"), third_party_bad="def broken(:")
    assert registry.find("method", "a").describe() == ("", "")
    assert registry.find("method", "b").describe() == ("", "")


def test_finding_and_describing_imports_neither_plugins_nor_torch(install: Install) -> None:
    where = install("dense-bench", methods(dense="third_party:Dense"), third_party="raise SystemExit('was imported')")
    code = (
        "import sys\nfrom ssl_bench import registry\n"
        "for kind in registry.KINDS:\n"
        "    for plugin in registry.plugins(kind): plugin.describe()\n"
        "assert 'dense' in registry.names('method')\n"
        "print([m for m in ('torch', 'timm', 'ssl_bench_plugins', 'third_party') if m in sys.modules])"
    )
    done = subprocess.run(
        [sys.executable, "-c", f"import sys; sys.path.insert(0, {str(where)!r})\n{code}"],
        capture_output=True,
        text=True,
    )
    assert done.stdout.strip() == "[]", done.stderr
