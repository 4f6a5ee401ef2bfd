"""`sslbench new-plugin` and `sslbench check`: the package that is written works, and every mistake is one message."""

from __future__ import annotations

import importlib
import re
import sys
import tomllib
from collections.abc import Iterator
from pathlib import Path

import pytest

from ssl_bench import registry
from ssl_bench.cli.new_plugin import write_package
from ssl_bench.errors import UserError
from ssl_bench.registry.entry_points import KINDS, Kind
from ssl_bench.testing import run_checks
from tests.conftest import Command

ROOT = Path(__file__).parents[2]


@pytest.fixture(autouse=True)
def modules_of_before(tmp_path: Path) -> Iterator[None]:
    path, loaded = list(sys.path), set(sys.modules)

    yield
    sys.path[:] = path
    for name in set(sys.modules) - loaded:
        file = getattr(sys.modules[name], "__file__", None)
        if file and Path(file).is_relative_to(tmp_path):
            del sys.modules[name]
    registry.refresh()


def register(folder: Path, kind: Kind, monkeypatch: pytest.MonkeyPatch, **targets: str) -> None:
    """A distribution `folder-bench 1.0` on sys.path that registers `targets`."""
    info = folder / f"{folder.name}_bench-1.0.dist-info"
    info.mkdir(parents=True)
    (info / "METADATA").write_text(f"Metadata-Version: 2.1\nName: {folder.name}-bench\nVersion: 1.0\n")
    lines = [f"{name} = {target}" for name, target in targets.items()]
    (info / "entry_points.txt").write_text("\n".join([f"[{registry.group_of(kind)}]", *lines]) + "\n")
    monkeypatch.syspath_prepend(str(folder))
    registry.refresh()


@pytest.mark.parametrize("kind", KINDS)
def test_a_written_package_is_whole_and_passes_its_checks(
    kind: Kind, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    folder, module, written = write_package("fresh-idea", kind, tmp_path)
    assert folder == tmp_path / "fresh-idea"
    assert module == "fresh_idea"
    names = {str(path.relative_to(folder)) for path in written}
    assert names == {"README.md", "fresh_idea.py", "pyproject.toml", "tests/test_fresh_idea.py"}
    for path in written:
        assert not re.search("my[-_]?plugin", path.read_text(), re.IGNORECASE), path
    project = tomllib.loads((folder / "pyproject.toml").read_text())
    assert project["project"]["name"] == "fresh-idea"
    assert project["project"]["entry-points"] == {registry.group_of(kind): {"fresh_idea": "fresh_idea:FreshIdea"}}
    assert project["tool"]["setuptools"]["py-modules"] == ["fresh_idea"]
    monkeypatch.syspath_prepend(str(folder))
    try:
        results = run_checks(kind, importlib.import_module("fresh_idea").FreshIdea)
        assert not [one for one in results if one.outcome == "failed"]
    finally:
        del sys.modules["fresh_idea"]


def test_a_name_that_holds_a_placeholder_is_replaced_once(tmp_path: Path) -> None:
    folder, module, _ = write_package("my-plugin-two", "backbone", tmp_path)
    assert module == "my_plugin_two"
    assert "class MyPluginTwo(Backbone)" in (folder / "my_plugin_two.py").read_text()
    write_package("my-plugin", "backbone", tmp_path)


def test_the_docs_page_holds_the_method_that_is_written(tmp_path: Path) -> None:
    """The same code under another name passes its checks above."""
    page = (ROOT / "docs" / "write-a-method.md").read_text()
    (code,) = re.findall(r"```python\n(.*?)```", page, re.DOTALL)
    folder, _, _ = write_package("sim-siam", "method", tmp_path)
    assert code == (folder / "sim_siam.py").read_text(), "docs/write-a-method.md and plugins/template/method differ"
    assert len([line for line in code.splitlines() if line.strip()]) <= 60
    (entry,) = re.findall(r"```toml\n(.*?)```", page, re.DOTALL)
    assert tomllib.loads(entry)["project"]["entry-points"] == {"ssl_bench.methods.v1": {"sim_siam": "sim_siam:SimSiam"}}


@pytest.mark.parametrize(
    ("name", "words"),
    [
        ("Dense.DINO", "Try 'dense-dino'"),
        ("1dino", "Try 'dino'"),
        ("a--b", "Try 'a-b'"),
        ("../x", "cannot name a package"),
        ("", "cannot name a package"),
        ("-x", "cannot name a package"),
        ("x-", "cannot name a package"),
        ("naïve", "cannot name a package"),
        ("a" * 51, "at most 50"),
        ("class", "of Python's own"),
        ("json", "of Python's own"),
        ("ssl-bench", "taken by sslbench"),
        ("tests", "taken by sslbench"),
    ],
)
def test_a_name_that_cannot_be_is_refused(name: str, words: str, tmp_path: Path) -> None:
    with pytest.raises(UserError, match=re.escape(words)):
        write_package(name, "method", tmp_path)
    assert not list(tmp_path.iterdir())


def test_new_plugin_says_what_to_do_next(sslbench: Command, tmp_path: Path) -> None:
    status, out, err = sslbench("new-plugin", "dense-dino", "--into", "code")
    assert status == 0, err
    assert "sslbench check dense_dino" in out
    assert "pip install -e . && sslbench run dense_dino --arch deit_s16" in out
    assert err == ""
    status, _, err = sslbench("new-plugin", "dense-dino", "--into", "code")
    assert status == 2
    assert "dense-dino exists" in err
    status, _, err = sslbench("new-plugin", "x", "--kind", "metod")
    assert status == 2
    assert "Did you mean 'method'" in err
    (tmp_path / "file").write_text("")
    status, _, err = sslbench("new-plugin", "y", "--into", "file")
    assert status == 2
    assert "cannot write" in err
    status, out, err = sslbench("new-plugin", "dino")
    assert status == 0
    assert "registers the method 'dino' already" in err


def test_check_of_a_folder_that_is_not_installed(sslbench: Command, monkeypatch: pytest.MonkeyPatch) -> None:
    sslbench("new-plugin", "small-net", "--kind", "backbone")
    for name in ("small-net/small_net.py", "small-net/small_net.py:SmallNet"):
        status, out, err = sslbench("check", name)
        assert status == 0, err
        assert "(backbone SmallNet, not installed" in out
    monkeypatch.chdir("small-net")
    for name in ("small_net", "small_net:SmallNet", "small_net.SmallNet"):
        status, out, err = sslbench("check", name)
        assert status == 0, err
        assert "(backbone SmallNet, not installed" in out
        assert re.search(r"eval mode is deterministic +ok", out)
        assert re.search(r"\d+ hold, 0 fail", out)


def test_a_failed_check_says_how_to_mend_it_and_exits_with_1(sslbench: Command, tmp_path: Path) -> None:
    folder, _, _ = write_package("small-net", "backbone", tmp_path)
    code = (folder / "small_net.py").read_text().replace("[-1].mean(dim=(2, 3))", "[-1].flatten(1)")
    (tmp_path / "small_net.py").write_text(code)
    status, out, _ = sslbench("check", "small_net")
    assert status == 1
    assert re.search(r"features have the declared dimension +FAILED +features of 3 images are", out)
    assert "fix one and run again: sslbench check small_net" in out


def test_check_of_registered_names(sslbench: Command, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    status, out, err = sslbench("check", "knn")
    assert status == 0, err
    assert "(evaluator KNN, sslbench " in out
    folder, _, _ = write_package("both-ways", "backbone", tmp_path)
    (tmp_path / "one").mkdir()
    register(tmp_path / "one", "backbone", monkeypatch, both_ways="both_ways:BothWays")
    monkeypatch.syspath_prepend(str(folder))
    assert sslbench("check", "both-ways")[0] == 0
    register(tmp_path / "two", "dataset", monkeypatch, both_ways="nowhere:Nothing")
    status, _, err = sslbench("check", "both_ways")
    assert status == 2
    assert "add --kind backbone or --kind dataset" in err
    assert sslbench("check", "both_ways", "--kind", "backbone")[0] == 0
    status, _, err = sslbench("check", "both_ways", "--kind", "dataset")
    assert status == 2
    assert "cannot be loaded" in err


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        ("check dinno", "Did you mean 'dino'"),
        ("check no_such_module:Class", "FILE.py, or module:Class from its folder"),
        ("check dino --kind metod", "Did you mean 'method'"),
        ("check dino --kind backbone", "no backbone is called 'dino'"),
        ("check cifar10", "add --data PATH"),
        ("check knn --data .", "--data is for datasets"),
        ("check nowhere.py:X", "nowhere.py is not there"),
        ("check broken.py", "broken cannot be imported: RuntimeError: no license"),
        ("check broken", "broken cannot be imported: RuntimeError: no license"),
        ("check empty", "empty has 0 plugin classes"),
        ("check empty:Nothing", "no class of empty is called 'Nothing'"),
        ("check empty:Stranger", "is not a plugin"),
        ("check timm", "'backbone.name'"),
        ("check knn --set knn.temprature=1", "Did you mean"),
    ],
)
def test_a_mistake_is_one_clear_message(sslbench: Command, tmp_path: Path, arguments: str, words: str) -> None:
    (tmp_path / "broken.py").write_text("raise RuntimeError('no license')")
    (tmp_path / "empty.py").write_text("class Stranger: pass")
    status, out, err = sslbench(*arguments.split())
    assert status == 2, out
    assert words in err
    assert "Traceback" not in err
