"""Predictions of time: from runs of the kind, from others, corrected while a study goes on."""

from __future__ import annotations

import math
from pathlib import Path
from typing import Any

import pytest

from ssl_bench.errors import UserError
from ssl_bench.records.recipe import Recipe
from ssl_bench.records.record import RunRecord
from ssl_bench.studies.cells import Wish
from ssl_bench.studies.costs import START_SECONDS, Costs, Machine, Sample
from ssl_bench.studies.forecast import duration, parse_budget, require_time_for_one
from ssl_bench.studies.study import board_of, load_study, planned
from tests.example_records import make_record
from tests.studies.tiny import write_table

HERE = Machine("cpu", "Linux x86_64", cores=2, threads=2)


def record(seed: int = 0, *, epochs: int = 10, seconds: float = 500.0, whole: int = 600, **changes: Any) -> RunRecord:
    """A run that trained for `seconds` of `whole`."""
    made = make_record(seed=seed, training={"epochs": epochs}, **changes)
    training = made.training
    assert training is not None
    begun = f"2026-01-0{1 + seed}T00"
    return made.model_copy(
        update={
            "training": training.model_copy(update={"seconds": seconds, "epochs": float(epochs)}),
            "started_utc": f"{begun}:00:00+00:00",
            "finished_utc": f"{begun}:{whole // 60:02}:{whole % 60:02}+00:00",
        }
    )


def recipe_of(made: RunRecord, **training: Any) -> Recipe:
    recipe = Recipe.model_validate(made.recipe)
    return recipe.model_copy(update={"training": recipe.training.model_copy(update=training)})


def test_another_seed_takes_as_long_and_more_epochs_take_longer() -> None:
    costs = Costs(HERE, [record()])
    other_seed = costs.of(recipe_of(record(), seed=5))
    assert other_seed is not None
    assert (other_seed.seconds, other_seed.basis, other_seed.memory_mb) == (600 + START_SECONDS, "measured", 812.0)
    longer = costs.of(recipe_of(record(), epochs=30))
    assert longer is not None
    assert math.isclose(longer.seconds, 100 + START_SECONDS + 30 * 50)


def test_the_median_of_the_latest_three_counts() -> None:
    runs = [
        record(seed, seconds=seconds, whole=int(seconds)) for seed, seconds in enumerate((9999 % 3600, 100, 300, 200))
    ]
    cost = Costs(HERE, reversed(runs)).of(recipe_of(runs[0]))
    assert cost is not None
    assert cost.seconds == 200 + START_SECONDS


def test_records_of_other_machines_say_nothing_and_other_threads_are_scaled() -> None:
    machine = record().machine
    elsewhere = record().model_copy(update={"machine": machine.model_copy(update={"device": "another"})})
    assert Costs(HERE, [elsewhere]).of(recipe_of(record())) is None
    one_thread = record().model_copy(update={"machine": machine.model_copy(update={"threads": 1})})
    cost = Costs(HERE, [one_thread]).of(recipe_of(record()))
    assert cost is not None
    assert cost.seconds == 300 + START_SECONDS


def test_a_guess_comes_from_the_nearest_kind_and_is_corrected_by_the_first_runs() -> None:
    near, far = record(), record(method="byol", arch="resnet18", seconds=5.0, whole=6)
    costs = Costs(HERE, [far, near])
    asked = record(settings={"local_views": 0})
    guess = costs.of(recipe_of(asked))
    assert guess is not None
    assert (guess.seconds, guess.basis) == (600 + START_SECONDS, "guessed")
    costs.compare(guess, 2 * guess.seconds)  # the machine is busy
    corrected = costs.of(recipe_of(asked))
    assert corrected is not None
    assert math.isclose(corrected.seconds, 2 * guess.seconds)
    measured = costs.of(recipe_of(near))
    assert measured is not None
    assert measured.seconds == 600 + START_SECONDS


def test_the_correction_is_how_much_longer_runs_take_however_many_have_ended() -> None:
    costs = Costs(HERE, [record()])
    asked = [recipe_of(record(settings={"local_views": number})) for number in range(6)]
    predicted = []
    for one in asked:
        guess = costs.of(one)
        assert guess is not None
        predicted.append(guess.seconds)
        costs.compare(guess, 2 * (600 + START_SECONDS))  # twice as long as on a machine that is not busy
    assert predicted == pytest.approx([600 + START_SECONDS, *5 * [2 * (600 + START_SECONDS)]])


def test_a_run_that_trains_nothing_is_no_guess_for_one_that_trains() -> None:
    untrained = record(epochs=0, seconds=0.0, whole=60)
    trained = record(method="byol")
    costs = Costs(HERE, [untrained])
    assert costs.of(recipe_of(trained)) is None
    both = Costs(HERE, [untrained, record(method="simclr")])
    guess = both.of(recipe_of(trained))
    assert guess is not None
    assert guess.seconds == 600 + START_SECONDS


def test_a_resumed_run_counts_without_the_time_in_between() -> None:
    made = record(whole=3000)
    training = made.training
    assert training is not None
    resumed = made.model_copy(update={"training": training.model_copy(update={"resumed": 1})})
    cost = Costs(HERE, [resumed]).of(recipe_of(made))
    assert cost is not None
    assert cost.seconds == 500 + 4 * 3 + START_SECONDS  # four evaluations of 3 s


@pytest.mark.parametrize(
    ("text", "seconds"), [("90s", 90), ("45m", 2700), ("2h", 7200), ("1h30m", 5400), ("1.5d", 129600), (" 2 H ", 7200)]
)
def test_a_budget_is_read(text: str, seconds: float) -> None:
    assert parse_budget(text) == seconds


@pytest.mark.parametrize("text", ["", "2", "h", "2x", "-1h", "0m", "1h 30", "2h!"])
def test_a_wrong_budget_is_refused(text: str) -> None:
    with pytest.raises(UserError, match="--budget"):
        parse_budget(text)


def test_a_budget_below_the_shortest_run_names_it_and_what_would_fit(tmp_path: Path) -> None:
    runs = planned(load_study(str(write_table(tmp_path))), Wish()).runs
    waiting = board_of(runs, tmp_path / "results").with_status("waiting")
    costs = Costs(HERE)
    require_time_for_one(waiting, costs, 1.0)  # of unknown runs nothing can be said
    for seconds, run in zip((100, 7), runs[:2], strict=True):
        costs.learn_trial(run.recipe, Sample(0.0, seconds, None, tried=True))
    require_time_for_one(waiting, costs, 7.0)
    with pytest.raises(UserError, match=f"{runs[1].name} takes about 7 s. Give --budget 8s or more"):
        require_time_for_one((entry for entry in waiting), costs, 6.0)


@pytest.mark.parametrize(
    ("seconds", "words"), [(0.2, "1 s"), (89, "89 s"), (600, "10 min"), (3599 * 2, "2 h 00"), (86400 * 3, "72 h 00")]
)
def test_a_duration_in_words(seconds: float, words: str) -> None:
    assert duration(seconds) == words
