"""What holds for every method of sslbench: its presets and the words of its settings."""

from __future__ import annotations

import pytest

from ssl_bench import registry
from ssl_bench.blocks.optimizers import OptimizerSettings
from ssl_bench.records.recipe import TrainingSettings
from ssl_bench.settings import parse_settings
from tests.methods import WITH_SETTINGS


def test_the_methods_of_the_tables_are_there() -> None:
    assert {"dino", "byol", "mocov2", "swav", "simclr", "supervised", "random"} <= set(WITH_SETTINGS)


@pytest.mark.parametrize("name", WITH_SETTINGS)
def test_presets_name_settings_that_exist_with_values_that_they_take(name: str) -> None:
    method = registry.method(name)
    models = {"method": method.Config, "optimizer": OptimizerSettings, "training": TrainingSettings}
    assert "paper" in method.presets
    for preset in method.presets.values():
        assert preset.summary
        for values in (preset.values, {**preset.values, **preset.convnet_values}):
            assert {key.partition(".")[0] for key in values} <= set(models)
            for section, model in models.items():
                of_section = {k.partition(".")[2]: v for k, v in values.items() if k.startswith(f"{section}.")}
                parse_settings(model, of_section, section, name)


@pytest.mark.parametrize("name", WITH_SETTINGS)
def test_every_setting_says_what_it_means(name: str) -> None:
    for setting, field in registry.method(name).Config.model_fields.items():
        assert (field.description or "").endswith("."), setting
