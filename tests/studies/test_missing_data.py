"""A size whose data are not on this machine: what is missing, and what can be known and done without it."""

from __future__ import annotations

import re
import shlex
from itertools import pairwise

import pytest

from ssl_bench.datasets.opening import OpenedOnce
from ssl_bench.errors import UserError
from ssl_bench.settings import parse_assignments
from ssl_bench.studies.cells import Wish, cells_of
from ssl_bench.tables.loading import load_table


@pytest.mark.parametrize("size", ["paper", "thesis"])
def test_data_that_are_not_here_are_named_with_what_can_be_done_without_them(size: str) -> None:
    description = load_table("components").description
    with pytest.raises(UserError) as refused:
        cells_of(description, Wish(size=size), OpenedOnce())
    said = str(refused.value)
    assert f"components in the size {size!r} (ImageNet-1k" in said
    assert "trains on imagenet, which is not here" in said
    assert "--data imagenet:PATH" in said
    assert "sslbench bench components --size laptop: the embedded shapes" in said
    (command,) = re.findall(r"sslbench plan .* --device 1050ti", said)
    words = shlex.split(command)
    assert words[2:5] == ["dino", "--arch", "deit_s16"]
    given = parse_assignments([value for word, value in pairwise(words) if word == "--set"])
    assert given == ({"training.epochs": 50, "training.batch_size": 8} if size == "thesis" else {})
