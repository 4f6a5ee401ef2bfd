"""Reading many records: only what tables show, equal parts once, and without the search for unused cycles."""

from __future__ import annotations

import gc
from pathlib import Path

import pytest

from ssl_bench.measurement import Protocol
from ssl_bench.records.reading import read_all
from ssl_bench.records.record import write_record
from ssl_bench.system.memory import cycles_uncollected
from ssl_bench.tables.fold import fold
from ssl_bench.tables.loading import built_in_tables, load_table, shown_metrics
from ssl_bench.tables.paths import flatten, look_up
from tests.example_records import evaluation, make_record, measured

COMMITTED = Path(__file__).parents[2] / "results"


def put(results: Path, name: str, *protocols: Protocol | str) -> None:
    numbers = [
        measured(40.0 + index, metric=f"m{index}", protocol=protocol, primary=index == 0)
        for index, protocol in enumerate(protocols)
    ]
    record = make_record(run_id=name, evaluations=(evaluation("knn", "trained", *numbers),))
    write_record(record, results / "runs" / name / "record.json")


def test_the_metrics_that_are_asked_for_and_the_main_one_are_read(tmp_path: Path) -> None:
    put(tmp_path, "a", "first", "second", "third")
    later = evaluation("knn", "trained", measured(1.0, metric="m2", primary=False), measured(2.0, metric="m3"))
    write_record(later, tmp_path / "runs" / "a" / "evaluations" / "later.json")
    ((_, record),), problems = read_all(tmp_path, {("knn", "m2"), ("davis", "m1")})
    assert [[one.metric for one in e.measurements] for e in record.evaluations] == [["m0", "m2"], ["m2", "m3"]]
    assert problems == []


def test_every_table_is_the_same_from_records_read_in_part() -> None:
    sources = [load_table(name) for name in built_in_tables()]
    whole = [record for _, record in read_all(COMMITTED)[0]]
    part = [record for _, record in read_all(COMMITTED, shown_metrics(sources))[0]]
    assert sum(len(e.measurements) for r in part for e in r.evaluations) < sum(
        len(e.measurements) for r in whole for e in r.evaluations
    )
    for source in sources:
        assert fold(source.description, part, source.published) == fold(source.description, whole, source.published)


def test_equal_protocols_of_several_records_are_one_object_and_others_are_not(tmp_path: Path) -> None:
    alike = Protocol.of("{k}-NN", k=20)
    put(tmp_path, "a", alike, "another")
    put(tmp_path, "b", alike, Protocol(text="20-NN"))
    (_, one), (_, other) = read_all(tmp_path)[0]
    first, second = one.evaluations[0].measurements, other.evaluations[0].measurements
    assert first[0].protocol is second[0].protocol
    assert first[1].protocol.text == "another"
    assert second[1].protocol.fields == {}, "of the same text and other fields"


def test_a_path_into_a_record_finds_what_its_json_holds() -> None:
    record = make_record()
    plain = record.model_dump(mode="json")
    assert {path: look_up(record, path) for path in flatten(plain)} == flatten(plain)
    assert look_up(record, "backbone") == plain["backbone"]
    assert look_up(record, "steps") is None, "a property, which no record file has"
    assert look_up(record, "method.name") is None


@pytest.mark.parametrize("collecting", [True, False])
def test_the_search_for_cycles_is_as_it_was_afterwards(collecting: bool) -> None:
    before = gc.isenabled()
    try:
        gc.enable() if collecting else gc.disable()
        with pytest.raises(KeyError):
            fail_while_paused()
        assert gc.isenabled() is collecting
        assert gc.get_freeze_count() == 0
    finally:
        gc.enable() if before else gc.disable()


@cycles_uncollected()
def fail_while_paused() -> None:
    assert not gc.isenabled()
    with cycles_uncollected():
        pass
    assert not gc.isenabled(), "the inner one must not end the outer one"
    raise KeyError
