"""Protocols: fields and their text, equality of old and new; none is parsed on its way to a table."""

from __future__ import annotations

import json
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from ssl_bench.measurement import NO_PROTOCOL, Measurement, Protocol, scalar_text
from ssl_bench.records.record import EvaluationRecord
from ssl_bench.tables.fold import fold
from ssl_bench.tables.loading import load_table
from ssl_bench.tables.render import to_csv, to_markdown
from tests.example_records import evaluation, make_record, measured


def test_a_protocol_has_its_fields_in_order_and_shows_each() -> None:
    view = Protocol.of("resize {resize_px}, crop {crop_px}{positions}", resize_px=36, crop_px=32, positions=NO_PROTOCOL)
    made = Protocol.of("{k}-NN, exp(s / {t}), at least {steps:,}, {rates}, {on}, {view}", k=20, t=0.07, steps=1000,
                       rates=(0.1, 1.0), on=True, view=view)  # fmt: skip
    assert made.text == str(made) == "20-NN, exp(s / 0.07), at least 1,000, 0.1 1, true, resize 36, crop 32"
    expected = {"k": 20, "t": 0.07, "steps": 1000, "rates": (0.1, 1.0), "on": True, "resize_px": 36, "crop_px": 32}
    assert list(made.fields.items()) == list(expected.items())
    again = Protocol.model_validate_json(made.model_dump_json())
    assert again == made
    assert again.fields == made.fields
    assert [type(value) for value in again.fields.values()] == [type(value) for value in made.fields.values()]


@pytest.mark.parametrize(
    ("template", "fields", "message"),
    [
        ("{k}-NN", {"k": 20, "metric": "cosine"}, "does not show metric"),
        ("{k}-NN, {metric}", {"k": 20}, "names 'metric'; its fields are k"),
        ("{k}, {view}", {"k": 20, "view": Protocol.of("top {k}", k=5)}, "two fields called 'k'"),
    ],
)
def test_a_text_that_does_not_show_every_field_is_refused(template: str, fields: Any, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        Protocol.of(template, **fields)


@given(st.floats(allow_nan=False), st.floats(allow_nan=False))
def test_two_numbers_never_share_a_text(one: float, other: float) -> None:
    assert (scalar_text(one) == scalar_text(other)) == (one == other) or one == other == 0


def test_old_texts_and_new_fields_that_mean_the_same_are_equal() -> None:
    """Records up to schema 3 hold a text, in the spelling of their time; third-party evaluators may give one, too."""
    new = Protocol.of("resize {resize} bicubic, center crop {crop}", resize=36, crop=32)
    old = evaluation("knn", "trained", measured(1.0)).model_dump(mode="json") | {"schema_version": 3}
    old["measurements"][0]["protocol"] = "resize 36 bicubic, centre crop 32"
    read = EvaluationRecord.model_validate(old).measurements[0].protocol
    assert read == new
    assert hash(read) == hash(new)
    assert read.fields == {}
    assert read != Protocol.of("resize {resize} bicubic, center crop {crop}", resize=36, crop=30)
    given = Measurement(metric="m", value=1.0, unit="%", higher_is_better=True, n=1, protocol="own words, centre")  # type: ignore[arg-type]
    assert given.protocol == Protocol(text="own words, centre")
    assert json.loads(given.model_dump_json())["protocol"] == {"fields": {}, "text": "own words, centre"}


class Unparsable(str):
    """A text that may be shown, compared and hashed, and whose parts nobody may look for."""

    def _refuse(self, *arguments: Any, **options: Any) -> Any:
        raise AssertionError("a protocol's text is parsed")

    __contains__ = __getitem__ = _refuse  # type: ignore[assignment]
    partition = rpartition = split = rsplit = splitlines = find = index = rfind = _refuse  # type: ignore[assignment]
    startswith = endswith = removeprefix = removesuffix = count = _refuse  # type: ignore[assignment]


def test_a_number_reaches_its_cell_with_its_protocol_unparsed() -> None:
    """Texts that imitate what tables write around them are told apart by structure alone."""
    texts = ["20-NN", "20-NN; evaluated on birds, fingerprint b1d5b1d5", "20-NN [in fraction]"]
    birds = {"data": "birds", "data_fingerprint": "b1d5" * 8, "synthetic": False}
    places: list[tuple[str, dict[str, Any]]] = [(texts[0], {}), (texts[1], {}), (texts[0], birds), (texts[2], {})]
    made = [
        evaluation("voc-jaccard", "trained", measured(10.0 * n, metric="best_head", protocol=text), **place)
        for n, (text, place) in enumerate(places, 1)
    ]
    for one in made:
        protocol = one.measurements[0].protocol
        object.__setattr__(protocol, "text", Unparsable(protocol.text))
    source = load_table("voc_jaccard")
    table = fold(source.description, [make_record(evaluations=tuple(made))], source.published)
    cells = [row.cells[0] for block in table.blocks for row in block.rows]
    found = {(c.value.mean, c.conditions.protocol, c.conditions.evaluated_on is not None) for c in cells if c.value}
    assert found == {(10.0, Protocol(text=texts[0]), False), (20.0, Protocol(text=texts[1]), False),
                     (30.0, Protocol(text=texts[0]), True), (40.0, Protocol(text=texts[2]), False)}  # fmt: skip
    assert to_markdown(table)
    assert to_csv(table)
