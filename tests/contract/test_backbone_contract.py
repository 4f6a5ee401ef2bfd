"""Every registered backbone, narrow, and timm's networks of each kind keep the contract."""

import pytest

from ssl_bench import registry
from ssl_bench.testing import run_checks

TIMM = ("test_vit", "test_vit4", "deit_tiny_distilled_patch16_224", "xcit_nano_12_p16_224", "test_resnet")
OWN = [(plugin.name, {}) for plugin in registry.plugins("backbone") if plugin.distribution == registry.HOME]
CASES = [case for case in OWN if case[0] not in ("timm", "onnx")] + [("timm", {"name": name}) for name in TIMM]


@pytest.mark.parametrize(("name", "settings"), CASES, ids=[settings.get("name", name) for name, settings in CASES])
def test_a_registered_backbone_keeps_the_contract(name, settings):
    results = run_checks("backbone", registry.backbone(name), settings=settings)
    assert [(one.name, one.message) for one in results if one.outcome not in ("ok", "expected failure")] == []
