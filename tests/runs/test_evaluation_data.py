"""Training and evaluation data apart: one run trained without labels and evaluated on two sets, and what is refused."""

from __future__ import annotations

import os
import shutil
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file

import ssl_bench
from ssl_bench.cli.result import next_commands
from ssl_bench.datasets.checking import check_datasets
from ssl_bench.datasets.image_folder import ImageFolder
from ssl_bench.errors import UserError
from ssl_bench.recipes.request import Request, request_of
from ssl_bench.recipes.resolve import Resolved, resolve
from ssl_bench.records.recipe import Recipe
from ssl_bench.records.record import RunRecord
from ssl_bench.runs.describe import describe_data
from ssl_bench.runs.folder import Start, begin, new_run, stopped_run
from ssl_bench.runs.which_run import named_as_before, request_of_run
from tests.conftest import Command
from tests.toy import write_image_folder

SMALL: dict[str, Any] = {"backbone.width": 0.125, "data.image_px": 16, "training.precision": "fp32"}


def write_sets(root: Path) -> Path:
    """`flat`: the training images of `birds` under other names, and a test image of it twice; `cars`: three classes."""
    birds = write_image_folder(root / "birds", train=6, test=3)
    write_image_folder(root / "cars", train=4, test=2, px=32, classes=("x", "y", "z"))
    (root / "flat/deep").mkdir(parents=True)
    for number, file in enumerate(sorted((birds / "train").rglob("*.png"))):
        shutil.copy(file, root / f"flat/{number:03}.png")
    for name in ("again.png", "deep/once more.png"):
        shutil.copy(birds / "val/b/1.png", root / "flat" / name)
    return root


@pytest.fixture(scope="module")
def here(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_sets(tmp_path_factory.mktemp("sets"))


@pytest.fixture(scope="module")
def record(here: Path) -> RunRecord:
    return ssl_bench.run(
        "simclr", "resnet18", data=here / "flat", eval_data=[here / "birds", here / "cars"], epochs=1, batch_size=5,
        eval_every=1, with_="knn", results=here / "results", run_id="both", settings=SMALL,
    )  # fmt: skip


def resolved(here: Path, *eval_data: str, data: str = "flat", method: str = "simclr", **request: Any) -> Resolved:
    values = {**SMALL, "training.batch_size": 4, **request.pop("values", {})}
    sets = tuple(str(here / name) for name in eval_data)
    return resolve(
        Request(method=method, arch="resnet18", data=str(here / data), eval_data=sets, values=values, **request)
    )


# ---------------------------------------------------------------- one run, two evaluation sets


def test_every_evaluator_is_run_once_a_set(record: RunRecord, here: Path) -> None:
    found = [(one.data, one.subject, one.measurements[0].n) for one in record.evaluations]
    assert found == [
        ("birds", "untrained", 6), ("cars", "untrained", 6), ("birds", "trained", 6), ("cars", "trained", 6),
    ]  # fmt: skip
    assert (record.data.name, record.data.train_images, record.data.test_images, record.data.classes) == (
        "flat", 14, 0, 0,
    )  # fmt: skip
    assert [(one.name, one.train_images, one.test_images, one.classes, one.image_px) for one in record.eval_data] == [
        ("birds", 12, 6, 2, 16), ("cars", 12, 6, 3, 16),
    ]  # fmt: skip
    for evaluation in record.evaluations:
        place = ImageFolder(ImageFolder.Config(), here / evaluation.data)
        assert evaluation.data_fingerprint == place.fingerprint
        assert "native 16 px" in str(evaluation.measurements[0].protocol) or evaluation.data == "cars"
    assert record.training.steps == 2, "14 images in batches of five"


def test_the_numbers_are_those_of_an_evaluation_on_each_set_alone(record: RunRecord, here: Path) -> None:
    for name in ("birds", "cars"):
        alone = ssl_bench.evaluate("both", data=here / name, results=here / "results")
        inside = [one for one in record.evaluations if one.data == name]
        assert [one.measurements for one in alone] == [one.measurements for one in inside]
    again = ssl_bench.evaluate("both", results=here / "results")
    assert [one.data for one in again] == ["birds", "cars"] * 2, "what the run was evaluated on"


def test_during_training_the_first_set_is_evaluated(record: RunRecord, here: Path) -> None:
    curves = ssl_bench.load_curves(here / "results")
    trained = next(one for one in record.evaluations if (one.data, one.subject) == ("birds", "trained"))
    network = curves[curves.network == trained.network]
    assert network.value.tolist() == [one.value for one in trained.measurements]


def test_images_that_are_trained_and_tested_on_are_counted(record: RunRecord) -> None:
    assert record.notes == (
        "1 of the 6 test images of birds is also among the training images (flat), pixel by pixel",
    )  # fmt: skip


def test_shared_images_are_counted_by_pixels(here: Path) -> None:
    birds, cars = (ImageFolder(ImageFolder.Config(), here / name) for name in ("birds", "cars"))
    checked = check_datasets(birds, cars)

    def slow(one: Any, other: Any) -> int:
        pixels = [{(s.image(i).size, s.image(i).tobytes()) for i in range(len(s))} for s in (one, other)]
        return len(pixels[0] & pixels[1])

    for one in (birds.train, birds.test, cars.train, cars.test):
        for other in (birds.train, birds.test, cars.train, cars.test):
            assert checked.shared(one, other) == slow(one, other)
    unseen = ImageFolder(ImageFolder.Config(), here / "birds").test
    assert checked.shared(unseen, birds.train) is None


def test_a_later_evaluation_counts_them_too(record: RunRecord, here: Path, sslbench: Command, tmp_path: Path) -> None:
    """On a set that the run did not name: the images of `birds` in another folder, two of them trained on."""
    later = tmp_path / "later"
    shutil.copytree(here / "birds", later)
    shutil.copy(here / "birds/train/a/0.png", later / "val/a/seen.png")
    results = tmp_path / "results"
    shutil.copytree(here / "results", results)
    words = "2 of the 7 test images of later are also among the training images (flat), pixel by pixel"
    evaluations = ssl_bench.evaluate("both", data=later, results=results)
    assert [one.notes for one in evaluations] == [(words,)] * 2
    assert words in sslbench("show", "both", "--results", str(results))[1]
    again = ssl_bench.evaluate("both", data=here / "cars", with_="kmeans", results=results)
    assert [one.notes for one in again] == [(), ()]
    said = sslbench("eval", "both", "--data", str(later), "--with", "kmeans", "--results", str(results))
    assert f"warning: {words}" in "".join(said[1:])
    os.rename(here / "flat", here / "moved")
    try:
        said = sslbench("eval", "both", "--data", str(later), "--with", "label-free", "--results", str(results))
    finally:
        os.rename(here / "moved", here / "flat")
    assert said[0] == 0
    assert "test images among the training images were not looked for: " in said[1]
    assert "/flat does not exist" in said[1]


def test_what_to_do_next_names_labeled_data_after_a_run_without(record: RunRecord, here: Path) -> None:
    folder = Path("results/runs/both")
    assert next_commands(record, folder)[-1] == "sslbench eval both"
    unlabeled = record.model_copy(update={"eval_data": ()})
    assert next_commands(unlabeled, folder)[-1].startswith("sslbench eval both --data LABELED  # accuracy")


def test_images_of_one_class_are_trained_on_without_their_labels(here: Path) -> None:
    _one_class(here)
    one = resolved(here, "birds", data="single")
    assert [part.name for part in one.recipe.evaluators] == ["knn", "linear-probe"]


def test_table_and_show_name_both(record: RunRecord, here: Path, sslbench: Command) -> None:
    results = str(here / "results")
    status, out, err = sslbench("table", "--results", results, "--format", "md")
    assert status == 0, err
    blocks = {block.split()[0]: block for block in out.split("## evaluated on ")[1:]}
    assert list(blocks) == ["birds:", "cars:"]
    for block in blocks.values():
        assert "trained on" in block
        (row,) = [line for line in block.splitlines() if line.startswith("| simclr ")]
        assert "| flat " in row
    out = sslbench("show", "both", "--results", results)[1]
    assert "flat: 14 training images, without labels, " in out
    assert "on birds: 12 training and 6 test images, 2 classes, " in out
    assert "6, cars" in out


# ---------------------------------------------------------------- the recipe


def test_the_recipe_comes_back_from_its_file_in_any_folder(
    here: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(here)
    values = {"eval_data.train_fraction": 0.9, "eval_data.2.image_px": 24}
    first = resolve(
        Request(
            method="simclr", arch="resnet18", data="flat", eval_data=("birds", "cars"),
            values={**SMALL, "training.batch_size": 4, **values},
        )
    ).recipe  # fmt: skip
    assert [(part.image_px, part.settings["train_fraction"]) for part in first.eval_data] == [(16, 0.9), (24, 0.9)]
    monkeypatch.chdir(tmp_path)
    Path("r.toml").write_text(first.to_toml())
    again = resolve(Request(recipe_file=Path("r.toml"))).recipe
    assert (again.digest, again.to_toml()) == (first.digest, first.to_toml())
    assert resolve(request_of(first, {})).recipe.digest == first.digest
    assert Recipe.model_validate(first.model_dump(mode="json")).digest == first.digest
    other = resolve(Request(recipe_file=Path("r.toml"), eval_data=(str(here / "cars"),))).recipe
    assert [(part.name, part.image_px) for part in other.eval_data] == [("cars", 16)]
    assert other.digest != first.digest
    shutil.copytree(here, tmp_path / "moved")
    moved = resolved(tmp_path / "moved", "birds", "cars", values=values).recipe
    assert moved.digest == first.digest, "where data lie is no part of it"


def test_without_evaluation_data_the_digest_is_what_it_was(here: Path) -> None:
    recipe = resolved(here, data="birds").recipe
    assert recipe.eval_data == ()
    content = recipe.model_dump(mode="json")
    del content["eval_data"]  # as earlier versions wrote it
    assert Recipe.model_validate(content).digest == recipe.digest


def test_labels_are_not_looked_at_in_training(here: Path) -> None:
    def weights(data: str, run_id: str) -> dict[str, torch.Tensor]:
        ssl_bench.run(
            "simclr", "resnet18", data=here / data, eval_data=here / "cars", epochs=1, batch_size=4, with_="knn",
            results=here / "results", run_id=run_id, settings=SMALL,
        )  # fmt: skip
        return load_file(here / f"results/runs/{run_id}/weights.safetensors")

    labeled, unlabeled = weights("birds", "labeled"), weights("birds/train", "unlabeled")
    assert labeled.keys() == unlabeled.keys()
    assert all(torch.equal(labeled[name], unlabeled[name]) for name in labeled)


def test_two_folders_of_one_name_are_told_apart(here: Path, tmp_path: Path) -> None:
    write_image_folder(tmp_path / "other/birds", train=5, test=1)
    names = [one.name for one in resolved(here, "birds", str(tmp_path / "other/birds")).eval_data]
    assert [name[:6] for name in names] == ["birds-"] * 2
    assert names[0] != names[1]
    with pytest.raises(UserError, match="birds' is given twice"):
        resolved(here, "birds", "birds")


# ---------------------------------------------------------------- a stopped run


def test_changed_and_moved_evaluation_data_of_a_stopped_run(tmp_path: Path) -> None:
    here = write_sets(tmp_path / "sets")
    first = resolved(here, "birds", "cars")
    run_dir = tmp_path / "run"
    run_dir.mkdir()
    begin(run_dir, new_run(first, describe_data(first)))
    shutil.move(here / "cars", here / "vans")

    def resume(*places: str, accept: bool = False) -> Any:
        given = tuple(str(here / place) for place in places) or None
        again = named_as_before(run_dir, resolve(request_of_run(run_dir, Request(eval_data=given))))
        return stopped_run(again, Start(run_dir, True, "", accept_changed_data=accept), describe_data(again))

    with pytest.raises(UserError, match="cars does not exist"):
        resume()
    with pytest.raises(UserError, match="was evaluated on 2 sets, and 1 are given"):
        resume("birds")
    assert resume("birds", "vans").recipe.digest == first.recipe.digest
    shutil.copy(here / "vans/val/x/0.png", here / "vans/val/x/new.png")
    with pytest.raises(UserError, match=r"changed since .*: evaluation data cars: 6 test images before, 7 now\. Put"):
        resume("birds", "vans")
    state = resume("birds", "vans", accept=True)
    assert state.notes == ("resumed on changed data: evaluation data cars: 6 test images before, 7 now",)
    assert [one.test_images for one in state.eval_data] == [6, 7]


# ---------------------------------------------------------------- mistakes, each one message


def _one_class(here: Path) -> None:
    for name in ("train/a", "val/a"):
        (here / "single" / name).mkdir(parents=True, exist_ok=True)
        for number in range(4):
            shutil.copy(here / f"flat/{number:03}.png", here / "single" / name)


@pytest.mark.parametrize(
    ("request_", "words"),
    [
        ({"evaluators": ("knn",)}, r"knn needs labels, and flat has none\. Add --eval-data with a folder"),
        ({"eval_data": ("flat",)}, r"knn and linear-probe need labels, and the evaluation data flat have none"),
        ({"eval_data": ("birds/train",)}, r"the folder around train/ is the one that has them"),
        ({"method": "supervised"}, r"supervised trains on labels, and flat has none\. Give labeled data"),
        ({"eval_data": ("single",)}, r"single has one class only \(a\): .* \(--eval-data\), or --with label-free"),
        ({"data": "single"}, r"single has one class only \(a\): accuracy on one class is meaningless"),
        ({"data": "single", "method": "supervised"}, r"supervised trains on labels, and single has one class only"),
        ({"eval_data": ("nowhere",)}, r"nowhere does not exist"),
        ({"values": {"training.batch_size": 15}}, r"larger than the training set of flat \(14 images\)"),
        ({"values": {"eval_data.image_px": 24}}, r"'eval_data\.image_px' sets evaluation data, and none is given"),
        ({"eval_data": ("birds",), "values": {"eval_data.2.image_px": 24}}, r"and 1 set is given"),
        ({"eval_data": ("birds",), "values": {"eval_data.imagepx": 24}}, r"'data\.imagepx' is not a setting"),
    ],
)
def test_one_message(here: Path, request_: dict[str, Any], words: str) -> None:
    _one_class(here)
    arguments = dict(request_)
    with pytest.raises(UserError, match=words):
        resolved(here, *arguments.pop("eval_data", ()), **arguments)


def test_without_labels_anywhere_no_accuracy_is_asked_for(here: Path) -> None:
    names = [part.name for part in resolved(here).recipe.evaluators]
    assert names == ["label-free"]
    labeled = resolved(here, data="birds")
    assert [part.name for part in labeled.recipe.evaluators] == ["knn", "linear-probe"]
    assert labeled.evaluation_sets == (labeled.dataset,)


def test_what_a_method_trains_on(here: Path) -> None:
    """A set with images for training alone: they are trained on, but by a method that needs labels."""
    one = resolved(here, data="birds")
    two = resolved(here, data="cars")

    class Both(ImageFolder):
        pretraining = two.dataset.train

    dataset = Both(ImageFolder.Config(), here / "birds")
    assert replace(one, dataset=dataset).training_split is two.dataset.train
    supervised = resolved(here, data="birds", method="supervised").method
    assert replace(one, dataset=dataset, method=supervised).training_split is dataset.train
