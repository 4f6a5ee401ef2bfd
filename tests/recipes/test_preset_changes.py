"""What a record says a run changes of its preset: nothing where nothing was set, and exactly what was set by hand."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from ssl_bench import registry
from ssl_bench.errors import UserError
from ssl_bench.recipes.preset_changes import changed_settings
from ssl_bench.recipes.request import Request
from ssl_bench.recipes.resolve import resolve
from tests.methods import WITH_SETTINGS
from tests.toy import write_image_folder


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_image_folder(tmp_path_factory.mktemp("images"), train=40, px=32)


def changes(folder: Path, method: str, arch: str, preset: str | None, **values: Any) -> dict[str, Any]:
    named = {key.replace("__", "."): value for key, value in values.items()}
    small = {"training.batch_size": 8}
    resolved = resolve(Request(method, arch, str(folder), preset, evaluators=("knn",), values={**small, **named}))
    found = changed_settings(resolved, resolved.preset)
    assert found.pop("training.batch_size", 8) == 8
    return found


@pytest.mark.parametrize("method", WITH_SETTINGS)
def test_a_preset_changes_nothing_of_itself_and_what_is_set_is_all_that_is_named(folder: Path, method: str) -> None:
    for arch, own in (("deit_ti16", {"backbone__depth": 2}), ("resnet18", {"backbone__width": 0.25})):
        for preset in (None, "none", *registry.method(method).presets):
            try:
                assert changes(folder, method, arch, preset) == {}
            except UserError:  # e.g. the paper's 3,000 prototypes on 80 images
                assert preset not in (None, "small-data")
                continue
            expected = {key.replace("__", "."): value for key, value in own.items()}
            set_by_hand = {"optimizer__weight_decay": 0.123, "training__seed": 3, **own}
            found = changes(folder, method, arch, preset, **set_by_hand)
            assert found == {**expected, "optimizer.weight_decay": 0.123}


def test_the_setting_that_an_ablation_changes_and_the_precision_asked_for(folder: Path) -> None:
    set_by_hand = {"method__local_views": 0, "training__precision": "bf16", "data__image_px": 16}
    found = changes(folder, "dino", "resnet18", "paper", **set_by_hand)
    assert found.items() >= {"method.local_views": 0, "training.precision": "bf16", "data.image_px": 16}.items()
