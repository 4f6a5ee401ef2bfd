import pytest

from ssl_bench.training.pace import Pace


def test_a_disturbed_beginning_is_forgotten_after_a_minute() -> None:
    pace = Pace(100, 0.0)
    assert pace.at(101, 50.0) == pytest.approx(1 / 50)
    for second in range(1, 62):
        last = pace.at(101 + 4 * second, 50.0 + second)
    assert last == pytest.approx(4.0), "60 steps of a quarter of a second"


def test_steps_of_more_than_a_minute_count_one_by_one() -> None:
    pace = Pace(0, 0.0)
    assert [pace.at(1, 100.0), pace.at(2, 300.0), pace.at(3, 400.0)] == pytest.approx([1 / 100, 1 / 200, 1 / 100])
