"""What all tests share: a cache of their own, one thread (what runs beside them must not slow them down), a command."""

from __future__ import annotations

import sys
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
import torch

from ssl_bench.cli.main import main
from ssl_bench.evaluation import speed

Command = Callable[..., tuple[int, str, str]]
"""`sslbench WORDS`, in this process: (exit status, what it wrote to stdout, to stderr)."""


@pytest.fixture(scope="session", autouse=True)
def own_cache(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    folder = tmp_path_factory.mktemp("cache")
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("SSLBENCH_CACHE", str(folder))
        patch.setenv("SSLBENCH_CACHE_GB", "0")  # no test reads what another one computed
        patch.setattr(speed, "ROUND_SECONDS", 0.0)  # how fast a network is matters to no test but those of speed
        patch.setattr(speed, "MOST_ROUNDS", speed.ROUNDS)
        yield folder


@pytest.fixture
def sslbench(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], tmp_path: Path) -> Command:
    """The command line as a user types it, in an empty working directory."""
    monkeypatch.chdir(tmp_path)

    def command(*words: str | Path) -> tuple[int, str, str]:
        monkeypatch.setattr(sys, "argv", ["sslbench", *map(str, words)])
        capsys.readouterr()
        status = 0
        try:
            main()
        except SystemExit as end:
            status = int(end.code or 0)
        captured = capsys.readouterr()
        return status, captured.out, captured.err

    return command


def pytest_configure() -> None:
    torch.set_num_threads(1)
