from dataclasses import replace

import pytest
from hypothesis import given
from hypothesis import strategies as st

from karez.core.sweeps import (
    Halving,
    Method,
    Parameter,
    Sweep,
    Trial,
    drawn,
    parse_sweep,
    promoted,
    ranked,
    sweep_key,
    trial_job,
    trial_of,
)

TEXT = """
name = "rates"
metric = "model/validation_accuracy"
goal = "max"
trials = 9
[job]
recipe = "train-classifier"
kind = "train"
inputs = { model = "all-minilm-l6-v2", data = "desk" }
settings = { learning_rate = 1e-4 }
[settings.learning_rate]
low = 1e-5
high = 1e-3
log = true
[settings.batch]
values = [16, 32]
[halving]
setting = "epochs"
low = 1
high = 9
"""


def test_a_file_becomes_a_sweep() -> None:
    sweep = parse_sweep(TEXT)
    assert (sweep.method, sweep.trials, sweep.is_higher_better) == (Method.BAYESIAN, 9, True)
    assert sweep.parameters["batch"] == Parameter(values=(16, 32))
    assert sweep.parameters["learning_rate"].is_log
    assert sweep.halving is not None
    assert sweep.halving.budgets == (1, 3, 9)
    assert sweep.job.recipe == "train-classifier"


@pytest.mark.parametrize(
    ("old", "new", "problem"),
    [
        ('name = "rates"', 'name = "Rates!"', "invalid name"),
        ('goal = "max"', 'goal = "most"', "min or max"),
        ("trials = 9", "trials = 0", "trials are"),
        ("trials = 9", 'method = "guess"', "guess"),
        ("low = 1e-5", "low = 1.0", "low below high"),
        ("low = 1e-5", "low = -1.0", "above 0"),
        ("values = [16, 32]", "values = []", "list of values"),
        ("values = [16, 32]", "value = 16", "unknown key"),
        ('setting = "epochs"', 'setting = "batch"', "cannot be varied"),
        ("high = 9", "high = 1", "low below high"),
        ("trials = 9", 'method = "grid"', "learning_rate has a range"),
        ('kind = "train"', 'name = "x"', "the sweep gives them"),
    ],
)
def test_what_is_no_sweep_is_told(old: str, new: str, problem: str) -> None:
    with pytest.raises(ValueError, match=problem):
        parse_sweep(TEXT.replace(old, new, 1))


@given(st.integers(1, 500), st.integers(0, 9))
def test_drawn_settings_lie_where_they_may(number: int, seed: int) -> None:
    sweep = replace(parse_sweep(TEXT), method=Method.RANDOM, seed=seed)
    found = drawn(sweep, number)
    assert found is not None
    assert 1e-5 <= float(found["learning_rate"]) <= 1e-3
    assert found["batch"] in (16, 32)
    assert drawn(sweep, number) == found


@given(st.floats(0, 1, exclude_max=True), st.integers(-5, 5), st.integers(1, 9))
def test_whole_numbers_are_drawn_between_their_ends(share: float, low: int, width: int) -> None:
    one = Parameter(low=low, high=low + width, is_int=True)
    value = one.draw(share)
    assert isinstance(value, int)
    assert low <= value <= low + width


def test_a_grid_is_all_combinations_after_the_jobs_own_settings() -> None:
    sweep = Sweep(
        name="g",
        job=parse_sweep(TEXT).job,
        method=Method.GRID,
        parameters={"a": Parameter(values=(1, 2)), "b": Parameter(values=("x", "y"))},
    )
    assert [drawn(sweep, number) for number in range(6)] == [
        {},
        {"a": 1, "b": "x"},
        {"a": 1, "b": "y"},
        {"a": 2, "b": "x"},
        {"a": 2, "b": "y"},
        None,
    ]


def test_a_grid_is_tried_as_a_whole_unless_trials_are_given() -> None:
    text = (
        'name = "g"\nmethod = "grid"\n[job]\ncommand = ["true"]\n[settings.a]\nvalues = [1, 2, 3]'
    )
    assert parse_sweep(text + "\n[settings.b]\nvalues = [1, 2]").trials == 7
    assert parse_sweep("trials = 3\n" + text).trials == 3


def test_a_job_tells_which_trial_it_is() -> None:
    sweep = parse_sweep(TEXT)
    key = sweep_key(sweep, sweep.job)
    chosen = Trial(number=4, rung=1, settings={"learning_rate": 2e-4, "batch": 16})
    spec = trial_job(sweep, sweep.job, key, chosen)
    assert spec.name == "rates-4-r1"
    assert spec.settings == {"learning_rate": 2e-4, "batch": 16, "epochs": 3}
    assert trial_of(sweep, key, spec) == chosen
    assert trial_of(sweep, "other", spec) is None
    own = trial_job(sweep, sweep.job, key, Trial(number=0, rung=0, settings={}))
    assert own.settings == {"learning_rate": 1e-4, "epochs": 1}
    assert trial_of(sweep, key, own) == Trial(number=0, rung=0, settings={})
    assert sweep_key(replace(sweep, trials=50, parallel=9), sweep.job) == key
    assert sweep_key(replace(sweep, seed=1), sweep.job) != key


def test_the_best_third_goes_on_once_a_rung_is_done() -> None:
    sweep = parse_sweep(TEXT)
    trials = [
        Trial(number=n, rung=0, settings={}, is_over=True, value=None if n == 8 else float(n))
        for n in range(9)
    ]
    assert promoted(sweep, [*trials[:8], replace(trials[8], is_over=False)]) == []
    second = promoted(sweep, trials)
    assert [(trial.number, trial.rung) for trial in second] == [(7, 1), (6, 1), (5, 1)]
    done = [replace(one, is_over=True, value=0.1 * one.number) for one in second]
    assert [one.number for one in promoted(sweep, [*trials, *done])] == [7]
    last = [Trial(number=7, rung=2, settings={}, is_over=True, value=0.3)]
    assert promoted(sweep, [*trials, *done, *last]) == []
    assert ranked(sweep, [*trials, *done, *last])[0].rung == 2
    assert promoted(replace(sweep, halving=None), trials) == []


def test_budgets_rise_from_low_to_high() -> None:
    assert Halving(setting="steps", low=10, high=100, factor=4).budgets == (10, 25, 100)
    assert Halving(setting="steps", low=1, high=2).budgets == (1, 2)
