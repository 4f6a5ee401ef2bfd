"""`[runs]` of a table description: which run each variant is in each size, and mistakes in it."""

from __future__ import annotations

from pathlib import Path

import pytest

from ssl_bench.errors import UserError
from ssl_bench.tables.description import TableDescription
from ssl_bench.tables.loading import load_table, parse_description
from ssl_bench.tables.variants import Runs

SIZES = """
[size.laptop]
data = "shapes"
seeds = 2
preset = "small-data"
with = ["knn"]
set = { "training.epochs" = 3, "training.batch_size" = 32 }
arch.deit_s16 = { arch = "deit_ti16", set = { "backbone.depth" = 4, "training.batch_size" = 16 } }
arch.resnet50 = { arch = "resnet18", data = "cifar10" }
method.byol = { set = { "training.epochs" = 5 } }

[size.paper]
data = "imagenet"
preset = "paper"
"""
TABLE = """
id = "my"
title = "Mine"

[[row]]
id = "multicrop"

[[row]]
id = "method"
from = "method"

[[column]]
id = "knn"
title = "k-NN"
from = "measurement:knn.primary:trained"

[runs]
include = ["sizes.toml"]

[[runs.variant]]
name = "with multi-crop"
method = "dino"
arch = "deit_s16"
show = { multicrop = "yes" }

[[runs.variant]]
name = "without multi-crop"
method = "dino"
arch = "deit_s16"
set = { "method.local_views" = 0 }
show = { multicrop = "no" }

[[runs.variant]]
name = "BYOL"
method = "byol"
arch = "resnet50"
preset = "paper-300"
set = { training.batch_size = 64 }
show = { multicrop = "no" }
"""


def parse(folder: Path, table: str = TABLE, sizes: str = SIZES) -> TableDescription:
    (folder / "sizes.toml").write_text(sizes, encoding="utf-8")
    return parse_description(table, "my.toml", folder)


def runs_of(folder: Path, table: str = TABLE) -> Runs:
    runs = parse(folder, table).runs
    assert runs is not None
    return runs


def test_a_variant_in_a_size_by_hand(tmp_path: Path) -> None:
    plain, without, byol = runs_of(tmp_path).all_runs("laptop")
    assert (plain.method, plain.arch, plain.data, plain.preset) == ("dino", "deit_ti16", "shapes", "small-data")
    assert (plain.evaluators, plain.seeds, plain.variant.name) == (("knn",), 2, "with multi-crop")
    assert plain.settings == {"training.epochs": 3, "training.batch_size": 16, "backbone.depth": 4}
    assert without.settings == {**plain.settings, "method.local_views": 0}
    # method over size, variant over both; the variant's own preset; a key that TOML nests
    assert byol.settings == {"training.epochs": 5, "training.batch_size": 64}
    assert (byol.arch, byol.data, byol.preset) == ("resnet18", "cifar10", "paper-300")


def test_a_size_that_says_nothing_leaves_the_variant_as_it_stands(tmp_path: Path) -> None:
    _, without, _ = runs_of(tmp_path).all_runs("paper")
    assert (without.arch, without.data, without.settings) == ("deit_s16", "imagenet", {"method.local_views": 0})
    assert without.evaluators is None


def test_a_table_lays_its_own_changes_over_an_included_size(tmp_path: Path) -> None:
    own = """
[runs.size.laptop]
seeds = 5
set = { "training.epochs" = 1 }
arch.deit_s16 = { set = { "backbone.depth" = 2 } }
variant."without multi-crop" = { set = { "training.batch_size" = 8 } }

[runs.size.mine]
data = "shapes"
"""
    runs = runs_of(tmp_path, TABLE + own)
    assert sorted(runs.size) == ["laptop", "mine", "paper"]
    plain, without, byol = runs.all_runs("laptop")
    assert plain.settings == {"training.epochs": 1, "training.batch_size": 16, "backbone.depth": 2}
    assert (plain.arch, plain.data, plain.seeds, plain.evaluators) == ("deit_ti16", "shapes", 5, ("knn",))
    assert without.settings == {**plain.settings, "method.local_views": 0, "training.batch_size": 8}
    assert byol.settings == {"training.epochs": 5, "training.batch_size": 64}


def test_an_unknown_size_is_answered_with_the_known_ones(tmp_path: Path) -> None:
    with pytest.raises(UserError, match=r"no size is called 'labtop'\. Did you mean 'laptop'"):
        runs_of(tmp_path).all_runs("labtop")


@pytest.mark.parametrize(
    ("old", "new", "said"),
    [
        ('method = "dino"', 'method = "dinno"', "variant 'with multi-crop': no method is called 'dinno'.*'dino'"),
        ('arch = "resnet50"', 'arch = "resnet5"', "variant 'BYOL': no backbone is called 'resnet5'.*'resnet50'"),
        ('name = "BYOL"', 'name = "with multi-crop"', "variant 'with multi-crop' stands 2 times"),
        ('name = "BYOL"', 'nam = "BYOL"', "'runs.variant.3.nam' is not a key.*Did you mean 'name'"),
        ('"method.local_views" = 0', '"metod.local_views" = 0', "'metod.local_views' is not a setting.*'method'"),
        ('"method.local_views" = 0', '"local_views" = 0', "'local_views' is not a setting"),
        ('"method.local_views" = 0', '"training.seed" = 7', "'training.seed' cannot be set here.*`seeds`"),
        ('{ multicrop = "yes" }', '{ multicrop = "yes", los = "ce" }', "show names 'los'.*Known: multicrop"),
        ('{ multicrop = "yes" }', "{ }", "show lacks multicrop"),
        ('set = { "method.local_views" = 0 }', "", "'with multi-crop' and 'without multi-crop' are the same run"),
        ('include = ["sizes.toml"]', "", r"\[runs\] has no size"),
        ('include = ["sizes.toml"]', 'include = ["size.toml"]', "'size.toml' is neither beside"),
        ('id = "multicrop"', 'id = "multicrop"\nfrom = "method"', "show names 'multicrop', which is no row without"),
        ("[runs]\n", "[runs]\nvarient = 3\n", "'runs.varient' is not a key.*'variant'"),
    ],
)
def test_a_mistake_in_runs_is_answered(tmp_path: Path, old: str, new: str, said: str) -> None:
    assert old in TABLE
    with pytest.raises(UserError, match=f"(?s)my.toml.*{said}"):
        parse(tmp_path, TABLE.replace(old, new, 1))


@pytest.mark.parametrize(
    ("old", "new", "said"),
    [
        ('arch = "deit_ti16"', 'arch = "deit_ty16"', "size 'laptop': no backbone is called 'deit_ty16'"),
        ("method.byol", "method.byoll", "size 'laptop': no method is called 'byoll'"),
        ('with = ["knn"]', 'with = ["kn"]', "size 'laptop': no evaluator is called 'kn'"),
        ("seeds = 2", "seeds = 0", "'size.laptop.seeds' = 0: input should be greater"),
        ("seeds = 2", "seed = 2", "'size.laptop.seed' is not a key.*Did you mean 'seeds'"),
        ('data = "imagenet"', "", "size 'paper' has no data"),
        ('{ arch = "resnet18"', '{ network = "resnet18"', "'size.laptop.arch.resnet50.network' is not a key.*Known"),
        ('preset = "paper"', 'variant."BYOLL" = { set = { training.epochs = 1 } }', "'BYOLL'.*Did you mean 'BYOL'"),
    ],
)
def test_a_mistake_in_a_size_is_answered(tmp_path: Path, old: str, new: str, said: str) -> None:
    assert old in SIZES
    with pytest.raises(UserError, match=f"(?s){said}"):
        parse(tmp_path, sizes=SIZES.replace(old, new, 1))


def test_no_variant_at_all_is_a_mistake(tmp_path: Path) -> None:
    table = TABLE.partition("[[runs.variant]]")[0] + "variant = []\n"
    with pytest.raises(
        UserError, match=r"my.toml: \[runs\] has no row: give a \[\[runs.variant\]\] with name, method and arch"
    ):
        parse(tmp_path, table)


def test_a_row_without_a_path_needs_variants() -> None:
    with pytest.raises(UserError, match="'multicrop' has no `from`"):
        parse_description(TABLE.partition("[runs]")[0], "my.toml")


def test_the_three_sizes_come_with_sslbench(tmp_path: Path) -> None:
    path = tmp_path / "my.toml"
    path.write_text(TABLE.replace("sizes.toml", "included/sizes.toml"), encoding="utf-8")
    runs = load_table(str(path)).description.runs
    assert runs is not None
    assert sorted(runs.size) == ["laptop", "paper", "thesis"]
    assert {size.data for size in runs.size.values()} == {"imagenet", "shapes"}
    assert all(size.about for size in runs.size.values())
