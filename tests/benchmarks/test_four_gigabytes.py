"""The committed plans for a card of 4 GB: one for every method that trains, on both networks."""

from __future__ import annotations

from benchmarks.performance.four_gigabytes import ARCHS, BATCH, DEVICE, WRITTEN, cases
from ssl_bench import registry
from ssl_bench.planning.devices import GB, card

ROWS = [
    [cell.strip() for cell in line.split("|")[1:-1]]
    for line in WRITTEN.read_text().splitlines()
    if line.startswith("| ") and not line.startswith("| method")
]


def test_every_registered_method_has_a_row_on_each_network() -> None:
    trained = set(registry.names("method")) - {"random"}
    of_the_batch = {(name, arch) for name, arch, batch, *_ in ROWS if int(batch) == BATCH}
    assert of_the_batch == {(name, arch) for name in trained for arch in ARCHS}
    assert [(name, arch, int(batch)) for name, arch, batch, *_ in ROWS] == list(cases())


def test_every_plan_fits_and_says_whether_it_is_exact() -> None:
    for name, arch, _, peak, at_once, activations, precision, exact, time in ROWS:
        assert "does not fit" not in exact, (name, arch)
        assert float(peak) <= card(DEVICE).usable / GB
        assert 1 <= int(at_once) <= BATCH
        assert activations in ("kept", "computed again")
        assert precision in card(DEVICE).precisions
        assert exact == "yes" or "batch norm sees" in exact
        assert float(time) >= 1


def test_dino_as_published_for_one_small_card() -> None:
    """2 x 224 and 8 x 96 px, K 65536, batch 8 in fp32: the goal is 2.8 GB."""
    name, arch, batch, peak, *_ = ROWS[0]
    assert (name, arch, batch) == ("dino", "deit_s16", "8")
    assert float(peak) <= 2.8
