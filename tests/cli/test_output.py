"""What scripts and odd surroundings get: JSON, any encoding, closed pipes, odd records, and hints that work."""

from __future__ import annotations

import io
import json
import os
import shlex
import subprocess
import sys
from collections.abc import Callable
from importlib import metadata
from pathlib import Path
from typing import Any

import pytest
import torch
from rich.console import Console

from ssl_bench import registry
from ssl_bench.cli.encodings import HANDLER
from ssl_bench.cli.main import main
from ssl_bench.cli.result import show_result
from ssl_bench.records.reading import read_record
from ssl_bench.records.record import RunRecord, write_record
from tests.conftest import Command
from tests.davis_files import moving_square, write_davis
from tests.example_records import KNN, evaluation, make_record, measured
from tests.toy import write_image_folder

NETWORK = ("backbone.depth=1", "backbone.dim=32", "backbone.patch_px=8", "training.precision=fp32")
TINY = ("--arch", "deit_ti16", "--batch-size", "8", *(word for value in NETWORK for word in ("--set", value)))
AGAIN = f"sslbench run supervised {shlex.join(TINY)} --data tints --epochs 1 --with knn"
VALUE = 40.123456789012345
ENCODINGS = ("utf-8", "cp1252", "ascii", "koi8-r")


@pytest.fixture
def results(tmp_path: Path) -> Path:
    for seed in (0, 1):
        record = make_record(seed=seed, knn=(30.0, VALUE + seed))
        write_record(record, tmp_path / "results" / "runs" / record.run_id / "record.json")
    return tmp_path / "results"


@pytest.fixture(scope="module")
def run_folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A finished run in a folder whose name the shell would split."""
    place = tmp_path_factory.mktemp("place")
    write_image_folder(place / "tints", train=8, test=4)
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(place)
        patch.setattr(sys, "argv", [*AGAIN.split(), "--results", "my results"])
        with pytest.raises(SystemExit) as end:
            main()
    assert not end.value.code
    (run,) = (place / "my results" / "runs").iterdir()
    return run


def in_shell(words: list[str], cwd: Path, encoding: str = "utf-8") -> subprocess.CompletedProcess[bytes]:
    return subprocess.run(
        [sys.executable, "-m", "ssl_bench.cli.main", *words],
        cwd=cwd,
        env={**os.environ, "OMP_NUM_THREADS": "1", "PYTHONIOENCODING": encoding},
        capture_output=True,
    )


# JSON


def test_table_json_holds_every_number_of_the_records(sslbench: Command, results: Path) -> None:
    status, out, err = sslbench("table", "comparison", "--json", "--results", results)
    assert (status, err) == (0, "")
    document = json.loads(out)
    (table,) = document["tables"]
    (row,) = [row for block in table["blocks"] for row in block["rows"]]
    cell = row["cells"]["knn"]
    assert cell["mean"] == (VALUE + (VALUE + 1)) / 2
    assert (cell["n"], cell["unit"], cell["untrained"]["mean"]) == (2, "%", 30.0)
    assert row["keys"] == {"method": "dino", "arch": "deit_s16"}
    assert row["published"]["knn_thesis"] == "74.4"
    assert len(table["published"][0]["rows"]) == 25
    assert all(Path(path).exists() for path in document["written"])
    assert json.loads(sslbench("table", "--list", "--json")[1])["tables"][0]["id"] == "comparison"
    assert json.loads(sslbench("table", "--json", "--results", results / "none")[1])["written"] == []


def without_fingerprint(path: Path) -> dict[str, Any]:
    """What a state file says, without the proof that it is whole."""
    content: dict[str, Any] = json.loads(path.read_text())
    content.pop("fingerprint", None)
    return content


def test_show_json_is_the_record_itself(sslbench: Command, results: Path) -> None:
    for folder in (results / "runs").iterdir():
        status, out, err = sslbench("show", folder, "--json")
        assert (status, err) == (0, "")
        assert json.loads(out) == without_fingerprint(folder / "record.json")
        assert VALUE in [
            m["value"] - json.loads(out)["seed"] for m in json.loads(out)["evaluations"][1]["measurements"]
        ]


def test_list_json_names_every_plugin(sslbench: Command) -> None:
    status, out, err = sslbench("list", "--json")
    assert (status, err) == (0, "")
    listed = json.loads(out)["plugins"]
    expected = [(plugin.kind, plugin.name) for kind in registry.KINDS for plugin in registry.plugins(kind)]
    assert [(plugin["kind"], plugin["name"]) for plugin in listed] == expected
    assert [plugin["paper"] for plugin in listed if plugin["name"] == "dino"] == ["arXiv 2104.14294"]
    assert {plugin["broken"] for plugin in listed} == {None}


def test_eval_json_holds_the_written_evaluations_and_nothing_else(
    sslbench: Command, run_folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(run_folder.parents[2])
    words = ["eval", str(run_folder), "--with", "knn", "--set", "evaluators.knn.temperature=0.5", "--json"]
    (_, first, progress), (_, again, _) = (sslbench(*words) for _ in range(2))
    document = json.loads(first)
    written = [without_fingerprint(Path(path)) for path in document["written"]]
    assert len(written) == 2
    assert document["evaluations"] == written
    assert json.loads(again) == {**document, "written": []}
    assert "knn of the trained network" in progress


def test_score_davis_json_has_every_measure_unrounded(sslbench: Command, tmp_path: Path) -> None:
    davis = write_davis(tmp_path, {"ball": moving_square(5)})
    status, out, err = sslbench(
        "score-davis", davis / "Annotations/480p", "--davis", davis, "--json", "--csv", "scores"
    )
    assert (status, err) == (0, "")
    document = json.loads(out)
    assert [one["J-Mean"] for one in document["objects"]] == [1.0]
    assert document["mean"]["J&F-Mean"] == 1.0
    assert [Path(path).parent.name for path in document["written"]] == ["scores", "scores"]


@pytest.mark.parametrize("words", [("table", "nothing"), ("show", "nothing"), ("list", "nothing"), ("eval", "nothing")])
def test_a_mistake_leaves_stdout_empty(sslbench: Command, words: tuple[str, ...]) -> None:
    status, out, err = sslbench(*words, "--json")
    assert (status, out) == (2, "")
    assert err.startswith("error: ")


# terminals


@pytest.mark.parametrize("width", [60, 80, 120])
def test_show_on_a_terminal_fits_and_loses_no_word(
    sslbench: Command, results: Path, monkeypatch: pytest.MonkeyPatch, width: int
) -> None:
    shown = ("show", "dino-deit_s16-shapes-s0", "--results", results)
    plain = sslbench(*shown)[1]
    console = Console(file=io.StringIO(), width=width, highlight=False)
    monkeypatch.setattr("ssl_bench.cli.show.terminal", lambda: console)
    assert sslbench(*shown)[0] == 0
    text = console.file.getvalue()  # type: ignore[attr-defined]
    assert max(map(len, text.splitlines())) <= width
    squeezed = "".join(text.split())
    assert [word for word in plain.split() if word.rstrip(",") not in squeezed and word != "="] == []
    assert [line.split() for line in text.splitlines() if "* top1_k20" in line] == [
        ["*", "top1_k20", "%", "30.00", "40.12", "1,000"],
    ]  # fmt: skip


def test_a_protocol_stands_once_below_the_numbers_that_share_it(sslbench: Command, results: Path) -> None:
    shared = (measured(1.0), measured(2.0, metric="top1_k10", primary=False), measured(3.0, metric="x", protocol="own"))
    record = make_record(run_id="shared", evaluations=(evaluation("knn", "trained", *shared),))
    write_record(record, results / "runs" / "shared" / "record.json")
    lines = [line.strip() for line in sslbench("show", "shared", "--results", results)[1].splitlines()]
    names = [line for line in lines if line in (KNN, "own") or line.removeprefix("* ").startswith("knn ")]
    assert [line if line in (KNN, "own") else line.removeprefix("* ").split()[1] for line in names] == [
        "top1_k20", "top1_k10", KNN, "x", "own",
    ]  # fmt: skip


# encodings, pipes and disks


@pytest.mark.parametrize("encoding", ENCODINGS[1:])
def test_every_encoding_gives_the_same_files_and_every_number(
    results: Path, tmp_path: Path, encoding: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    files = [results / "tables" / f"comparison.{ending}" for ending in ("csv", "md")]
    plain = in_shell(["table", "--results", "results"], tmp_path)
    expected = [path.read_bytes() for path in files]
    odd = in_shell(["table", "--results", "results"], tmp_path, encoding)
    assert (odd.returncode, odd.stderr) == (0, b"")
    assert [path.read_bytes() for path in files] == expected
    assert b"->" in odd.stdout
    spelled = odd.stdout.decode(encoding).replace("->", "→").replace("+-", "±")
    assert spelled.split() == plain.stdout.decode().split()


@pytest.mark.parametrize("encoding", ["cp1252", "ascii:strict"])
def test_verbs_print_in_any_encoding(results: Path, encoding: str) -> None:
    for words in (["show", "dino-deit_s16-shapes-s0"], ["table", "--list"], ["run", "--help"], ["shwo"]):
        done = in_shell(words, results.parent, encoding)
        assert done.returncode == (2 if words == ["shwo"] else 0), done.stderr
        assert b"Traceback" not in done.stderr
        done.stdout.decode(encoding.partition(":")[0])


def test_what_an_encoding_lacks_is_spelled_out() -> None:
    assert "30 → 40±1 … 日 \udc80".encode("ascii", HANDLER) == rb"30 -> 40+-1 ... \u65e5 \udc80"
    assert "30 → 40±1 \udc80".encode("utf-8", HANDLER) == "30 → 40±1 ".encode() + rb"\udc80"


def test_memory_that_runs_out_is_no_traceback(sslbench: Command, monkeypatch: pytest.MonkeyPatch) -> None:
    """In a verb that does not say it itself; a mock of the allocator's error."""

    def runs_out(*_: object) -> None:
        raise torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 2.00 GiB\nmore")

    monkeypatch.setattr("ssl_bench.cli.main.app", runs_out)
    status, out, err = sslbench("attention")
    assert (status, out) == (2, "")
    assert err.startswith("error: memory ran out (CUDA out of memory. Tried to allocate 2.00 GiB). End what else")


@pytest.mark.parametrize(
    ("where", "status"), [("| head -1", 0), ("| true", 0), (">/dev/full", 1), (">&-", 0), ("2>&-", 0)]
)
def test_output_that_cannot_be_written_is_no_traceback_and_the_tables_stand(
    results: Path, tmp_path: Path, where: str, status: int
) -> None:
    command = f"{shlex.quote(sys.executable)} -m ssl_bench.cli.main table --results results {where}"
    done = subprocess.run(command, shell=True, cwd=tmp_path, capture_output=True, text=True)
    assert done.returncode == status
    assert "Traceback" not in done.stderr
    assert "Exception ignored" not in done.stderr
    assert ("No space left" in done.stderr) == (where == ">/dev/full")
    assert (results / "tables" / "comparison.csv").exists()


# odd records


def deep(levels: int) -> Any:
    value: Any = 1
    for _ in range(levels):
        value = {"a": value}
    return value


def changed(record: RunRecord, path: str, value: Any) -> str:
    content = json.loads(record.model_dump_json())
    *parents, last = path.split(".")
    part = content
    for name in parents:
        part = part[int(name)] if isinstance(part, list) else part[name]
    part[last] = value
    return json.dumps(content)


ODD: dict[str, Callable[[RunRecord], str | bytes]] = {
    "a huge integer": lambda r: changed(r, "backbone.parameters", 10**400),
    "a huge integer in the recipe": lambda r: changed(r, "recipe.method.settings.out_dim", 10**400),
    "an integer beyond what Python reads": lambda r: changed(r, "seed", 7).replace(
        '"seed": 7', '"seed": ' + "9" * 5000
    ),
    "deep nesting": lambda r: changed(r, "recipe.method.settings.x", deep(150)),
    "deeper nesting": lambda r: changed(r, "recipe.method.settings.x", deep(400)),
    "nesting beyond what Python reads": lambda r: "[" * 100_000,
    "a lone surrogate": lambda r: changed(r, "recipe.method.settings.x", "\ud800"),
    "a lone surrogate in a name": lambda r: changed(r, "recipe.method.settings.\udc80", 1),
    "a lone surrogate in the command": lambda r: changed(r, "command", "sslbench \udcff"),
    "NaN seconds": lambda r: changed(r, "training.seconds", float("nan")),
    "infinite speed": lambda r: changed(r, "training.images_per_second", float("inf")),
    "NaN in the recipe": lambda r: changed(r, "recipe.optimizer.lr", float("nan")),
    "latin-1": lambda r: changed(r, "command", "x").encode().replace(b"x", b"\xe9"),
    "UTF-16": lambda r: r.model_dump_json().encode("utf-16"),
    "nothing": lambda r: "",
    "a list": lambda r: "[]",
    "a word": lambda r: '"record"',
    "no recipe": lambda r: changed(r, "recipe", None),
}


@pytest.mark.parametrize("name", ODD)
def test_one_odd_record_is_one_warning_and_the_others_are_tabulated(
    sslbench: Command, results: Path, name: str
) -> None:
    content = ODD[name](make_record(seed=2, run_id="odd"))
    (results / "runs" / "odd").mkdir()
    (results / "runs" / "odd" / "record.json").write_bytes(content if isinstance(content, bytes) else content.encode())
    status, out, err = sslbench("table", "--results", results)
    assert status == 1
    (line,) = err.splitlines()
    assert line.startswith("warning: left out: ")
    assert "odd/record.json" in line
    assert len(line) < 600
    assert "30.0 → 40.6±0.7" in out
    for words in (["show", "odd"], ["show", "odd", "--json"]):
        status, out, err = sslbench(*words, "--results", results)
        assert (status, out) == (2, "")
        assert len(err.splitlines()) == 1
    assert sslbench("show", "dino-deit_s16-shapes-s0", "--results", results)[0] == 0


@pytest.mark.parametrize("file", ["a folder", "a broken link", "an evaluation"])
def test_a_record_that_is_no_file_and_an_odd_evaluation(sslbench: Command, results: Path, file: str) -> None:
    folder = results / "runs" / "odd"
    folder.mkdir()
    if file == "a folder":
        (folder / "record.json").mkdir()
    elif file == "a broken link":
        (folder / "record.json").symlink_to("nowhere")
    else:
        first = results / "runs" / "dino-deit_s16-shapes-s0-1024"
        (first / "evaluations").mkdir()
        (first / "evaluations" / "odd.json").write_text('{"evaluator": 3')
    status, out, err = sslbench("table", "--results", results)
    assert "40.6±0.7" in out
    assert (status, len(err.splitlines())) in ((1, 1), (0, 0))
    assert status == 1 or file == "a broken link"


def test_a_measurement_that_is_nan_and_a_failed_runs_log_are_no_fault(sslbench: Command, results: Path) -> None:
    record = make_record(seed=3, knn=(30.0, float("nan")), settings={"out_dim": 7}, run_id="nan")
    write_record(record, results / "runs" / "nan" / "record.json")
    status, out, err = sslbench("table", "--results", results)
    assert (status, err) == (0, "")
    assert "not finite" in out
    document = json.loads(sslbench("show", "nan", "--json", "--results", results)[1])
    assert document["evaluations"][1]["measurements"][0]["value"] == "NaN"


# hints


def test_hints_work_as_they_are_printed(sslbench: Command, run_folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Whatever a verb advises is run as typed, from the same folder, with results elsewhere and a blank in the path."""
    monkeypatch.chdir(run_folder.parents[2])
    run = shlex.quote(str(run_folder.relative_to(run_folder.parents[2])))
    hints = {
        f"{AGAIN} --results 'my results'": "See it with: ",
        f"sslbench run --resume {run}": "see it with: ",
        "sslbench table --results nowhere": "Make the first: ",
    }
    for typed, before in hints.items():
        said = "".join(map(str, sslbench(*shlex.split(typed)[1:])[1:]))
        assert before in said, said
        words = shlex.split(said.partition(before)[2].splitlines()[0].partition(". ")[0])
        assert words[0] == "sslbench"
        if words[1] == "run":
            assert words[-2:] == ["--results", "nowhere"]
            words = ["sslbench", "run", "--help"]  # the whole run takes minutes
        assert sslbench(*words[1:])[0] == 0, words


def test_the_next_command_after_a_run_reads_the_same_results(
    capsys: pytest.CaptureFixture[str], run_folder: Path
) -> None:
    show_result(read_record(run_folder / "record.json"), run_folder)
    _, _, printed = capsys.readouterr().out.partition("\nnext ")
    elsewhere = ["--results", str(run_folder.parents[1])]
    assert [shlex.split(line) for line in printed.splitlines()] == [
        ["sslbench", "show", run_folder.name, *elsewhere],
        ["sslbench", "table", *elsewhere],
        ["sslbench", "eval", run_folder.name, *elsewhere],
    ]


def test_an_unfinished_runs_hint_names_its_folder_quoted(sslbench: Command, tmp_path: Path) -> None:
    folder = tmp_path / "my results" / "runs" / "stopped"
    folder.mkdir(parents=True)
    (folder / "run.json").write_text("{}")
    status, out, _ = sslbench("show", "stopped", "--results", "my results")
    assert status == 1
    advised = ["sslbench", "run", "--resume", "my results/runs/stopped"]
    assert shlex.split(out.partition("Resume with: ")[2]) == advised
    status, _, err = sslbench("eval", "stopped", "--results", "my results")
    assert status == 2
    assert shlex.split(err.partition("Resume with: ")[2]) == advised


def test_the_version_is_the_packages(sslbench: Command) -> None:
    assert sslbench("--version")[:2] == (0, f"sslbench {metadata.version('sslbench')}\n")
