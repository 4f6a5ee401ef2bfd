"""Which registered methods tests are parametrized over."""

from __future__ import annotations

from ssl_bench import registry

INSTALLED = [name for name in registry.names("method") if not registry.find("method", name).lacking()]
"""All whose optional packages are there."""

WITH_SETTINGS = [name for name in INSTALLED if not name.startswith("lightly-")]
"""One for each settings model: the comparisons made of lightly's blocks have the settings and presets of ours."""
