"""presets.json beside the official methods says what the methods say."""

from __future__ import annotations

from pathlib import Path

import pytest

from ssl_bench import registry
from ssl_bench.registry.preset_files import official_methods, preset_file, presets_of

FILE = Path(__file__).parents[2] / "plugins" / "methods" / "presets.json"


def test_the_file_is_what_the_methods_say() -> None:
    text = preset_file(official_methods())
    assert FILE.read_text() == text, f"python -m ssl_bench.registry.preset_files > {FILE}"


@pytest.mark.parametrize("name", sorted(official_methods()))
def test_a_preset_read_without_its_method_is_the_preset(name: str) -> None:
    method, known = registry.method(name), presets_of(name)
    assert known is not None
    assert list(known.presets) == list(method.presets)
    for preset_name, preset in method.presets.items():
        for kind in ("vit", "convnet"):
            values = known.values(preset_name, kind)
            assert {key: as_plain(value) for key, value in preset.values_for(kind).items()}.items() <= values.items()
        for batch_size, images in ((8, 500), (64, 8000), (256, 1_281_167)):
            assert known.epochs(preset_name, batch_size, images) == preset.epochs_for(batch_size, images)


def as_plain(value: object) -> object:
    return list(map(as_plain, value)) if isinstance(value, tuple | list) else value


def test_of_a_method_that_is_not_there_nothing_is_known() -> None:
    assert presets_of("no-such-method") is None
