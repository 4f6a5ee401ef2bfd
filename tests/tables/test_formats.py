"""Tables as LaTeX and HTML, and the records behind a row."""

from __future__ import annotations

import json
import re
from dataclasses import replace
from html.parser import HTMLParser
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from ssl_bench.errors import UserError
from ssl_bench.records.record import write_record
from ssl_bench.tables.explain import explain
from ssl_bench.tables.fold import fold
from ssl_bench.tables.html import to_html
from ssl_bench.tables.latex import escaped, to_latex
from ssl_bench.tables.loading import built_in_tables, load_table
from ssl_bench.tables.table import Table
from tests.conftest import Command
from tests.example_records import KNN, evaluations, make_record

ODD = r"a_b & 50 % $x$ #1 {y} ~^ \n <b> |"


def comparison(*records: object) -> Table:
    source = load_table("comparison")
    return fold(source.description, records, source.published)  # type: ignore[arg-type]


def first_is_best(table: Table) -> Table:
    """The table with its first row's k-NN marked as the best."""
    (block,) = table.blocks
    row = block.rows[0]
    cells = tuple(
        replace(cell, best=column.id == "knn") for column, cell in zip(table.description.column, row.cells, strict=True)
    )
    rows = (replace(row, cells=cells), *block.rows[1:])
    return replace(table, blocks=(replace(block, rows=rows),))


def printed_by_latex(text: str) -> str:
    """What LaTeX prints of escaped text, by the meaning of each command; refuses a sign with a meaning of its own."""
    words = {
        "textbackslash{}": "\\", "textasciitilde{}": "~", "textasciicircum{}": "^", "textless{}": "<",
        "textgreater{}": ">", "textbar{}": "|", "textquotedbl{}": '"', "dots{}": "…",
    }  # fmt: skip
    math = {r"$\pm$": "±", r"$\rightarrow$": "→", r"$\times$": "×", "$^2$": "²"}
    printed = ""
    while text:
        found = next((one for one in math if text.startswith(one)), "")
        if found:
            printed, text = printed + math[found], text[len(found) :]
            continue
        if text[0] == "\\":
            command = next((one for one in words if text[1:].startswith(one)), text[1])
            assert command in words or command in "{}&%$#_", f"\\{command}"
            printed, text = printed + words.get(command, command), text[1 + len(command) :]
            continue
        assert text[0] not in "{}&%$#_~^", f"{text[0]} has a meaning in LaTeX"
        printed, text = printed + text[0], text[1:]
    return printed


@settings(max_examples=40, deadline=None)
@given(st.text(alphabet=st.sampled_from(list(ODD + "±→×…²é[]*")), max_size=30))
def test_escaped_text_prints_as_it_stands(text: str) -> None:
    assert printed_by_latex(escaped(text)) == " ".join(text.split())


@pytest.mark.parametrize("name", built_in_tables())
def test_every_table_as_latex_has_a_cell_for_each_column(name: str) -> None:
    source = load_table(name)
    text = to_latex(fold(source.description, [make_record(method=m) for m in ("dino", "random")], source.published))
    environments = text.split(r"\begin{table}")[1:]
    for environment in environments:
        columns = re.search(r"\\begin\{tabular\}\{@\{\}([lr]+)@\{\}\}", environment)
        assert columns
        rows = re.findall(r"^    (.*) \\\\$", environment, re.MULTILINE)
        assert len(rows) >= 2, "a header and a row"
        for row in rows:
            assert len(re.split(r"(?<!\\)&", row)) == len(columns[1])
        assert environment.count("{") - environment.count(r"\{") == environment.count("}") - environment.count(r"\}")
        for command in (r"\toprule", r"\midrule", r"\bottomrule", r"\end{tabular}", r"\end{table}", r"\caption{"):
            assert environment.count(command) == 1


def test_latex_marks_the_best_and_escapes_what_a_user_named() -> None:
    records = [make_record(data={"name": ODD}), make_record("byol", data={"name": ODD}, knn=(30.0, 90.0))]
    text = to_latex(first_is_best(comparison(*records)), published_lists=False)
    assert r"\textbf{30.0 $\rightarrow$ 90.0" in text
    assert text.count(r"\textbf") == 1
    assert ODD not in text
    assert escaped(ODD) in text


class Reader(HTMLParser):
    """Checks that every element is closed in order, and collects the cells of each row."""

    def __init__(self) -> None:
        super().__init__()
        self.open: list[str] = []
        self.rows: list[list[str]] = []
        self.classes: list[str] = []

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.open.append(tag)
        if tag == "tr":
            self.rows.append([])
        if tag in ("td", "th"):
            self.rows[-1].append("")
            self.classes.append(dict(attrs).get("class") or "")

    def handle_endtag(self, tag: str) -> None:
        assert self.open.pop() == tag

    def handle_data(self, data: str) -> None:
        if self.open and self.open[-1] in ("td", "th"):
            self.rows[-1][-1] += data


@pytest.mark.parametrize("name", built_in_tables())
def test_every_table_as_html_is_well_formed(name: str) -> None:
    source = load_table(name)
    reader = Reader()
    table = fold(source.description, [make_record()], source.published)
    reader.feed(to_html(table))
    assert reader.open == []
    expected = [len(block.rows) + 1 for block in table.blocks] + [len(part.rows) + 1 for part in table.published]
    assert len(reader.rows) == sum(expected)


def test_html_shows_what_a_user_named_as_text() -> None:
    reader = Reader()
    record = make_record(method="<script>alert(1)</script>")
    table = first_is_best(comparison(record, make_record("byol", knn=(30.0, 90.0))))
    text = to_html(table, published_lists=False)
    assert "<script" not in text
    reader.feed(text)
    assert any("<script>alert(1)</script>" in row for row in reader.rows)
    assert [names for names in reader.classes if "best" in names] == ["number best"]


# the records behind a row


def test_the_runs_behind_a_row_by_hand() -> None:
    records = [make_record(seed=seed, knn=(30.0 + seed, 40.0 + seed), run_id=f"run-{seed}") for seed in (1, 0)]
    records.append(make_record(seed=2, status="collapsed", run_id="run-2"))
    records.append(make_record("byol", run_id="other"))
    (row,) = explain(comparison(*records), records, "2")
    assert (row.number, row.name) == (2, "dino, deit_s16, shapes (synthetic)")
    knn = next(one for one in row.cells if one.column.id == "knn")
    assert knn.cell.value is not None
    assert (knn.cell.value.mean, knn.cell.conditions.text, knn.test_items) == (40.5, KNN, 1000)
    assert [(run.run_id, run.seed, run.status, run.value, run.baseline) for run in knn.runs] == [
        ("run-0", 0, "finished", 40.0, 30.0),
        ("run-1", 1, "finished", 41.0, 31.0),
        ("run-2", 2, "collapsed", None, None),
    ]
    params = next(one for one in row.cells if one.column.id == "params")
    assert [run.value for run in params.runs] == [21.665664] * 3, "which holds for a collapsed run, too"


def test_numbers_of_another_protocol_are_not_behind_a_cell() -> None:
    other = make_record(seed=1, run_id="b", evaluations=evaluations((30.0, 70.0), None, protocol="10-NN"))
    records = [make_record(run_id="a"), make_record(seed=2, run_id="c"), other]
    first, second = explain(comparison(*records), records, "dino")
    knn = [next(one for one in row.cells if one.column.id == "knn") for row in (first, second)]
    assert [[run.value for run in one.runs] for one in knn] == [[40.0, None, 40.0], [None, 70.0, None]]


@pytest.mark.parametrize("wanted", ["0", "3", "dyno", "", "   "])
def test_a_wrong_row_lists_the_rows(wanted: str) -> None:
    records = [make_record(), make_record("byol")]
    with pytest.raises(UserError, match=r"no row .*words that stand in the row:\n  1  byol, deit_s16.*\n  2  dino"):
        explain(comparison(*records), records, wanted)
    with pytest.raises(UserError, match="has no rows yet"):
        explain(comparison(), [], "1")


@pytest.fixture
def results(tmp_path: Path) -> Path:
    for method in ("dino", "byol"):
        write_record(make_record(method), tmp_path / "results/runs" / method / "record.json")
    return tmp_path / "results"


def test_formats_and_explain_on_the_command_line(sslbench: Command, results: Path) -> None:
    assert r"\begin{tabular}" in sslbench("table", "comparison", "--format", "latex", "--results", results)[1]
    assert sslbench("table", "--format", "html", "--results", results)[1].startswith('<section id="table-comparison">')
    status, out, err = sslbench("table", "comparison", "--explain", "dino", "--results", results)
    assert (status, err) == (0, "")
    assert "seed 0  30.000 → 40.000  dino-deit_s16-shapes-s0-1024" in out
    document = json.loads(sslbench("table", "comparison", "--explain", "1", "--json", "--results", results)[1])
    assert document["rows"][0]["cells"]["knn"]["runs"][0]["value"] == 40.0
    status, _, err = sslbench("table", "comparison", "--explain", "dinno", "--results", results)
    assert status == 2
    assert "no row 'dinno'" in err
    status, _, err = sslbench("table", "--explain", "1", "--results", results)
    assert status == 2
    assert "say of which table" in err


# a metric that nobody computes


@pytest.mark.parametrize(
    ("path", "said"),
    [
        ("measurement:knnn.primary:trained", "no evaluator is called 'knnn'. Did you mean 'knn'?"),
        ("measurement:knn.top1_k2O:trained", "knn measured no 'top1_k2O'. Did you mean 'top1_k20'?"),
        ("measurement:davis.jf_men:trained", ""),  # no record has the evaluator: nothing is known of its metrics
        ("measurement:knn.primary:trained", ""),
        ("measurement:knn.top1_k20:untrained", ""),
    ],
)
def test_a_column_that_no_record_can_fill_is_answered(sslbench: Command, results: Path, path: str, said: str) -> None:
    description = f"""
id = "mine"
title = "Mine"
[[row]]
id = "method"
from = "method"
[[column]]
id = "number"
title = "number"
from = "{path}"
"""
    Path("mine.toml").write_text(description, encoding="utf-8")
    status, _, err = sslbench("table", "mine.toml", "--results", results)
    assert (status, said in err) == (2 if said else 0, True)
    assert ("mine.toml: column 'number'" in err) is bool(said)
