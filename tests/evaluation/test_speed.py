"""Images per second: the rule that ends measuring, and when a rate counts, by a clock of our own."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import pytest
import torch

from ssl_bench.errors import UserError
from ssl_bench.evaluation import speed
from ssl_bench.evaluation.speed import Speed, Timing, measure_speed, speed_of
from tests.toy import ToyBackbone

CPU = torch.device("cpu")


class Watch(speed.Stopwatch):
    """A stopwatch that shows the times it is given."""

    times: Iterator[Timing]

    def __exit__(self, *_: object) -> None:
        self.timing = next(self.times)


def measured(
    monkeypatch: pytest.MonkeyPatch, warm_up: float, walls: list[float], share: float = 1.0
) -> tuple[Speed, int]:
    """(speed, rounds timed after the warm-up) where passes take these times and get this share of the CPU."""
    threads = torch.get_num_threads()
    left = [Timing(wall, wall * share * threads) for wall in [warm_up, *walls]]
    Watch.times = iter(left)
    monkeypatch.setattr(speed, "Stopwatch", Watch)
    monkeypatch.setattr(speed, "ROUND_SECONDS", 0.2)
    monkeypatch.setattr(speed, "MOST_ROUNDS", 25)
    found = measure_speed(ToyBackbone(), 8, CPU)
    return found, len(walls) - len(list(Watch.times))


def test_measuring_ends_with_five_steady_rounds_and_their_median_counts(monkeypatch: pytest.MonkeyPatch) -> None:
    walls = [2.0, 1.5, 1.01, 1.0, 1.02, 1.0, 1.03, 99.0]
    found, rounds = measured(monkeypatch, 3.0, walls)
    assert rounds == 7
    assert found.images_per_second == pytest.approx(128 / 1.01)
    assert found.spread == pytest.approx(0.03 / 1.01)
    assert (found.cpu_share, found.note) == (pytest.approx(1.0), "")


def test_a_pass_that_does_not_fit_is_told(monkeypatch: pytest.MonkeyPatch) -> None:
    """A mock of the allocator's error."""

    def runs_out(*_: object) -> None:
        raise torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 2.00 GiB")

    monkeypatch.setattr(ToyBackbone, "forward", runs_out)
    with pytest.raises(UserError, match="memory ran out with 9 images of 8 px per forward pass"):
        measure_speed(ToyBackbone(), 8, CPU, 9)


def test_a_short_pass_is_repeated_until_a_round_is_long_enough(monkeypatch: pytest.MonkeyPatch) -> None:
    found, _ = measured(monkeypatch, 0.01, [0.2] * 5)
    assert found.images_per_second == pytest.approx(20 * 128 / 0.2)


@pytest.mark.parametrize(("walls", "rounds"), [([1.0, 1.2] * 13, 25), ([4.0, 5.0] * 4, 7)])
def test_a_machine_that_stays_unsteady_gives_no_rate(
    monkeypatch: pytest.MonkeyPatch, walls: list[float], rounds: int
) -> None:
    found, timed = measured(monkeypatch, 1.0, walls)
    assert timed == rounds
    assert found.images_per_second is None
    assert "measurements differ by" in found.note


def test_a_process_that_did_not_get_its_cores_gives_no_rate_however_steady(monkeypatch: pytest.MonkeyPatch) -> None:
    found, _ = measured(monkeypatch, 1.0, [1.0] * 5, share=0.5)
    assert found.images_per_second is None
    assert found.note == "left out, the machine was busy: the process got 50% of the CPU time of its threads"
    assert found.as_record().inference_images_per_second is None
    assert speed_of([Timing(1.0, 0.1)] * 5, 128, 1, "cuda").images_per_second == 128  # a card computes, its CPU waits


def test_one_long_pass_is_enough(monkeypatch: pytest.MonkeyPatch) -> None:
    found, rounds = measured(monkeypatch, 25.0, [])
    assert rounds == 0
    assert found.images_per_second == pytest.approx(128 / 25)
    assert found.spread is None


def test_the_network_is_left_as_it_was_and_both_clocks_run() -> None:
    network: Any = ToyBackbone().train()
    before = {name: value.clone() for name, value in network.state_dict().items()}
    found = measure_speed(network, 8, CPU)
    assert network.training
    assert all(torch.equal(value, before[name]) for name, value in network.state_dict().items())
    assert 0 < found.cpu_share < 2
