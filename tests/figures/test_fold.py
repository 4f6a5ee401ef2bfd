"""Values of figures: means over seeds, collapsed runs, references, networks, printed numbers, damaged files."""

from __future__ import annotations

import csv
import io
import math
from pathlib import Path

import pytest

from ssl_bench.errors import UserError
from ssl_bench.figures.csv_text import OF_LINE, to_csv
from ssl_bench.figures.curves import RunCurves
from ssl_bench.figures.fold import fold
from ssl_bench.figures.loading import built_in_figures, load_figure
from ssl_bench.figures.of_runs import curves_figure
from ssl_bench.figures.values import Figure
from ssl_bench.records.reading import read_usable
from ssl_bench.tables.fold import fold as fold_table
from tests.example_records import evaluation, measured
from tests.figures.runs import write_run

TABLE = """
id = "teachers"
title = "teachers"
[[row]]
id = "teacher"
from = "recipe.method.settings.teacher"
[[row]]
id = "arch"
from = "backbone.name"
[[row]]
id = "method"
from = "method"
[[column]]
id = "knn"
title = "k-NN"
unit = "%"
from = "measurement:knn.primary:trained"
baseline = "measurement:knn.primary:untrained"
[[column]]
id = "inference"
title = "im/s"
from = "backbone.inference_images_per_second"
[[published]]
file = "printed.csv"
data = "ImageNet-1k"
source = "a thesis"
listed = true
join = { teacher = "teacher", arch = "arch", method = "method" }
columns = [
  { column = "knn", title = "k-NN", beside = "k-NN" },
  { column = "speed", title = "im/s" },
]
"""
PRINTED = "teacher,arch,method,knn,speed\nmomentum,deit_s16,dino,72.7,503\nmomentum,deit_s8,dino,78.1,88\n"
LINES = """
id = "collapses"
title = "Entropy"
table = "table.toml"
kind = "lines"
[[panel]]
y = "step:teacher_entropy"
title = "h"
reference = [
  { title = "ln K", log_of = "recipe.method.settings.out_dim" },
  { title = "0", value = 0.0 },
]
"""
EPOCHS = LINES.partition("[[panel]]")[0] + '[[panel]]\ny = "epoch:knn.primary"\ny_title = "k-NN"\n'


def drawn(tmp_path: Path, description: str) -> tuple[Figure, dict[str, RunCurves]]:
    """The figure of the runs under `tmp_path`."""
    (tmp_path / "table.toml").write_text(TABLE)
    (tmp_path / "printed.csv").write_text(PRINTED)
    (tmp_path / "figure.toml").write_text(description)
    source = load_figure(str(tmp_path / "figure.toml"))
    found, problems = read_usable(tmp_path)
    assert not problems
    runs = {record.run_id: RunCurves(path.parent, record) for path, record in found}
    table = fold_table(source.table.description, [record for _, record in found], source.table.published)
    return fold(source.description, table, runs), runs


def rows_of(figure: Figure) -> list[dict[str, str]]:
    """The CSV's rows, each with what stands in the first one of its line."""
    rows, first = [], dict[str, str]()
    for row in csv.DictReader(io.StringIO(to_csv(figure))):
        first = first if first.get("line") == row["line"] else row
        assert row is first or not any(row[name] for name in OF_LINE)
        rows.append(row | {name: first[name] for name in OF_LINE})
    return rows


def test_a_line_is_the_mean_over_the_seeds_that_have_a_value_and_collapsed_runs_are_drawn(tmp_path: Path) -> None:
    momentum = {"settings": {"teacher": "momentum"}}
    write_run(tmp_path, "a0", logged={"teacher_entropy": [3.0, 2.0, 1.0]}, seed=0, **momentum)
    write_run(tmp_path, "a1", logged={"teacher_entropy": [5.0, 4.0]}, seed=1, **momentum)
    copy = {"settings": {"teacher": "student_copy"}, "status": "collapsed"}
    write_run(tmp_path, "b0", logged={"teacher_entropy": [1.0, math.nan, 0.0]}, **copy)
    figure, _ = drawn(tmp_path, LINES)
    ((panel,),) = (strip.panels for strip in figure.strips)
    one, other = panel.lines
    assert (one.name, other.name) == ("momentum", "student_copy (collapsed)")
    assert [(p.x, p.y, p.n) for p in one.points] == [(1, 4.0, 2), (2, 3.0, 2), (3, 1.0, 1)]
    assert one.points[0].std == pytest.approx(math.sqrt(2))
    assert [(p.x, p.y) for p in other.points] == [(1, 1.0), (3, 0.0)], "what is not finite is left out"
    assert one.style != other.style
    assert [(r.title, r.value) for r in panel.references] == [("ln K", math.log(1024)), ("0", 0.0)]
    assert "published, ImageNet-1k (a thesis), not measured here: momentum: k-NN 72.7" in figure.notes
    measured_rows = [row for row in rows_of(figure) if row["kind"] == "measured"]
    assert len(measured_rows) == 5
    assert measured_rows[0] == {
        "line": "1", "kind": "measured", "heading": figure.strips[0].heading, "panel": "h", "series": "momentum",
        "label": "", "x": "1", "y": "4", "std": "1.41421356", "n": "2", "unit": "", "source": "", "runs": "a0 a1",
    }  # fmt: skip


@pytest.mark.parametrize(
    ("split", "panels"),
    [
        ("none", {"": ["momentum, teacher", "momentum, student", "student_copy, teacher", "student_copy, student"]}),
        ("row", {"momentum": ["teacher", "student"], "student_copy": ["teacher", "student"]}),
        ("network", {"teacher": ["momentum", "student_copy"], "student": ["momentum", "student_copy"]}),
    ],
)
def test_networks_by_epoch_in_one_panel_or_several(tmp_path: Path, split: str, panels: dict[str, list[str]]) -> None:
    for number, teacher in enumerate(("momentum", "student_copy")):
        curve = {"teacher": [30.0 + number, 40.0], "student": [20.0, 25.0]}
        write_run(tmp_path, f"run{number}", knn=curve, settings={"teacher": teacher})
    figure, _ = drawn(tmp_path, EPOCHS.replace("[[panel]]", f'split = "{split}"\n[[panel]]'))
    (strip,) = figure.strips
    assert {panel.title: [line.name for line in panel.lines] for panel in strip.panels} == panels
    assert {panel.y_title for panel in strip.panels} == {"k-NN (%)"}
    first = strip.panels[0].lines[0]
    assert [(p.x, p.y) for p in first.points] == [(1, 30.0), (2, 40.0)]
    styles = {(line.name, line.style) for panel in strip.panels for line in panel.lines}
    assert len(styles) == len({name for name, _ in styles}), "a name has one style in all panels"


def test_labels_say_what_tells_lines_apart_and_no_more(tmp_path: Path) -> None:
    """Settings stand in a name only where another row has the same keys, and only those in which the two differ."""
    curve = {"teacher": [30.0, 40.0]}
    for name, settings in {
        "a": {"teacher": "momentum", "x": 1},
        "b": {"teacher": "momentum", "x": 2},
        "c": {"teacher": "previous_epoch", "x": 2, "y": 3},
    }.items():
        changed = {f"method.{key}": value for key, value in settings.items() if key != "teacher"}
        write_run(tmp_path, name, knn=curve, settings=settings, changed_settings=changed)
    figure, _ = drawn(tmp_path, EPOCHS)
    ((panel,),) = (strip.panels for strip in figure.strips)
    assert [line.name for line in panel.lines] == [
        "momentum, method.x=1",
        "momentum, method.x=2",
        "previous_epoch",
    ]


def test_bars_by_group_with_the_network_before_training_and_printed_ones_apart(tmp_path: Path) -> None:
    for method, knn in (("dino", (20.0, 45.0)), ("supervised", (20.0, 30.0))):
        write_run(tmp_path, method, method=method, knn=None, linear=None, settings={"teacher": "momentum"},
                  evaluations=tuple(evaluation("knn", s, measured(v)) for s, v in zip(("untrained", "trained"), knn,
                                                                                       strict=True)))  # fmt: skip
    text = LINES.partition("[[panel]]")[0].replace("lines", "bars")
    text += 'series = ["method"]\nbars = ["random", "supervised"]\nbaseline = "random"\n'
    figure, _ = drawn(tmp_path, text + '[[panel]]\ny = "knn"\npublished = "knn"\n')
    measured_strip, printed_strip = figure.strips
    (panel,) = measured_strip.panels
    assert [(line.name, line.points[0].y) for line in panel.lines] == [
        ("random", 20.0), ("supervised", 30.0), ("dino", 45.0),
    ]  # fmt: skip
    assert panel.categories == ("momentum, deit_s16",)
    (printed,) = printed_strip.panels
    assert printed.published == "Published, ImageNet-1k: a thesis"
    assert [(line.name, [p.y for p in line.points]) for line in printed.lines] == [("dino", [72.7, 78.1])]
    assert printed.categories == ("momentum, deit_s16", "momentum, deit_s8")
    assert printed.lines[0].style == panel.lines[2].style
    assert {row["kind"] for row in rows_of(figure)} == {"measured", "published"}


def test_points_have_the_x_of_a_column_and_lines_by_pattern(tmp_path: Path) -> None:
    for arch, speed, knn in (("deit_s16", 500.0, 40.0), ("deit_s8", 90.0, 50.0)):
        backbone = {"inference_images_per_second": speed}
        write_run(tmp_path, arch, arch=arch, backbone=backbone, linear=None, settings={"teacher": "momentum"},
                  evaluations=(evaluation("knn", "trained", measured(knn)),))  # fmt: skip
    text = LINES.partition("[[panel]]")[0].replace("lines", "points")
    text += 'series = ["arch"]\nseries_pattern = "^deit_s"\n'
    text += 'x = { column = "inference", title = "images/s", log = true, published = "speed" }\n'
    figure, _ = drawn(tmp_path, text + '[[panel]]\ny = "knn"\npublished = "knn"\n')
    (panel,), (printed,) = (strip.panels for strip in figure.strips)
    (line,), (other,) = panel.lines, printed.lines
    assert (line.name, other.name, panel.log_x, printed.log_x) == ("deit_s", "deit_s", True, True)
    assert [(p.x, p.y, p.label) for p in line.points] == [
        (90.0, 50.0, "8, momentum, dino"), (500.0, 40.0, "16, momentum, dino"),
    ]  # fmt: skip
    assert [(p.x, p.y) for p in other.points] == [(88.0, 78.1), (503.0, 72.7)]


def test_a_damaged_file_leaves_its_run_out_and_is_named(tmp_path: Path) -> None:
    settings = {"teacher": "momentum"}
    write_run(tmp_path, "a0", logged={"teacher_entropy": [3.0]}, seed=0, settings=settings)
    write_run(tmp_path, "a1", logged={"teacher_entropy": [5.0]}, seed=1, settings=settings)
    write_run(tmp_path, "a2", seed=2, settings=settings)
    write_run(tmp_path, "a3", knn={"teacher": [10.0]}, seed=3, settings=settings)
    (tmp_path / "runs" / "a1" / "steps.csv").write_text("nothing")
    figure, runs = drawn(tmp_path, LINES)
    (point,) = figure.strips[0].panels[0].lines[0].points
    assert (point.y, point.n) == (3.0, 1)
    assert "steps.csv is not the file that the record names" in runs["a1"].problems[0]
    assert any("without steps.csv" in note and "a2" in note for note in figure.notes)
    epochs, _ = drawn(tmp_path, EPOCHS)
    assert not any("steps.csv" in note for note in epochs.notes), "it draws no logged value"
    assert any(note == "without evaluations during training (--eval-every N): a0, a1, a2" for note in epochs.notes)


def test_the_curves_of_runs_are_named_by_what_tells_them_apart(tmp_path: Path) -> None:
    logged = {"loss": [3.0, 2.0], "cross_entropy": [3.0, 2.0], "lr": [0.1, 0.2], "spread": [1.0]}
    write_run(tmp_path, "a", logged=logged, knn={"teacher": [10.0]}, seed=0, changed_settings={"method.out_dim": 8})
    write_run(tmp_path, "b", logged={"loss": [4.0, 3.0]}, seed=1)
    found, _ = read_usable(tmp_path)
    runs = [RunCurves(path.parent, record) for path, record in found]
    figure = curves_figure(runs)
    assert [panel.title for panel in figure.strips[0].panels] == ["knn", "loss", "spread"], "no schedule, no loss twice"
    assert [line.name for line in figure.strips[0].panels[1].lines] == ["method.out_dim=8, seed 0", "seed 1"]
    chosen = curves_figure(runs, ["lr", "knn"])
    assert [panel.title for panel in chosen.strips[0].panels] == ["lr", "knn"]
    with pytest.raises(UserError, match=r"no curve is called 'los'. Did you mean 'loss'"):
        curves_figure(runs, ["los"])
    write_run(tmp_path, "bare")
    with pytest.raises(UserError, match=r"no curve in .*bare: earlier versions wrote no steps.csv"):
        curves_figure([RunCurves(tmp_path / "runs" / "bare", None)])


@pytest.mark.parametrize("name", built_in_figures())
def test_every_figure_of_sslbench_can_be_read(name: str) -> None:
    assert load_figure(name).description.id == name


@pytest.mark.parametrize(
    ("change", "said"),
    [
        (("kind = ", "kin = "), "'kin' is not a key of a figure description"),
        (('"lines"', '"pie"'), "'kind' = 'pie': input should be"),
        (("step:", "stop:"), "must read step:NAME"),
        (("table.toml", "tabel.toml"), "neither a file beside it nor one of sslbench's tables"),
        (('kind = "lines"', 'kind = "points"'), "points need x"),
        (('kind = "lines"', 'kind = "bars"'), "bars need series"),
        (('kind = "lines"', 'kind = "lines"\nseries = ["techer"]'), "series names 'techer'.* Did you mean 'teacher'"),
        (('kind = "lines"', 'kind = "lines"\nseries_pattern = "("'), "is no regular expression"),
        (("value = 0.0", "value = 0.0, log_of = 'seed'"), "needs either value or log_of"),
        (('title = "Entropy"', ""), "'title' is missing"),
        (("id =", "id"), "is not TOML"),
    ],
)
def test_a_mistake_in_a_description_is_one_message(tmp_path: Path, change: tuple[str, str], said: str) -> None:
    with pytest.raises(UserError, match=said):
        drawn(tmp_path, LINES.replace(*change))
