"""`sslbench report`: one file that holds everything, escapes everything, and is the same each time."""

from __future__ import annotations

import json
import re
import subprocess
import sys
from collections.abc import Callable
from html.parser import HTMLParser
from pathlib import Path

import pytest

from ssl_bench.records.record import RunRecord, write_record
from tests.conftest import Command
from tests.example_records import make_record, with_reach
from tests.figures.runs import write_run

ATTACK = '<script>alert("x")</script>'
VOID = {"meta", "img", "br", "link", "input", "hr"}


class Page(HTMLParser):
    """Elements, ids and addresses of a page; `open` is empty at the end where every element is closed."""

    def __init__(self, text: str) -> None:
        super().__init__()
        self.open: list[str] = []
        self.ids: list[str] = []
        self.addresses: list[str] = []
        self.tags: list[str] = []
        self.headers: list[str | None] = []
        self.alts: list[str | None] = []
        self.feed(text)

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        values = dict(attrs)
        self.tags.append(tag)
        self.ids += [values["id"] or ""] if "id" in values else []
        self.addresses += [value or "" for name, value in attrs if name in ("href", "src", "xlink:href", "data")]
        self.headers += [values.get("scope")] if tag == "th" else []
        self.alts += [values.get("alt")] if tag == "img" else []
        if tag not in VOID:
            self.open.append(tag)

    def handle_startendtag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.handle_starttag(tag, attrs)
        self.open.pop() if tag not in VOID else None

    def handle_endtag(self, tag: str) -> None:
        assert self.open, tag
        assert self.open.pop() == tag


def save(results: Path, record: RunRecord) -> None:
    write_record(record, results / "runs" / record.run_id / "record.json")


@pytest.fixture(scope="module")
def results(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Two methods with curves, and a third whose texts are hostile."""
    folder = tmp_path_factory.mktemp("results")
    save(folder, with_reach(make_record("dino", knn=(30, 60)), 2.0))
    save(folder, with_reach(make_record("byol", knn=(30, 40)), 2.0))
    (folder / "own.md").write_text(f"# Mine\n\n{ATTACK} and **bold**, [a link](https://a.b)\n")
    hostile = make_record("simclr", knn=(30, 45), notes=(f'a "note" & {ATTACK}',), command=f"run '{ATTACK}'")
    hostile = hostile.model_copy(update={"method": ATTACK, "run_id": f"hostile {ATTACK}"})
    write_record(hostile, folder / "runs" / "hostile" / "record.json")
    for teacher, changed in (("momentum", {}), ("student_copy", {"method.teacher": "student_copy"})):
        write_run(
            folder, f"teacher-{teacher}", arch="deit_ti16",
            knn={"teacher": [20.0, 30.0 + len(teacher)], "student": [1.0]}, settings={"teacher": teacher},
            changed_settings=changed,
        )  # fmt: skip
    return folder


@pytest.fixture(scope="module")
def make_page(results: Path, tmp_path_factory: pytest.TempPathFactory) -> Callable[[], str]:
    from ssl_bench.report.contents import Asked, gather
    from ssl_bench.report.page import page

    def make() -> str:
        contents = gather(Asked((), results, f"Title {ATTACK}", results / "own.md", "sslbench report"))
        assert contents is not None
        return page(contents)

    return make


@pytest.fixture(scope="module")
def text(make_page: Callable[[], str]) -> str:
    return make_page()


def test_the_page_needs_nothing_from_outside(text: str) -> None:
    page = Page(text)
    assert page.addresses
    assert not [one for one in page.addresses if not one.startswith(("#", "data:"))]
    assert not re.findall(r"url\((?!#)|@import|http-equiv=.refresh", text)
    assert "link" not in page.tags
    assert "default-src 'none'" in text


def test_every_element_is_closed_every_id_is_one_place_and_every_link_leads_there(text: str) -> None:
    page = Page(text)
    assert page.open == []
    assert len(page.ids) == len(set(page.ids))
    assert all(re.fullmatch(r"[\w.-]+", one) for one in page.ids)
    assert {one.removeprefix("#") for one in page.addresses if one.startswith("#")} <= set(page.ids)


def test_a_text_of_a_record_is_never_markup(text: str) -> None:
    assert Page(text).tags.count("script") == 1, "the page's own"
    assert ATTACK not in text
    assert "&lt;script&gt;alert(&#34;x&#34;)&lt;/script&gt;" in text
    assert "a &#34;note&#34; &amp; &lt;script&gt;" in text


def test_headers_have_a_scope_and_pictures_a_text(text: str) -> None:
    page = Page(text)
    assert set(page.headers) <= {"col", "row", "rowgroup"}
    assert None not in page.alts
    assert 'role="img" aria-label="k-NN of teacher and student during training' in text


def test_each_measured_number_leads_to_its_runs(text: str) -> None:
    cell = re.search(r'data-value="60.0"><a href="#(from-comparison-\d+)"', text)
    assert cell
    source = text[text.index(f'id="{cell[1]}"') :]
    source = source[: source.index("</details>")]
    assert 'href="#run-dino-deit_s16-shapes-s0-1024"' in source
    assert "30.000 → 60.000" in source
    run = text[text.index('id="run-dino-deit_s16-shapes-s0-1024"') :]
    for fact in (
        "sslbench run dino --arch deit_s16 --seed 0",
        "3f9c" * 16,
        "2026-01-01T00:10:00Z",
        "cpu, 2 threads of 2",
    ):
        assert fact in run[: run.index('<details id="run-')]


def test_findings_and_figures_are_there(text: str) -> None:
    assert '<p class="where">In the words of own.md:</p>\n<h3>Mine</h3>' in text
    assert "<strong>bold</strong>, a link (<code>https://a.b</code>)" in text
    assert "dino has the best mean, 60.0 (58.0 to 62.0, 1 seed, n 1,000)." in text
    assert "printed order of 1 pair" in text
    assert re.search(r'<figure id="figure-teacher">.*?<svg ', text, re.DOTALL)
    assert "Nothing, or too little to compare, was measured for:" in text


def test_making_a_page_imports_no_torch() -> None:
    modules = "ssl_bench.report.contents, ssl_bench.report.page, ssl_bench.figures.drawing"
    code = f"import sys, {modules}; print('torch' in sys.modules)"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "False"


def test_the_same_records_give_the_same_bytes(text: str, make_page: Callable[[], str]) -> None:
    assert make_page() == text


def test_the_file_is_written_checked_and_only_its_own_kind_replaced(sslbench: Command, tmp_path: Path) -> None:
    own = tmp_path / "own"
    save(own, make_record())
    (own / "README.md").write_text("# Reading\n")
    arguments = ("report", "comparison", "--results", str(own))
    status, out, _ = sslbench(*arguments)
    assert status == 0
    assert f"written: {own / 'report.html'}" in out
    assert f"--findings {own / 'README.md'}" in out
    assert sslbench(*arguments, "--check")[0] == 0
    save(own, make_record("byol"))
    status, out, _ = sslbench(*arguments, "--check")
    assert (status, "is not what the records give" in out) == (1, True)
    assert sslbench(*arguments)[0] == 0
    (own / "notes.html").write_text("<p>mine</p>")
    status, _, err = sslbench(*arguments, "--out", str(own / "notes.html"))
    assert (status, "is not a page that sslbench report wrote" in err) == (2, True)
    assert (own / "notes.html").read_text() == "<p>mine</p>"


def test_a_record_that_cannot_be_read_is_listed_and_the_others_are_shown(sslbench: Command, tmp_path: Path) -> None:
    own = tmp_path / "own"
    save(own, make_record())
    save(own, make_record("byol"))
    edited = own / "runs" / "byol-deit_s16-shapes-s0-1024" / "record.json"
    edited.write_text(edited.read_text().replace('"value": 40.0', '"value": 90.0'))
    newer = own / "runs" / "newer" / "record.json"
    newer.parent.mkdir()
    newer.write_text(json.dumps({"schema_version": 99}))
    status, _, err = sslbench("report", "--results", str(own))
    assert status == 1
    assert "damaged or was edited" in err
    text = (own / "report.html").read_text()
    left_out = text[text.index("<h3>Left out</h3>") :]
    assert "damaged or was edited" in left_out
    assert "was written by a newer sslbench (schema 99" in left_out
    assert "run-dino-deit_s16" in text


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (("comparsion",), "no table is called 'comparsion'. Did you mean 'comparison'"),
        (("--out", "."), "is a folder. Give a file"),
        (("--out", "page.pdf"), "does not end in .html"),
        (("--findings", "none.md"), "cannot read --findings none.md"),
        (("comparison", "--out", "/proc/page.html"), "/proc/page.html"),
    ],
)
def test_mistakes_become_messages(sslbench: Command, results: Path, arguments: tuple[str, ...], said: str) -> None:
    status, _, err = sslbench("report", "--results", str(results), *arguments)
    assert (status, said in err) == (2, True), err
    assert "Traceback" not in err


def test_tables_of_ones_own_are_shown_each_once(sslbench: Command, results: Path, tmp_path: Path) -> None:
    own = (
        'id = "{}"\ntitle = "Mine & more"\n[[row]]\nid = "method"\nfrom = "method"\n'
        '[[column]]\nid = "knn"\ntitle = "k-NN"\nfrom = "measurement:knn.{}:trained"\n'
    )
    (tmp_path / "own.toml").write_text(own.format("own", "primary"))
    arguments = ("report", "--results", str(results), "--out", str(tmp_path / "page.html"))
    assert sslbench(*arguments, "own.toml", "own.toml")[0] == 0
    assert (tmp_path / "page.html").read_text().count("<h3>Mine &amp; more</h3>") == 2, (
        "as a table and among the sources"
    )
    (tmp_path / "other.toml").write_text(own.format("own", "top1_k20"))
    assert "two of these tables have the id 'own'" in sslbench(*arguments, "own.toml", "other.toml")[2]
    (tmp_path / "own.toml").write_text(own.format("own", "top1_k21"))
    assert "measured no 'top1_k21'. Did you mean 'top1_k20'" in sslbench(*arguments, "own.toml")[2]


def test_without_records_nothing_is_written(sslbench: Command, tmp_path: Path) -> None:
    status, out, _ = sslbench("report", "--results", str(tmp_path / "none"))
    assert status == 0
    assert "nothing written. Make the first: sslbench run dino" in out
    assert not (tmp_path / "none").exists()
