"""Sweeps against the real API, whose jobs end as soon as they are begun."""

import math
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import pytest

from karez.client.sdk import Client
from karez.client.sweeps import SweepRun
from karez.core.errors import BadRequest, Failed
from karez.core.jobs import Job
from karez.core.sweeps import Sweep, Trial, parse_sweep, ranked
from karez.core.workloads import State
from tests.api import Api

TEXT = """
name = "widths"
trials = 18
parallel = 3
[job]
recipe = "chaos-workload"
settings = { width = 500 }
[settings.width]
low = 8
high = 512
[settings.batch]
values = [8, 16, 32]
"""


@pytest.fixture
def client(api: Api, url: str) -> Iterator[Client]:
    with Client(url, api.admin) as client:
        yield client


def loss(job: Job) -> float:
    """Least at a width of 100 and a batch of 16."""
    width, batch = job.spec.settings["width"], job.spec.settings.get("batch", 32)
    return abs(math.log(float(width) / 100)) + (batch != 16)


class Ends:
    """Ends each trial's job when it is begun; the trials of some numbers fail."""

    def __init__(self, api: Api, *failing: int) -> None:
        self.api, self.failing, self.begun = api, failing, 0

    def __call__(self, trial: Trial, job: Job) -> None:
        if trial.is_over:
            return
        self.begun += 1
        store = self.api.cloud.store.workloads
        assert store.place(job.id, [], now=1.0) is not None
        token = dict(store.claim([State.PLACED], owner="t", now=1.0, lease_s=9.0))[job.id]
        state = State.FAILED if trial.number in self.failing else State.SUCCEEDED
        status = replace(job.status, loss=loss(job), reason="it broke")
        assert store.end(job.id, token, state, status, now=2.0)


def run(client: Client, api: Api, sweep: Sweep, *failing: int) -> tuple[SweepRun, Ends]:
    ends = Ends(api, *failing)
    found = SweepRun(client=client, sweep=sweep, folder=Path(), watch=ends)
    found.run(limit_s=60)
    return found, ends


def test_a_sweep_beats_the_jobs_own_settings(api: Api, client: Client) -> None:
    sweep = parse_sweep(TEXT)
    found, _ = run(client, api, sweep, 3)
    best = ranked(sweep, list(found.trials.values()))
    assert len(found.trials) == 18
    assert len(best) == 17  # one failed
    own = found.trials[0, 0]
    assert own.value == pytest.approx(math.log(5) + 1)
    assert best[0].value is not None
    assert best[0].value < 0.4
    assert best[0].settings["batch"] == 16


def test_a_sweep_goes_on_where_it_was_cut_and_with_more_trials(api: Api, client: Client) -> None:
    sweep = replace(parse_sweep(TEXT), trials=6)
    _, ends = run(client, api, sweep)
    assert ends.begun == 6
    more, ends = run(client, api, replace(sweep, trials=8))
    assert ends.begun == 2
    assert len(more.trials) == len(client.jobs()) == 8
    other, ends = run(client, api, replace(sweep, seed=1, name="others"))
    assert ends.begun == len(other.trials) == 6


def test_few_go_on_with_more(api: Api, client: Client) -> None:
    text = TEXT.replace("trials = 18", 'trials = 9\nmethod = "random"')
    sweep = parse_sweep(text + '[halving]\nsetting = "steps"\nlow = 10\nhigh = 90\n')
    found, _ = run(client, api, sweep)
    rungs = [rung for _, rung in found.trials]
    assert [rungs.count(rung) for rung in range(3)] == [9, 3, 1]
    best = ranked(sweep, list(found.trials.values()))[0]
    assert found.jobs[best.number, 2].spec.settings["steps"] == 90
    firsts = [trial for (_, rung), trial in found.trials.items() if not rung]
    assert best.value == min(one.value for one in firsts if one.value is not None)


def test_what_makes_no_metric_or_never_succeeds_is_told(api: Api, client: Client) -> None:
    sweep = parse_sweep(TEXT)
    with pytest.raises(BadRequest, match="made no number model/accuracy, but nothing"):
        run(client, api, replace(sweep, name="a", metric="model/accuracy"))
    with pytest.raises(Failed, match="no trial succeeded; the first: it broke"):
        run(client, api, replace(sweep, name="b", trials=2), 0, 1)
    with pytest.raises(BadRequest, match="no setting 'colour'"):
        run(client, api, replace(sweep, name="c", parameters={"colour": sweep.parameters["batch"]}))
