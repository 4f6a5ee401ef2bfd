"""The cache folder: limit, order in which entries go, what a killed process left, and `sslbench cache`."""

from __future__ import annotations

import json
import os
import time
from pathlib import Path

import pytest

from ssl_bench.errors import UserError
from ssl_bench.system import cache
from tests.conftest import Command


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A cache of its own: two features, decoded images, an unpacked set and a measurement, of 1,000 bytes each."""
    place = tmp_path / "cache"
    monkeypatch.setenv("SSLBENCH_CACHE", str(place))
    monkeypatch.delenv("SSLBENCH_CACHE_GB")
    names = ("features/old", "features/new", "decoded/photos/levels", "unpacked/parquet-1/data", "precision.json")
    for age, name in enumerate(names):
        path = place / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(bytes(1000))
        times = (time.time() - 1000 + 100 * age,) * 2
        os.utime(path, times)
        os.utime(path.parent, times)
    return place


def kept(folder: Path) -> set[str]:
    return {str(one.path.relative_to(folder)) for one in cache.entries()}


def test_the_least_recently_used_goes_first_and_only_what_is_limited(
    folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("SSLBENCH_CACHE_GB", "0.000003")  # 3,000 bytes
    assert cache.make_room(0)
    assert len(kept(folder)) == 5
    cache.touch(folder / "features/old")
    assert cache.make_room(1000)
    assert kept(folder) == {"features/old", "decoded/photos", "unpacked/parquet-1", "precision.json"}
    assert not cache.make_room(3001)
    assert "features/old" in kept(folder)
    assert cache.make_room(3000)
    assert kept(folder) == {"unpacked/parquet-1", "precision.json"}


def test_a_full_disk_is_left_alone(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(cache, "FREE_BYTES", 10**18)
    assert not cache.make_room(10)


def test_what_a_killed_process_left_goes_after_a_day(folder: Path) -> None:
    for name, age in (("features/.young", 60), ("features/.old", 2 * cache.ABANDONED_SECONDS)):
        (folder / name).write_bytes(b"part")
        os.utime(folder / name, (time.time() - age,) * 2)
    cache.make_room(0)
    assert (folder / "features/.young").exists()
    assert not (folder / "features/.old").exists()


@pytest.mark.parametrize("text", ["five", "-1", "nan", ""])
def test_a_limit_that_is_no_number_is_refused(text: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("SSLBENCH_CACHE_GB", text)
    with pytest.raises(UserError, match=r"SSLBENCH_CACHE_GB = .* is not a number of gigabytes"):
        cache.limit_bytes()


def test_the_verb_shows_limits_and_clears(folder: Path, sslbench: Command) -> None:
    status, out, _ = sslbench("cache")
    assert status == 0
    assert str(folder) in out
    assert "features          2     2.0 kB" in out
    assert "3.0 kB of at most 5.0 GB" in out
    assert sslbench("cache", "--limit", "0.000002")[0] == 0
    assert kept(folder) == {"features/new", "decoded/photos", "unpacked/parquet-1", "precision.json"}
    assert cache.limit_bytes() == 2000
    status, out, _ = sslbench("cache", "--clear", "unpacked", "--json")
    listed = json.loads(out)
    assert (listed["limit_bytes"], len(listed["entries"])) == (2000, 3)
    assert not list((folder / "unpacked").iterdir())
    status, out, _ = sslbench("cache", "--clear", "all")
    assert "removed 3 entries, 3.0 kB" in out
    assert kept(folder) == set()
    assert cache.limit_bytes() == 2000, "the limit is a setting, not an entry"
    status, _, err = sslbench("cache", "--clear", "feature")
    assert (status, "Did you mean 'features'?" in err) == (2, True)
    status, _, err = sslbench("cache", "--limit", "many")
    assert (status, "--limit = 'many' is not a number of gigabytes" in err) == (2, True)


def test_an_empty_cache_is_shown(tmp_path: Path, sslbench: Command, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("SSLBENCH_CACHE", str(tmp_path / "nowhere"))
    assert "0 B of at most" in sslbench("cache")[1]
    assert "removed 0 entries" in sslbench("cache", "--clear", "all")[1]
