"""Tests keep out of the user's cache and use one thread: what runs beside them must not slow them down twentyfold."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest
import torch


@pytest.fixture(scope="session", autouse=True)
def own_cache(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    folder = tmp_path_factory.mktemp("cache")
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("SSLBENCH_CACHE", str(folder))
        yield folder


def pytest_configure() -> None:
    torch.set_num_threads(1)
