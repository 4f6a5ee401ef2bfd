"""Labeled data without named splits: a part is held out to score on, unless other data are evaluated on."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from ssl_bench.errors import UserError
from ssl_bench.recipes.request import Request
from ssl_bench.recipes.resolve import resolve
from tests.toy import write_image_folder

VALUES = {"training.batch_size": 8, "training.epochs": 1, "backbone.width": 0.125}


def request(root: Path, **changes: object) -> Request:
    if not (root / "set.npz").exists():
        pixels = np.random.default_rng(0).integers(0, 256, (40, 16, 16, 3), np.uint8)
        np.savez(root / "set.npz", images=pixels, labels=np.arange(40) % 2)
    given = {"method": "simclr", "arch": "resnet18", "data": str(root / "set.npz"), "evaluators": ("knn",)}
    return Request(**{**given, "values": VALUES, **changes})  # type: ignore[arg-type]


def test_a_tenth_is_held_out_unless_other_data_are_evaluated_on(tmp_path: Path) -> None:
    alone = resolve(request(tmp_path)).recipe.data
    assert (alone.train_images, alone.test_images, alone.settings["held_out"]) == (36, 4, 0.1)
    other = str(write_image_folder(tmp_path / "other"))
    beside = resolve(request(tmp_path, eval_data=(other,))).recipe.data
    assert (beside.train_images, beside.test_images, beside.settings["held_out"]) == (40, 0, 0.0)
    asked = request(tmp_path, eval_data=(other,), values={**VALUES, "data.held_out": 0.2})
    assert resolve(asked).recipe.data.train_images == 32


def test_nothing_to_score_on(tmp_path: Path) -> None:
    with pytest.raises(
        UserError, match=r"set has labels but no labeled test part\. Hold some out: --set data\.held_out"
    ):
        resolve(request(tmp_path, values={**VALUES, "data.held_out": 0}))
