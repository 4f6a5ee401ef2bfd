"""Initial weights: identified by their tensors, loaded whole or refused with what differs."""

from __future__ import annotations

import hashlib
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import save_file
from torch import Tensor

from ssl_bench import registry
from ssl_bench.errors import UserError
from ssl_bench.recipes.starting import chosen_start, require_start_fits
from ssl_bench.records.recipe import InitialWeights, Recipe
from ssl_bench.runs.building import backbone_maker
from ssl_bench.settings import parse_settings
from ssl_bench.weights.initial import InitialState, fingerprint_of, initial_state
from ssl_bench_plugins.backbones.deit import DeitTi16, ViTSettings
from ssl_bench_plugins.backbones.resnet import ResNet18, ResNetSettings
from tests.example_records import make_recipe
from tests.export.networks import source

SMALL = ViTSettings(patch_px=8, dim=32, depth=1, positions="timm")


def weights_of(config: ViTSettings = SMALL, image_px: int = 32) -> dict[str, Tensor]:
    torch.manual_seed(3)
    return DeitTi16(config, image_px=image_px).state_dict()


def saved(path: Path, weights: dict[str, Tensor]) -> InitialState:
    save_file({name: one.contiguous() for name, one in weights.items()}, path)
    return initial_state(path)


def test_the_fingerprint_is_sha256_over_names_types_shapes_and_bytes() -> None:
    weights = {"b": torch.tensor([1.0, 2.0]), "a": torch.tensor(3, dtype=torch.int64)}
    content = b"a\0torch.int64\0()\0" + (3).to_bytes(8, "little")
    content += b"b\0torch.float32\0(2,)\0" + bytes([0, 0, 128, 63, 0, 0, 0, 64])
    assert fingerprint_of(weights) == hashlib.sha256(content).hexdigest()


@pytest.mark.parametrize(
    "change",
    [
        lambda w: {"c": w["a"], "b": w["b"]},
        lambda w: {**w, "a": w["a"] + 1},
        lambda w: {**w, "a": w["a"].double()},
        lambda w: {**w, "a": w["a"].reshape(4)},
        lambda w: {"a": w["a"]},
    ],
)
def test_any_change_is_another_fingerprint_and_the_layout_in_memory_is_none(change: Any) -> None:
    weights = {"a": torch.arange(4.0).reshape(2, 2), "b": torch.ones(3, dtype=torch.bool)}
    transposed = {"b": weights["b"], "a": weights["a"].T.contiguous().T}
    assert fingerprint_of(transposed) == fingerprint_of(weights)
    assert fingerprint_of(change(weights)) != fingerprint_of(weights)


def test_every_backbone_starts_from_the_weights_and_says_so(tmp_path: Path) -> None:
    weights = weights_of()
    initial = saved(tmp_path / "w.safetensors", weights)
    make = backbone_maker(DeitTi16, SMALL, 32, "deit_ti16", initial)
    for backbone in (make(), make(drop_path=0.1)):
        assert [name for name, one in backbone.state_dict().items() if not torch.equal(one, weights[name])] == []
        assert backbone.pretrained == f"w.safetensors, sha256 {initial.fingerprint[:12]}"


def test_positions_of_another_size_are_resampled_by_the_networks_rule(tmp_path: Path) -> None:
    """Both rules as the network itself applies them to a larger image; the class token's own position stays."""
    initial = saved(tmp_path / "w.safetensors", weights_of())
    images = torch.randn(2, 3, 48, 48, generator=torch.Generator().manual_seed(0))
    for positions in ("timm", "dino"):
        config = SMALL.model_copy(update={"positions": positions})
        own = DeitTi16(config, image_px=32).eval()
        own.load_state_dict(dict(initial.weights))
        fitted = backbone_maker(DeitTi16, config, 48, "deit_ti16", initial)().eval()
        assert "network.pos_embed resampled from (1, 17, 32) to (1, 37, 32)" in fitted.pretrained
        with torch.no_grad():
            torch.testing.assert_close(fitted(images), own(images), rtol=0, atol=1e-5)


def test_another_architecture_is_refused_with_all_that_differs_and_the_nearest(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("ssl_bench.registry.names", lambda kind: ["deit_s16", "resnet18", "timm", "vit_b16"])
    torch.manual_seed(0)
    resnet = ResNet18(ResNetSettings(), image_px=32).state_dict()
    initial = saved(tmp_path / "w.safetensors", {**resnet, "network.head.weight": torch.zeros(2, 2)})
    with pytest.raises(UserError, match=r"121 left over .*The nearest architecture is --arch resnet18"):
        require_start_fits(initial, DeitTi16, SMALL, 32, "deit_ti16")
    with pytest.raises(UserError, match=r"resnet18: 1 left over \(network\.head\.weight\)\.$"):
        require_start_fits(initial, ResNet18, ResNetSettings(), 32, "resnet18")
    wide = saved(tmp_path / "v.safetensors", weights_of(SMALL.model_copy(update={"dim": 64})))
    with pytest.raises(UserError, match=r"of another shape \(network\.cls_token \(1, 1, 64\) instead of \(1, 1, 32\)"):
        backbone_maker(DeitTi16, SMALL, 32, "deit_ti16", wide)()
    cut = {name: one for name, one in weights_of().items() if name != "network.norm.bias"}
    with pytest.raises(UserError, match=r"1 missing \(network\.norm\.bias\)"):
        require_start_fits(saved(tmp_path / "u.safetensors", cut), DeitTi16, SMALL, 32, "deit_ti16")


@pytest.mark.parametrize(("stem", "image_px", "kernel"), [("imagenet", 32, "7x7"), ("cifar", 224, "3x3")])
def test_of_the_other_stem_the_setting_that_fits_is_named(
    tmp_path: Path, stem: Any, image_px: int, kernel: str
) -> None:
    narrow = ResNetSettings(width=0.125, stem=stem)
    initial = saved(tmp_path / "w.safetensors", ResNet18(narrow, image_px=image_px).state_dict())
    said = rf"stem of {stem}, {kernel}, and for images of {image_px} px .* give --set backbone\.stem={stem}$"
    with pytest.raises(UserError, match=said):
        require_start_fits(initial, ResNet18, ResNetSettings(width=0.125), image_px, "resnet18")
    require_start_fits(initial, ResNet18, narrow, image_px, "resnet18")


def test_files_that_hold_no_weights_are_one_message(tmp_path: Path) -> None:
    whole = tmp_path / "w.safetensors"
    save_file(weights_of(), whole)
    (tmp_path / "cut.safetensors").write_bytes(whole.read_bytes()[:-8])
    (tmp_path / "words.safetensors").write_text("not weights")
    save_file({"network.a": torch.tensor([1.0, float("nan")])}, tmp_path / "nan.safetensors")
    save_file({}, tmp_path / "none.safetensors")
    (tmp_path / "folder").mkdir()
    for name, words in (
        ("cut.safetensors", "damaged or only partly there"),
        ("words.safetensors", "it is a text file"),
        ("nan.safetensors", "NaN or infinity in 1 tensors, first in network.a"),
        ("none.safetensors", "holds no tensors"),
        ("missing.safetensors", "is not there"),
        ("folder", "no run's folder"),
    ):
        with pytest.raises(UserError, match=words):
            initial_state(tmp_path / name)


def test_a_recipe_pins_the_tensors_and_not_their_place(tmp_path: Path) -> None:
    initial = saved(tmp_path / "w.safetensors", weights_of())
    pinned = {"source": str(initial.source), "fingerprint": initial.fingerprint}
    assert chosen_start(pinned) is not None
    with pytest.raises(UserError, match="changed: their fingerprint is"):
        chosen_start({**pinned, "fingerprint": "0" * 64})
    assert chosen_start({}) is None
    with pytest.raises(UserError, match="say nothing without"):
        chosen_start({"network": "teacher"})

    recipe = Recipe.model_validate(make_recipe())
    start = InitialWeights(source="/one/place", network="teacher", fingerprint="1" * 64)
    moved = start.model_copy(update={"source": "/another", "network": ""})
    digests = [
        recipe.model_copy(update={"initial": one}).digest
        for one in (None, start, moved, start.model_copy(update={"fingerprint": "2" * 64}))
    ]
    assert digests[1] == digests[2]
    assert len(set(digests)) == 3
    without = {name: value for name, value in recipe.model_dump(mode="json").items() if name != "initial"}
    assert Recipe.model_validate(without).digest == recipe.digest == digests[0]  # records from before are read as ever


def test_an_architecture_with_weights_of_its_own_takes_no_others(tmp_path: Path) -> None:
    from ssl_bench_plugins.backbones.timm_any import TimmAny, TimmSettings

    initial = saved(tmp_path / "w.safetensors", weights_of())
    with pytest.raises(UserError, match="starts from pretrained weights of its own"):
        require_start_fits(initial, TimmAny, TimmSettings(name="resnet18.a1_in1k"), 32, "timm:resnet18.a1_in1k")


@pytest.mark.parametrize("metadata", ["--arch deit_ti16 --set backbone.heads=4", "--arch deit_ti16"])
def test_a_copied_file_of_a_run_is_refused_for_another_number_of_heads(metadata: str, tmp_path: Path) -> None:
    """The shapes agree; only the header, which every run writes, says how many heads there are."""
    config = SMALL.model_copy(update={"heads": 4} if "heads" in metadata else {})
    sizes = " --set backbone.dim=32 --set backbone.depth=1 --set backbone.patch_px=8"
    save_file(weights_of(config), tmp_path / "copy.safetensors", metadata={"arch": metadata + sizes})
    initial = initial_state(tmp_path / "copy.safetensors")
    require_start_fits(initial, DeitTi16, config, 32, "deit_ti16")
    own = DeitTi16(config, image_px=32).network.blocks[0].attn.num_heads
    other = SMALL.model_copy(update={"heads": own * 2})
    with pytest.raises(UserError, match=rf"are of a network with {own} heads, and deit_ti16 has {own * 2}"):
        require_start_fits(initial, DeitTi16, other, 32, "deit_ti16")


@pytest.mark.parametrize("arch", ["", "--arch", "--arch no_such_plugin", "deit_s16", "--arch deit_ti16 --set nothing"])
def test_a_header_that_says_nothing_of_heads_refuses_nothing(arch: str, tmp_path: Path) -> None:
    save_file(weights_of(), tmp_path / "copy.safetensors", metadata={"arch": arch})
    require_start_fits(initial_state(tmp_path / "copy.safetensors"), DeitTi16, SMALL, 32, "deit_ti16")


WITH_WEIGHTS = [
    plugin.name
    for plugin in registry.plugins("backbone")
    if plugin.distribution == registry.HOME and registry.backbone(plugin.name).trainable
]


@pytest.mark.parametrize("name", WITH_WEIGHTS)
def test_every_backbone_starts_from_a_file_in_its_librarys_names(name: str, tmp_path: Path) -> None:
    """Before anything is built and when it is built, with a checkpoint's prefix and without batch norm's counters."""
    network = source(name)
    stored = {f"module.{key}": one for key, one in network.tensors.items() if not key.endswith("num_batches_tracked")}
    if not stored:
        pytest.skip(f"{name} has no weights")
    torch.save({"state_dict": stored, "epoch": 3}, tmp_path / "w.pth")
    kind, side = type(network.backbone), network.image_px
    config = parse_settings(kind.Config, network.settings, "backbone", name)
    initial = initial_state(tmp_path / "w.pth")
    require_start_fits(initial, kind, config, side, name)
    built = backbone_maker(kind, config, side, name, initial)().state_dict()
    for key, tensor in network.backbone.state_dict().items():
        if not key.endswith("num_batches_tracked"):
            assert torch.equal(built[key], tensor), key


@pytest.mark.parametrize("stored", ["integers", "quantized"])
def test_quantized_weights_are_no_start_of_a_run(stored: str, tmp_path: Path) -> None:
    def quantized(tensor: Tensor) -> Tensor:
        if stored == "integers":
            return tensor.to(torch.int8)
        return torch.quantize_per_tensor(tensor, 0.1, 0, torch.qint8)

    weights = {name: quantized(one) if one.ndim == 2 else one for name, one in weights_of().items()}
    torch.save({name.removeprefix("network."): one for name, one in weights.items()}, tmp_path / "q.pth")
    with pytest.raises(UserError, match=r"q\.pth cannot be loaded into deit_ti16: .* save the weights in fp32 instead"):
        require_start_fits(initial_state(tmp_path / "q.pth"), DeitTi16, SMALL, 32, "deit_ti16")
