"""The short names of published weights: every row can be used, and says only what its source says."""

from __future__ import annotations

import json
import re

import pytest
import timm
from typer.testing import CliRunner

from ssl_bench import registry
from ssl_bench.cli.main import app
from ssl_bench.errors import UserError
from ssl_bench.registry.blueprint import blueprint
from ssl_bench.settings import parse_settings
from ssl_bench.weights.formats import EVALUATED_AS, FORMATS
from ssl_bench.weights.named.catalog import Published, catalog, published
from ssl_bench.weights.whole import heads_of

ROWS = list(catalog().values())


@pytest.mark.parametrize("row", ROWS, ids=lambda row: row.name)
def test_a_row_names_a_buildable_architecture_and_a_known_evaluation(row: Published) -> None:
    plugin, _, name = row.arch.partition(":")
    kind = registry.backbone(plugin)
    parse_settings(kind.Config, {**({"name": name} if name else {}), **row.settings}, "backbone", plugin)
    assert timm.is_model(name) if name else plugin in registry.names("backbone")
    assert row.name.startswith(f"{row.method}:")
    assert (row.evaluated or row.method) in {*EVALUATED_AS, "simclr", "byol"}
    assert row.url.startswith("https://")
    assert re.match(r"https://github\.com/\S+/blob/[0-9a-f]{7}/|torchvision\.", row.source), "a source with its commit"
    for digits in (row.sha256, row.md5):
        assert re.fullmatch(r"([0-9a-f]{8,})?", digits)
    if row.sha256:
        assert f"-{row.sha256}." in row.url, "no checksum is invented: it stands in the file's name"


def test_no_two_rows_share_a_file_in_a_cache() -> None:
    names = [row.file_name for row in ROWS]
    assert len(set(names)) == len(names)
    assert not {"checkpoint.pth", "checkpoint_teacher.pth", "resnet50.pth", "model.pth"} & set(names)


def test_the_thesis_tables_rows_have_names() -> None:
    """Fig. 5.4 and Table 5.1 as far as PyTorch files exist; MoCo v3's ViT-S has 12 heads, DINO's 6."""
    wanted = [
        "dino:deit_s16", "dino:deit_s8", "dino:vit_b16", "dino:vit_b8", "dino:resnet50", "swav:resnet50",
        "swav:resnet50w2", "swav:resnet50w5", "moco-v2:resnet50", "simclr:resnet50", "byol:resnet200w2",
        "deepcluster-v2:resnet50", "barlow-twins:resnet50", "supervised:resnet50", "supervised:deit_s16",
    ]  # fmt: skip
    assert all(published(name) for name in wanted)
    heads = {}  # of networks without weights
    for name in ("mocov3:deit_s16", "dino:deit_s16"):
        kind = registry.backbone(published(name).arch)
        network = blueprint(kind, kind.Config(**published(name).settings), 224)
        assert network is not None
        heads[name] = heads_of(network)
    assert heads == {"mocov3:deit_s16": 12, "dino:deit_s16": 6}
    assert {form.heads.get(384) for form in FORMATS if form.method == "mocov3"} == {12}


def test_names_are_forgiving_in_their_marks_and_strict_in_their_words() -> None:
    assert published("MoCo-v2:resnet50") is published("mocov2:resnet50")
    assert published("dino:vit_s16") is published("dino:deit_s16")
    with pytest.raises(UserError, match=r"'dino:deit_s17'. Did you mean 'dino:deit_s16'\? Known of that method: dino"):
        published("dino:deit_s17")


def test_list_weights_shows_every_name_and_what_is_on_this_machine() -> None:
    shown = CliRunner().invoke(app, ["list", "weights"])
    assert shown.exit_code == 0, shown.output
    assert all(re.search(rf"^  {re.escape(row.name)} ", shown.output, re.MULTILINE) for row in ROWS)
    listed = json.loads(CliRunner().invoke(app, ["list", "weights", "--json"]).output)["weights"]
    assert {one["name"] for one in listed} == set(catalog())
    assert {one["path"] for one in listed} == {None}
