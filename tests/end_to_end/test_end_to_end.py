"""The commands as a user types them, on small image folders: run, stop, resume, show, eval, table, and mistakes."""

from __future__ import annotations

import json
import os
import re
import runpy
import shlex
import signal
from pathlib import Path
from typing import Any

import pytest
import torch

from ssl_bench import registry
from ssl_bench.errors import UserError
from ssl_bench.runs.folder import hold
from ssl_bench.runs.state import read_run_state, write_run_state
from tests.conftest import Command
from tests.methods import WITH_SETTINGS
from tests.toy import write_image_folder

SMALL_SETTINGS = (
    *("backbone.depth=1", "backbone.dim=32", "backbone.patch_px=8", "training.precision=fp32"),
    *("method.out_dim=16", "method.hidden_dim=16", "method.bottleneck_dim=8", "method.local_views=1"),
)
SMALL = ["--arch", "deit_ti16", "--batch-size", "8", *(word for value in SMALL_SETTINGS for word in ("--set", value))]


@pytest.fixture(scope="module")
def data(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_image_folder(tmp_path_factory.mktemp("data") / "tints", train=20, test=10, px=16)


def only_run(folder: Path) -> Path:
    (run,) = (folder / "results" / "runs").iterdir()
    return run


NARROW = ("--set", "backbone.depth=2", "--set", "backbone.dim=64", "--set", "training.precision=fp32")
QUICK = ("--set", "evaluators.linear-probe.epochs=2")


@pytest.mark.parametrize("method", WITH_SETTINGS)
def test_every_method_runs_stops_resumes_and_is_evaluated_again(
    sslbench: Command, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, method: str
) -> None:
    """What the README promises of a run, for every method that is registered.

    Its classes hardly differ, so that a network in place of another one has other accuracies.
    """
    data = write_image_folder(tmp_path / "alike", train=20, test=20, px=16, tint=6)
    arguments = ("run", method, "--arch", "deit_ti16", *NARROW, "--batch-size", "8", "--data", str(data), *QUICK)
    trains = not all(preset.values.get("training.epochs") == 0 for preset in registry.method(method).presets.values())
    if trains:
        arguments += ("--epochs", "2")
        with monkeypatch.context() as patch:
            patch.setattr("ssl_bench.runs.display.TerminalDisplay.step", interrupt_at_step_3)
            status, out, err = sslbench(*arguments, "--run-id", method)
        assert status == 130, err
        assert "saved at step 3 of 10" in out
        (resume,) = re.findall(r"Resume with: sslbench (.*)", out)
        status, out, err = sslbench(*resume.split())
    else:
        status, out, err = sslbench(*arguments, "--run-id", method)
    assert status == 0, err
    run = tmp_path / "results" / "runs" / method
    record = json.loads((run / "record.json").read_text())
    assert (record["status"], record["training"]["steps"]) == ("finished", 10 if trains else 0)

    for line in re.findall(r"^(?:next)? +sslbench (.*)", out, re.MULTILINE):  # the hints work as they stand
        status, _, err = sslbench(*shlex.split(line))
        assert status == 0, (line, err)
    subjects = ("untrained", "trained") if trains else ("untrained",)
    assert values_of(record["evaluations"]) == values_of(
        [json.loads(path.read_text()) for path in (run / "evaluations").glob("*.json")]
    )
    assert {subject for _, subject, _ in values_of(record["evaluations"])} == set(subjects)

    other = write_image_folder(tmp_path / "other", train=5, test=2, px=24)  # fewer and larger images
    status, out, err = sslbench("eval", method, "--data", str(other), "--with", "knn")
    assert status == 0, err
    assert out.count("written: ") == len(subjects)

    status, out, err = sslbench("attention", str(other / "val/a/0.png"), "--run", method, "--size", "32")
    assert status == 0, err
    assert Path("0-attention.png").stat().st_size > 0
    assert method in Path("results/tables/comparison.csv").read_text()

    status, replayed, err = sslbench("run", "--recipe", str(run / "recipe.toml"), "--dry-run")
    assert (status, replayed) == (0, (run / "recipe.toml").read_text()), err


def interrupt_at_step_3(display: Any, report: Any) -> None:
    if report.step == 3:
        signal.raise_signal(signal.SIGINT)


def values_of(evaluations: list[dict[str, Any]]) -> dict[tuple[str, str, str], float]:
    """(evaluator, network, metric) -> value."""
    return {(e["evaluator"], e["subject"], m["metric"]): m["value"] for e in evaluations for m in e["measurements"]}


def test_run_show_eval_and_table(sslbench: Command, data: Path, tmp_path: Path) -> None:
    status, out, _ = sslbench("run", "dino", *SMALL, "--data", str(data), "--epochs", "2")
    assert status == 0
    assert "preset small-data (40 training images are fewer than 20,000)" in out
    assert "untrained" in out
    run = only_run(tmp_path)
    record = json.loads((run / "record.json").read_text())
    assert record["status"] == "finished"
    assert record["training"]["steps"] == 10
    subjects = {(e["evaluator"], e["subject"]) for e in record["evaluations"]}
    assert subjects == {(e, s) for e in ("knn", "linear-probe") for s in ("trained", "untrained")}
    assert record["data"]["synthetic"] is False
    assert record["digest"].startswith(run.name.rpartition("-")[2])
    lines = [json.loads(line) for line in (run / "metrics.jsonl").read_text().splitlines()]
    assert len(lines) == 10
    assert all(line["teacher_entropy"] > 0 and "kl" in line for line in lines)
    assert not (run / "checkpoints").exists()

    assert run.name in sslbench("show", run.name[:-2])[1]
    status, out, err = sslbench("eval", run.name, "--with", "knn", "--set", "evaluators.knn.temperature=0.5")
    assert status == 0, err
    assert len(list((run / "evaluations").glob("knn-*.json"))) == 2
    status, again, err = sslbench("eval", run.name, "--with", "knn", "--set", "evaluators.knn.temperature=0.5")
    assert status == 0, err
    assert "was done before" in again
    assert [line for line in again.splitlines() if "top1" in line] == [
        line for line in out.splitlines() if "top1" in line
    ]
    status, out, err = sslbench("table")
    assert status == 0, err
    assert "tints" in out
    assert (tmp_path / "results" / "tables" / "comparison.csv").exists()

    status, _, err = sslbench("run", "dino", *SMALL, "--data", str(data), "--epochs", "2")
    assert status == 2
    assert "is finished" in err


def test_evaluating_again_gives_the_recorded_numbers(sslbench: Command, data: Path, tmp_path: Path) -> None:
    assert sslbench("run", "dino", *SMALL, "--data", str(data), "--epochs", "1", "--with", "knn")[0] == 0
    run = only_run(tmp_path)
    assert sslbench("eval", str(run))[0] == 0
    recorded = {
        (e["subject"], m["metric"]): m["value"]
        for e in json.loads((run / "record.json").read_text())["evaluations"]
        for m in e["measurements"]
    }
    again = {}
    for path in (run / "evaluations").glob("*.json"):
        content = json.loads(path.read_text())
        again |= {(content["subject"], m["metric"]): m["value"] for m in content["measurements"]}
    assert again == recorded


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        ("run dinno --arch deit_s16", "Did you mean 'dino'"),
        ("run dino", "add --arch"),
        ("run dino --arch deit_s16 --set method.k=3", "'method.k' is not a setting of dino"),
        ("run dino --arch deit_s16 --set method.loss", "is not KEY=VALUE"),
        ("run dino --arch deit_s16 --data nowhere/at/all", "nowhere does not exist"),
        ("run dino --arch deit_s16 --preset big", "no preset of dino is called 'big'"),
        ("run dino --arch deit_s16 --run-id ../x", "is not a folder name"),
        ("run --resume results/runs/none", "none"),
        ("run dino --arch timm:resnet1818", "timm has no network called 'resnet1818'"),
        ("run --resume", "--resume needs a run: sslbench run --resume results/runs/RUN"),
        ("run --resume dinno", "no method is called 'dinno'"),
        ("run mine.toml", "is a recipe file, not a method. To run it: sslbench run --recipe mine.toml"),
        (
            "run dino --arch timm:convnext_atto --set training.precision=fp32",
            "timm:convnext_atto cannot see images of 16 x 16 px",
        ),
        ("show none", "no run is called 'none'"),
        ("eval none", "no run is called 'none'"),
        ("table nothing", "nothing"),
    ],
)
def test_a_mistake_is_one_clear_message(sslbench: Command, data: Path, arguments: str, words: str) -> None:
    words_given = arguments.split()
    Path("mine.toml").write_text("[run]\n")
    if "--data" not in words_given and words_given[:2] == ["run", "dino"]:
        words_given += ["--data", str(data), "--batch-size", "4"]
    status, _, err = sslbench(*words_given)
    assert status == 2
    assert words in err
    assert err.count("error:") == 1
    assert "Traceback" not in err


def test_a_folder_that_cannot_be_written_is_named(sslbench: Command, data: Path, tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    status, _, err = sslbench("run", "dino", *SMALL, "--data", str(data), "--results", "file/results")
    assert status == 2
    assert "cannot make" in err
    assert "--results" in err


def test_dry_run_prints_a_recipe_that_runs(sslbench: Command, data: Path, tmp_path: Path) -> None:
    status, out, _ = sslbench("run", "dino", *SMALL, "--data", str(data), "--epochs", "1", "--dry-run")
    assert status == 0
    assert not (tmp_path / "results").exists()
    (tmp_path / "recipe.toml").write_text(out)
    status, out, err = sslbench("run", "--recipe", "recipe.toml", "--with", "knn")
    assert status == 0, err


def test_help_of_a_method_shows_its_settings(sslbench: Command) -> None:
    status, out, _ = sslbench("run", "dino", "--help")
    assert status == 0
    for words in ("teacher_temperature", "arXiv 2104.14294", "small-data", "sslbench run dino --arch"):
        assert words in out


def test_restart_discards_a_run_and_nothing_else(sslbench: Command, data: Path, tmp_path: Path) -> None:
    arguments = ["run", "dino", *SMALL, "--data", str(data), "--epochs", "0", "--with", "knn", "--run-id", "mine"]
    assert sslbench(*arguments)[0] == 0
    assert sslbench(*arguments)[0] == 2
    assert sslbench(*arguments, "--restart")[0] == 0
    foreign = tmp_path / "results" / "runs" / "theirs"
    foreign.mkdir()
    (foreign / "thesis.tex").write_text("years of work")
    status, _, err = sslbench(*arguments[:-1], "theirs", "--restart")
    assert status == 2
    assert "is not a run's folder" in err
    assert (foreign / "thesis.tex").exists()


def test_a_diverging_run_stands_as_failed(sslbench: Command, data: Path, tmp_path: Path) -> None:
    status, out, _ = sslbench(
        "run", "dino", *SMALL, "--data", str(data), "--epochs", "40", "--with", "knn", "--set",
        "optimizer.base_lr=1e38", "--set", "optimizer.warmup_epochs=0", "--set", "method.clip_norm=0",
    )  # fmt: skip
    assert status == 1
    assert "not finite" in out or "loss is nan" in out
    assert "optimizer.base_lr" in out
    assert json.loads((only_run(tmp_path) / "record.json").read_text())["status"] == "failed"


def test_a_collapsed_network_stands_as_collapsed_and_never_as_a_number(
    sslbench: Command, data: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from ssl_bench.runs import runner

    real = runner.train

    def collapse(method: Any, *rest: Any) -> Any:
        state = real(method, *rest)
        for parameter in method.teacher.parameters():
            parameter.data.zero_()
        return state

    monkeypatch.setattr(runner, "train", collapse)
    status, out, _ = sslbench("run", "dino", *SMALL, "--data", str(data), "--epochs", "1", "--with", "knn")
    assert status == 1
    assert "collapsed: features of the network are constant" in out
    record = json.loads((only_run(tmp_path) / "record.json").read_text())
    assert record["status"] == "collapsed"
    assert {e["subject"] for e in record["evaluations"]} == {"untrained"}
    assert "collapsed" in sslbench("table")[1]


def test_a_resumed_run_uses_as_many_threads_as_before(
    sslbench: Command, data: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from ssl_bench.runs import runner
    from ssl_bench.training.loop import Stopped

    def stop(*_: Any) -> None:
        raise Stopped(3, 10, None)

    arguments = ["run", "dino", *SMALL, "--data", str(data), "--epochs", "1", "--with", "knn", "--run-id", "mine"]
    with monkeypatch.context() as patch:
        patch.setattr(runner, "train", stop)
        assert sslbench(*arguments)[0] == 130
    folder = tmp_path / "results" / "runs" / "mine"
    state = read_run_state(folder)
    assert state.before_training is not None
    assert state.before_training.threads == torch.get_num_threads()
    on_two = state.before_training.model_copy(update={"threads": 2})
    write_run_state(folder, state.model_copy(update={"before_training": on_two}))
    before = torch.get_num_threads()
    try:
        assert sslbench("run", "--resume", str(folder))[0] == 0
        assert torch.get_num_threads() == 2
    finally:
        torch.set_num_threads(before)
    assert json.loads((folder / "record.json").read_text())["machine"]["threads"] == 2


def test_two_runs_never_share_a_folder(sslbench: Command, data: Path, tmp_path: Path) -> None:
    arguments = ["run", "dino", *SMALL, "--data", str(data), "--epochs", "0", "--with", "knn", "--run-id", "mine"]
    folder = tmp_path / "results" / "runs" / "mine"
    with hold(folder):
        status, _, err = sslbench(*arguments)
    assert status == 2
    assert "another process is doing the run mine" in err
    assert sslbench(*arguments)[0] == 0
    status, _, err = sslbench(*arguments, "--seed", "1")
    assert status == 2
    assert "is finished" in err


def test_a_run_that_is_not_finished_is_not_replaced_by_another_recipe(
    sslbench: Command, data: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from ssl_bench.runs import runner

    def stop(*_: Any) -> None:
        raise KeyboardInterrupt

    arguments = ["run", "dino", *SMALL, "--data", str(data), "--epochs", "1", "--with", "knn", "--run-id", "mine"]
    with monkeypatch.context() as patch:
        patch.setattr(runner, "train", stop)
        assert sslbench(*arguments)[0] == 130
    status, _, err = sslbench(*arguments, "--seed", "1")
    assert status == 2
    assert "exists with another recipe, which differs in training.seed" in err
    status, _, err = sslbench(*arguments)
    assert status == 2
    assert "started and is not finished. Resume with: sslbench run --resume results/runs/mine" in err
    (tmp_path / "results" / "runs" / "mine" / "run.json").write_text("{")
    status, _, err = sslbench(*arguments)
    assert status == 2
    assert "run.json is damaged" in err
    assert sslbench(*arguments, "--restart")[0] == 0


def test_a_record_that_came_with_the_checkout_is_no_obstacle(sslbench: Command, data: Path, tmp_path: Path) -> None:
    """A fresh clone holds records of the very runs its README names, without weights and run.json."""
    arguments = ("run", "random", "--arch", "resnet18", "--set", "backbone.width=0.125", "--data", str(data))
    arguments += ("--batch-size", "8")
    assert sslbench(*arguments, "--with", "knn")[0] == 0
    run = only_run(tmp_path)
    (run / "run.json").unlink()
    status, _, err = sslbench(*arguments, "--with", "knn")
    assert status == 0, err
    again = run.with_name(f"{run.name}-again")
    assert (again / "record.json").is_file()
    status, _, err = sslbench(*arguments, "--with", "knn", "--run-id", again.name)
    assert status == 2
    assert "is finished" in err


def test_the_beginning_of_a_name_means_the_run_made_here(tmp_path: Path) -> None:
    from ssl_bench.runs.folder import find_run

    for name in ("dino-a-s0-1111", "dino-a-s0-1111-again", "dino-b-s0-2222"):
        (tmp_path / "runs" / name).mkdir(parents=True)
    with pytest.raises(UserError, match="begins several runs"):
        find_run("dino", tmp_path)
    (tmp_path / "runs/dino-a-s0-1111-again/weights.safetensors").write_bytes(b"")
    assert find_run("dino", tmp_path).name == "dino-a-s0-1111-again"


def test_last_means_the_run_that_was_done_last(tmp_path: Path) -> None:
    from ssl_bench.runs.folder import find_run

    with pytest.raises(UserError, match="There are no runs"):
        find_run("last", tmp_path)
    for seconds, name in enumerate(("dino-b", "byol-c", "dino-a"), start=1_000):
        record = tmp_path / "runs" / name / "record.json"
        record.parent.mkdir(parents=True)
        record.write_text("{}")
        os.utime(record, (seconds, seconds))
    assert find_run("last", tmp_path).name == "dino-a"
    with pytest.raises(UserError, match=r"the latest first: dino-a, dino-b\. Give more of the name, or 'last'"):
        find_run("dino", tmp_path)
    os.utime(tmp_path / "runs/byol-c/record.json", (2_000, 2_000))
    assert find_run("last", tmp_path).name == "byol-c"
    (tmp_path / "runs/dino-b/weights.safetensors").write_bytes(b"")
    assert find_run("last", tmp_path).name == "dino-b", "records of others have no weights"


def test_a_methods_name_alone_means_its_stopped_run_with_resume(tmp_path: Path) -> None:
    from ssl_bench.runs.which_run import folder_of_run

    with pytest.raises(UserError, match="no run is called 'dino'"):
        folder_of_run("dino", True, tmp_path, alone=True)
    for name, files in {"dino-a-s0-1111": ("run.json", "record.json", "weights.safetensors"),
                        "dino-b-s0-2222": ("run.json",), "dino-c-s0-3333": ("record.json",)}.items():  # fmt: skip
        (tmp_path / "runs" / name).mkdir(parents=True)
        for file in files:
            (tmp_path / "runs" / name / file).write_bytes(b"")
    assert folder_of_run("dino", True, tmp_path, alone=True) == tmp_path / "runs/dino-b-s0-2222"
    assert folder_of_run("dino-", True, tmp_path) == tmp_path / "runs/dino-b-s0-2222"
    assert folder_of_run("dino", True, tmp_path) is None, "with --arch the rest says which run"
    assert folder_of_run("dino", False, tmp_path, alone=True) is None


RANDOM = ("run", "random", "--arch", "resnet18", "--set", "backbone.width=0.125", "--batch-size", "8")
KNN = ("--with", "knn", "--set", "evaluators.knn.neighbors=[1]", "--set", "evaluators.knn.reported=1")


def test_a_method_wins_over_a_folder_of_its_name(sslbench: Command, data: Path, tmp_path: Path) -> None:
    for name in ("random", "obow"):
        (tmp_path / name).mkdir()
    assert sslbench(*RANDOM, "--data", str(data), "--dry-run")[0] == 0
    status, _, err = sslbench("run", "obow", "--arch", "resnet18")
    assert status == 2
    assert "no method is called 'obow'" in err
    assert sslbench(*RANDOM, "--data", str(data), *KNN, "--run-id", "mine")[0] == 0
    os.rename("results/runs/mine", "mine")
    for arguments in (("run", "mine"), ("run", "--resume", "mine"), ("run", "--resume", "./mine", "--run-id", "x")):
        status, _, err = sslbench(*arguments)
        assert status == 2
        assert "sslbench show mine" in err or "sslbench run --resume mine" in err or "leave --run-id out" in err


def test_data_that_changed_are_named_before_a_run_goes_on(
    sslbench: Command, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    folder = write_image_folder(tmp_path / "my data" / "shapes", train=8, test=2)
    arguments = ("run", "simclr", "--arch", "deit_ti16", *NARROW, "--batch-size", "8", "--epochs", "3", *KNN)
    with monkeypatch.context() as patch:
        patch.setattr("ssl_bench.runs.display.TerminalDisplay.step", interrupt_at_step_3)
        assert sslbench(*arguments, "--data", "my data/shapes", "--run-id", "a run")[0] == 130
    added = folder / "train/a/more.png"
    added.write_bytes((folder / "train/a/0.png").read_bytes())
    status, _, err = sslbench("run", "--resume", "a run")
    assert status == 2
    assert "16 training images before, 17 now" in err
    assert "--accept-changed-data" in err
    added.unlink()
    monkeypatch.chdir("/")
    os.rename(folder, tmp_path / "moved")
    run = str(tmp_path / "results/runs/a run")
    status, _, err = sslbench("run", "--resume", run)
    assert status == 2
    assert "does not exist" in err
    assert sslbench("run", "--resume", run, "--data", str(tmp_path / "moved"))[0] == 0


def test_evaluation_on_data_of_all_kinds(sslbench: Command, data: Path, tmp_path: Path) -> None:
    """Other sizes, one class only, fewer images than neighbors, a plugin without `image_px`: a number or a message."""
    assert sslbench(*RANDOM, "--data", str(data), *KNN, "--run-id", "mine")[0] == 0
    for index, (classes, train, px) in enumerate([(("a", "b", "c"), 1, 8), (("a", "b"), 3, 64), (("a",), 3, 16)]):
        other = write_image_folder(tmp_path / f"other{index}", train=train, test=1, px=px, classes=classes)
        status, out, err = sslbench("eval", "mine", "--data", str(other), "--with", "knn")
        assert (status, err.count("error:")) in ((0, 0), (2, 1)), err
        assert "Traceback" not in err
        if status == 0:
            assert "written: " in out
    status, _, err = sslbench("eval", "mine", "--data", str(tmp_path / "none"))
    assert status == 2
    assert "does not exist" in err
    status, _, err = sslbench("eval", "mine", "--set", "evaluators.davis.top_k=3")
    assert "does not run here" in err
    status, _, err = sslbench("eval", "mine", "--set", "evaluators.knn=3")
    assert "names no setting" in err


def test_data_of_a_plugin_without_a_size_setting(
    sslbench: Command, data: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The template's dataset has images of 32 px and no setting to change it: they are seen at the run's 16 px."""
    assert sslbench(*RANDOM, "--data", str(data), *KNN, "--run-id", "mine")[0] == 0
    template = runpy.run_path(str(Path(__file__).parents[2] / "plugins/template/dataset/my_plugin.py"))["MyPlugin"]
    known = registry.dataset
    monkeypatch.setattr(registry, "names", lambda kind: [*NAMES[kind], *(["my_plugin"] if kind == "dataset" else [])])
    monkeypatch.setattr(registry, "dataset", lambda name: template if name == "my_plugin" else known(name))
    sizes = ("--set", "data.train_images=20", "--set", "data.test_images=4")
    status, _, err = sslbench("eval", "mine", "--data", "my_plugin", *sizes)
    assert status == 0, err
    (path,) = (tmp_path / "results/runs/mine/evaluations").glob("*.json")
    evaluation = json.loads(path.read_text())
    assert (evaluation["data"], evaluation["image_px"]) == ("my_plugin", 16)


NAMES = {kind: registry.names(kind) for kind in registry.KINDS}


def test_names_that_collide_in_four_characters(
    sslbench: Command, data: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Two recipes whose digests begin alike get folders of their own, and nothing is overwritten."""
    from ssl_bench.records.recipe import Recipe

    real = Recipe.digest.fget  # type: ignore[attr-defined]
    monkeypatch.setattr(Recipe, "digest", property(lambda recipe: "0000" + real(recipe)))
    for _ in range(2):
        for seed in ("1", "2"):
            arguments = (*RANDOM, "--data", str(data), *KNN, "--seed", seed)
            monkeypatch.setattr(Recipe, "name_with", same_seed(Recipe.name_with))
            sslbench(*arguments)
    found = sorted(json.loads(path.read_text())["seed"] for path in (tmp_path / "results").glob("runs/*/record.json"))
    assert found == [1, 2]


def same_seed(name_with: Any) -> Any:
    """Names without the seed, which is the digest's business here."""
    return lambda recipe, characters: re.sub(r"-s\d+-", "-s-", name_with(recipe, characters))


def test_a_run_below_its_untrained_network_is_remarked_on() -> None:
    from ssl_bench.cli.result import below_the_start
    from tests.example_records import measured

    def row(before: float, after: float) -> dict[str, Any]:
        return {"before": measured(before), "trained": measured(after)}

    both = {("knn (a)", "test"): row(30, 29), ("linear-probe (b)", "test"): row(40, 39)}
    assert "below the untrained network" in below_the_start(both, "untrained")
    assert "random" not in below_the_start(both, "pretrained")
    assert (
        below_the_start({("knn (a)", "test"): row(30, 29), ("linear-probe (b)", "test"): row(40, 40)}, "untrained")
        == ""
    )
    assert "below" in below_the_start(
        {("knn (a)", "test"): row(30, 29), ("davis (j)", "test"): row(40, 60)}, "untrained"
    )
    assert below_the_start({("knn (a)", "test"): {"before": measured(3)}}, "untrained") == ""
    assert below_the_start({}, "untrained") == ""


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        ("run --resume", "--resume needs a run"),
        ("run dino --arch deit_s16 --resume --restart", "give one of them"),
        ("run dino --arch deit_s16 --with ,", "--with names no evaluator"),
        ("run dino --arch deit_s16 --epochs -1", "'training.epochs' = -1"),
        ("run dino --arch deit_s16 --seed 99999999999999999999", "'training.seed' = 99999999999999999999"),
        ("run dino --arch deit_s16 --preset=", "no preset of dino is called ''"),
        ("run dino --arch deit_s16 --run-id=", "is not a folder name"),
        ("run dino --arch timm:", "lacks the network's name"),
        ("run dino --arch deit_s16:x", "deit_s16 is one network"),
        ("run dino --arch deit_s16 --set evaluators.knn=5", "names no setting"),
        ("run dino --arch deit_s16 --set method.global_scale=[1.0,0.4]", "'method.global_scale' = [1.0, 0.4]"),
        ("run dino --arch deit_s16 --recipe none.toml", "cannot read the recipe none.toml"),
        ("run dino --arch deit_s16 --data=", "no dataset was given"),
        ("run --arch deit_s16 --epochs 3 nope", "no method is called 'nope'"),
    ],
)
def test_options_that_make_no_sense(sslbench: Command, data: Path, arguments: str, words: str) -> None:
    given = arguments.split() + ([] if "--data=" in arguments else ["--data", str(data), "--batch-size", "4"])
    status, _, err = sslbench(*given)
    assert status == 2, err
    assert words in err
    assert err.count("error:") == 1


@pytest.mark.parametrize("error", [ValueError("v"), AssertionError(), KeyError("k"), TypeError("t"), IndexError("i")])
@pytest.mark.parametrize("place", ["step", "__init__", "make_views"])
def test_whatever_a_method_raises_before_training_is_one_message(
    sslbench: Command, data: Path, monkeypatch: pytest.MonkeyPatch, place: str, error: Exception
) -> None:
    def stumble(*_: Any) -> None:
        raise error

    method = registry.method("simclr")
    monkeypatch.setattr(method, place, classmethod(stumble) if place == "make_views" else stumble)
    arguments = ("run", "simclr", "--arch", "resnet18", "--set", "backbone.width=0.125", "--batch-size", "8")
    status, _, err = sslbench(*arguments, "--data", str(data), *KNN)
    assert status == 2
    assert err.count("error:") == 1
    assert type(error).__name__ in err or str(error) in err
    monkeypatch.setenv("SSLBENCH_DEBUG", "1")
    with pytest.raises(UserError) as shown:
        sslbench(*arguments, "--data", str(data), *KNN)
    assert shown.value.__cause__ is error
