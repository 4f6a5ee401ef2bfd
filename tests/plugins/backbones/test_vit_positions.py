"""Positions at other sizes by DINO's rule, against bicubic interpolation written out, and which run gets which rule.

The rule was compared once with the authors' own vision_transformer.py (commit 7c446df) at 480 x 480, 256 x 384,
384 x 256, 96 x 96, 96 x 160 and 112 x 448 px, patches of 16 and 8 px, built for 224 and 64 px: CLS, patch tokens and
last attention differ by less than 4e-6 in float32.
"""

import math
from pathlib import Path

import pytest
import torch
from torch.nn import functional

from ssl_bench.errors import UserError
from ssl_bench.evaluation.features import FeatureStore
from ssl_bench.recipes.request import Request, request_of
from ssl_bench.recipes.resolve import resolve
from ssl_bench.records.reading import read_record
from ssl_bench.records.recipe import Recipe
from ssl_bench.testing.subjects import SmallData
from ssl_bench_plugins.backbones.deit import DeitTi16, ViTSettings
from ssl_bench_plugins.backbones.timm_any import TimmAny, TimmSettings
from ssl_bench_plugins.backbones.vit_positions import resample
from tests.toy import write_image_folder

RESULTS = Path(__file__).parents[3] / "results"

SIZES = [(480, 480), (256, 384), (96, 96), (96, 160), (112, 448)]


def cubic(distance):
    """Keys' kernel with torch's a = -0.75."""
    a, x = -0.75, abs(distance)
    if x <= 1:
        return (a + 2) * x**3 - (a + 3) * x**2 + 1
    return a * x**3 - 5 * a * x**2 + 8 * a * x - 4 * a if x < 2 else 0.0


def weights_along(before, after):
    """(after, before): weight of each of `before` places for each of `after`, read at (i + 0.5) / factor - 0.5."""
    matrix = torch.zeros(after, before, dtype=torch.float64)
    factor = (after + 0.1) / before
    for index in range(after):
        place = (index + 0.5) / factor - 0.5
        for tap in range(math.floor(place) - 1, math.floor(place) + 3):
            matrix[index, min(max(tap, 0), before - 1)] += cubic(place - tap)
    return matrix


def written_out(table, grid, wanted):
    if grid == wanted:
        return table
    as_map = table.double()[0].view(*grid, -1)
    rows, columns = (weights_along(before, after) for before, after in zip(grid, wanted, strict=True))
    result = torch.einsum("ri,cj,ijd->rcd", rows, columns, as_map)
    return result.flatten(0, 1)[None]


def slow_tokens(network, images, patch_px, grid):
    """CLS, patches, positions and the blocks of timm's network, with positions as written out above."""
    rows, columns = images.shape[2] // patch_px, images.shape[3] // patch_px
    embed = network.patch_embed.proj
    patches = functional.conv2d(images, embed.weight, embed.bias, stride=patch_px).flatten(2).transpose(1, 2)
    table = network.pos_embed
    positions = torch.cat([table[:, :1], written_out(table[:, 1:], grid, (rows, columns))], dim=1)
    tokens = torch.cat([network.cls_token.expand(len(images), -1, -1), patches], dim=1) + positions
    for block in network.blocks:
        before_last, tokens = tokens, block(tokens)
    return before_last, network.norm(tokens)


def build(rule, image_px=224, patch_px=16):
    torch.manual_seed(0)
    vit = DeitTi16(ViTSettings(depth=2, dim=32, heads=2, patch_px=patch_px, positions=rule), image_px=image_px)
    torch.nn.init.normal_(vit.network.pos_embed)
    return vit.double().eval()


@pytest.mark.parametrize("sides", [(14, 14, 6, 6), (14, 14, 30, 30), (4, 4, 16, 24), (3, 5, 7, 2)])
def test_dinos_rule_is_bicubic_without_antialiasing_and_a_tenth_of_a_patch_more(sides):
    grid, wanted = sides[:2], sides[2:]
    table = torch.randn(1, grid[0] * grid[1], 3, dtype=torch.float64)
    torch.testing.assert_close(resample(table, grid, wanted, 0.1), written_out(table, grid, wanted), atol=1e-12, rtol=0)
    assert resample(table, grid, grid, 0.1) is table


@pytest.mark.parametrize("size", SIZES)
def test_cls_patches_and_attention_are_those_of_the_written_out_positions(size):
    """The three things that k-NN, DAVIS and the attention masks read."""
    vit, timms = build("dino"), build("timm")
    images = torch.randn(1, 3, *size, dtype=torch.float64)
    with torch.no_grad():
        before_last, tokens = slow_tokens(vit.network, images, 16, (14, 14))
        torch.testing.assert_close(vit(images), tokens[:, 0], atol=1e-9, rtol=0)
        patches = vit.patch_tokens(images).flatten(2).transpose(1, 2)
        torch.testing.assert_close(patches, tokens[:, 1:], atol=1e-9, rtol=0)
        torch.testing.assert_close(vit.probe_features(images)[:, -32:], tokens[:, 0], atol=1e-9, rtol=0)
        block = vit.network.blocks[-1]
        qkv = block.attn.qkv(block.norm1(before_last)).view(1, -1, 3, 2, 16).permute(2, 0, 3, 1, 4)
        weights = (qkv[0] @ qkv[1].transpose(-2, -1) / 4).softmax(dim=-1)[:, :, 0, 1:]
        torch.testing.assert_close(vit.attention(images).flatten(2), weights, atol=1e-10, rtol=0)
        assert (timms.patch_tokens(images) - vit.patch_tokens(images)).abs().max() > 1e-2


def test_at_the_size_it_was_built_for_both_rules_are_the_same():
    images = torch.randn(1, 3, 64, 64, dtype=torch.float64)
    with torch.no_grad():
        assert torch.equal(build("dino", 64)(images), build("timm", 64)(images))


@pytest.mark.parametrize("name", ["test_vit", "vit_small_patch14_reg4_dinov2", "deit3_small_patch16_224"])
def test_plain_vits_of_timm_can_have_dinos_rule(name):
    """With one CLS token, with registers, and with positions that leave the CLS token out."""
    image_px = 56 if "patch14" in name else 64
    vit, timms, whole = (
        TimmAny(TimmSettings(name=name, positions=rule), image_px=image_px).eval() for rule in ("dino", "timm", "timm")
    )
    torch.nn.init.normal_(vit.network.pos_embed)
    for other in (timms, whole):
        other.load_state_dict(vit.state_dict())
    size = (3 * vit.patch_px, 5 * vit.patch_px)
    learned = 0 if vit.network.no_embed_class else vit.network.num_prefix_tokens
    table = vit.network.pos_embed
    resampled = written_out(table[:, learned:], (4, 4), (3, 5)).float()
    images = torch.randn(1, 3, *size)
    with torch.no_grad():
        whole.network.set_input_size(img_size=size)  # timm's own forward pass of a network built for this size
        whole.network.pos_embed = torch.nn.Parameter(torch.cat([table[:, :learned], resampled], dim=1))
        torch.testing.assert_close(vit(images), whole.network(images), atol=1e-5, rtol=1e-4)
        tokens = whole.network.forward_features(images)[:, vit.network.num_prefix_tokens :]
        torch.testing.assert_close(vit.patch_tokens(images).flatten(2), tokens.transpose(1, 2), atol=1e-4, rtol=1e-4)
        assert (timms.patch_tokens(images) - vit.patch_tokens(images)).abs().max() > 1e-2


@pytest.fixture(scope="module")
def data(tmp_path_factory):
    return str(write_image_folder(tmp_path_factory.mktemp("data"), train=20, px=64))


def decided(data, method, arch, **values):
    request = Request(method=method, arch=arch, data=data, values={"training.batch_size": 8, **values})
    return resolve(request).recipe.backbone.settings.get("positions")


@pytest.mark.parametrize(
    ("method", "arch", "asked", "rule"),
    [
        ("dino", "deit_ti16", None, "dino"),
        ("dino", "deit_ti16", "timm", "timm"),
        ("byol", "deit_ti16", None, "timm"),
        ("byol", "deit_ti16", "dino", "dino"),
        ("dino", "timm:test_vit", None, "dino"),
        ("dino", "timm:test_convnext", None, "timm"),
        ("dino", "resnet18", None, None),
    ],
)
def test_the_recipe_holds_the_rule_of_the_method_or_the_users(data, method, arch, asked, rule):
    assert decided(data, method, arch, **({} if asked is None else {"backbone.positions": asked})) == rule


def test_a_network_that_cannot_have_dinos_rule_says_so(data):
    with pytest.raises(UserError, match=r"test_convnext is not a plain ViT.*choose e.g. timm:vit_small"):
        decided(data, "dino", "timm:test_convnext", **{"backbone.positions": "dino"})


def test_recipes_from_before_the_setting_are_timms_with_the_same_digest():
    records = [read_record(path) for path in sorted(RESULTS.glob("runs/*-deit*/record.json"))]
    older = [record for record in records if "positions" not in record.recipe["backbone"]["settings"]]
    assert older
    for record in older:
        recipe = Recipe.model_validate(record.recipe)
        assert recipe.digest == record.digest
        assert request_of(recipe, {}).values["backbone.positions"] == "timm"
        for rule, same in (("timm", True), ("dino", False)):
            settings = {**recipe.backbone.settings, "positions": rule}
            changed = recipe.model_copy(update={"backbone": recipe.backbone.model_copy(update={"settings": settings})})
            assert (changed.digest == record.digest) is same


def test_the_protocol_names_the_rule_off_the_built_size_only():
    vit = build("dino", 32, 8)
    for image_px, words in ((32, ""), (64, ", positions dino")):
        store = FeatureStore(
            vit,
            SmallData(),
            image_px=image_px,
            device=torch.device("cpu"),
            autocast_dtype=None,
            batch_size=8,
            workers=0,
        )
        assert store.protocol.text.endswith(words)
        assert ("positions" in store.protocol.fields) == bool(words)
    assert vit.positions_protocol(32, 48).text == ", positions dino"
