"""Facts of registered architectures kept in the cache: the same as the architecture's own, and asked again when old."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch
from typer.testing import CliRunner

from ssl_bench import registry
from ssl_bench.cli.main import app
from ssl_bench.registry.blueprint import blueprint
from ssl_bench.weights import known
from ssl_bench.weights.known import KnownBackbone, known_backbone


@pytest.fixture(autouse=True)
def cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("SSLBENCH_CACHE", str(tmp_path / "cache"))
    return tmp_path / "cache" / "architectures"


def asked(name: str) -> KnownBackbone:
    """As a new process asks."""
    return KnownBackbone(registry.find("backbone", name))


def not_imported(name: str) -> Any:
    raise AssertionError(f"{name} was asked although it is in the cache")


@pytest.mark.parametrize("name", ["deit_ti16", "resnet18"])
def test_what_is_kept_is_what_the_architecture_says(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    kind = registry.backbone(name)
    network = blueprint(kind, kind.Config(), 64)
    assert network is not None
    expected = {name: tensor.shape for name, tensor in network.state_dict().items()}
    asked(name).shapes({}, 64)
    monkeypatch.setattr(registry, "backbone", not_imported)
    again = asked(name)
    shapes = again.shapes({}, 64)
    assert shapes is not None
    assert {name: tensor.shape for name, tensor in shapes.items()} == expected
    assert list(shapes) == list(expected)
    assert again.settings == tuple(kind.Config.model_fields)
    assert again.kind == kind.kind


def test_what_cannot_be_built_is_known_too(monkeypatch: pytest.MonkeyPatch) -> None:
    assert asked("deit_ti16").shapes({"dim": 7}, 64) is None
    monkeypatch.setattr(registry, "backbone", not_imported)
    assert asked("deit_ti16").shapes({"dim": 7}, 64) is None


def test_changed_code_a_damaged_file_and_a_read_only_folder_make_it_ask_again(
    cache: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    expected = asked("deit_ti16").shapes({}, 32)
    (file,) = cache.iterdir()
    for content in (b"", b"{", b'{"settings": 3}', b"\xff"):
        file.write_bytes(content)
        again = asked("deit_ti16").shapes({}, 32)
        assert expected is not None
        assert again is not None
        assert again.keys() == expected.keys()
    monkeypatch.setattr(known, "LIBRARIES", ("torch", "timm", "pip"))  # another version of anything
    asked("deit_ti16")
    (other,) = cache.iterdir()
    assert other.name != file.name
    monkeypatch.setenv("SSLBENCH_CACHE", "/proc/nothing")
    assert asked("deit_ti16").shapes({}, 32) is not None


def test_the_source_files_of_the_plugin_are_part_of_the_stamp(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "plugin_of_a_test.py").write_text("A = 1")
    monkeypatch.syspath_prepend(str(tmp_path))
    plugin = registry.Plugin("backbone", "x", "plugin_of_a_test:A", "d", "1")
    before = known._stamp(plugin)
    assert known._stamp(plugin) == before
    (tmp_path / "plugin_of_a_test.py").write_text("A = 22")
    assert known._stamp(plugin) != before


def test_only_the_last_sizes_are_kept(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(known, "MOST_SHAPES", 2)
    one = asked("deit_ti16")
    for image_px in (16, 32, 48):
        one.shapes({"depth": 1}, image_px)
    assert len(asked("deit_ti16")._known.shapes) == 2


def test_inspect_asks_no_plugin_for_what_is_in_the_cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(registry, "names", lambda kind: ["deit_ti16", "resnet18", "timm"])
    shapes = asked("deit_ti16").shapes({}, 32)
    assert shapes is not None
    zeros = {name.removeprefix("network."): torch.zeros(tensor.shape) for name, tensor in shapes.items()}
    torch.save(zeros, tmp_path / "w.pth")
    for first in (True, False):
        known_backbone.cache_clear()
        result = CliRunner().invoke(app, ["inspect", str(tmp_path / "w.pth")])
        assert result.exit_code == 0, result.exception
        assert "all of --arch deit_ti16" in result.output
        if first:
            monkeypatch.setattr(registry, "backbone", not_imported)
    known_backbone.cache_clear()
