"""Sweeps: one job with many settings, tried to find the best, as a file describes them. Pure."""

import hashlib
import json
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from enum import StrEnum
from itertools import product
from typing import Any

from karez.core import environment
from karez.core.codec import to_json
from karez.core.jobfile import job_of, only, parse_toml, table_of
from karez.core.jobs import JobSpec, Scalar
from karez.core.names import check_name

TRIALS, MOST_TRIALS = 20, 10_000
DEFAULTS: Mapping[str, Scalar] = {}
"""Settings of the first trial: those of the job itself, which the others have to beat."""
_TOP = {"name", "project", "method", "trials", "parallel", "seed", "metric", "goal", "job"}


class Method(StrEnum):
    """How the settings of a trial are chosen."""

    GRID = "grid"
    """All combinations, in their order."""
    RANDOM = "random"
    """Drawn evenly."""
    BAYESIAN = "bayesian"
    """By what earlier trials gave: a tree-structured Parzen estimator (Optuna)."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Parameter:
    """What a setting may be: one of some values, or a number between two."""

    values: tuple[Scalar, ...] = ()
    low: float = 0.0
    high: float = 0.0
    is_log: bool = False
    """Whether it is drawn evenly on a logarithmic scale."""
    is_int: bool = False

    def draw(self, share: float) -> Scalar:
        """The value at a share between 0 and 1 of the way."""
        if self.values:
            return self.values[min(len(self.values) - 1, int(share * len(self.values)))]
        if self.is_int:
            return min(int(self.high), int(self._between(self.low, self.high + 1, share)))
        return self._between(self.low, self.high, share)

    def _between(self, low: float, high: float, share: float) -> float:
        if self.is_log:
            return math.exp(math.log(low) + share * (math.log(high) - math.log(low)))
        return low + share * (high - low)


@dataclass(frozen=True, slots=True, kw_only=True)
class Halving:
    """Successive halving: all trials get little, and the best of them more.

    Source: Jamieson and Talwalkar 2016, arXiv:1502.07943.
    """

    setting: str
    """What is given, such as epochs or steps."""
    low: int
    high: int
    factor: int = 3
    """One of so many trials goes on, with so many times as much."""

    @property
    def budgets(self) -> tuple[int, ...]:
        """What each rung gives, from `low` to `high`."""
        found = [self.high]
        while found[0] > self.low:
            found.insert(0, max(self.low, found[0] // self.factor))
        return tuple(found)


@dataclass(frozen=True, slots=True, kw_only=True)
class Sweep:
    """A sweep as a user asks for it."""

    name: str
    job: JobSpec
    code: str = ""
    """Folder on this machine that the job runs in; empty: none."""
    parameters: Mapping[str, Parameter] = field(default_factory=dict)
    method: Method = Method.BAYESIAN
    trials: int = TRIALS
    parallel: int = 2
    seed: int = 0
    metric: str = "loss"
    """`OUTPUT/FACT` of what the job makes, or its last `loss`."""
    is_higher_better: bool = False
    halving: Halving | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class Trial:
    """One job of a sweep."""

    number: int
    rung: int
    settings: Mapping[str, Scalar]
    """Those that the sweep chose; the first trial has none."""
    is_over: bool = False
    value: float | None = None
    """The metric; None: not yet, or the job failed."""


def parse_sweep(text: str) -> Sweep:
    """Parse a sweep from TOML text. Raises ValueError."""
    table = parse_toml(text)
    only(table, _TOP | {"settings", "halving"}, "the file")
    name, project = str(table.get("name", "")), str(table.get("project", "default"))
    check_name(name)
    job_table = table_of(table, "job")
    if {"name", "project", "array"} & job_table.keys():
        raise ValueError("[job] has no name, project or array: the sweep gives them")
    rest = {key: value for key, value in job_table.items() if key != "code"}
    job = job_of({**rest, "name": name, "project": project}, "[job]")
    parameters = {key: _parameter(key, one) for key, one in table_of(table, "settings").items()}
    if not parameters:
        raise ValueError("the file varies nothing: write a table [settings.NAME] for each setting")
    goal = str(table.get("goal", "min"))
    if goal not in ("min", "max"):
        raise ValueError(f"goal is min or max, got {goal!r}")
    method = Method(table.get("method", "bayesian"))
    trials = _grid_size(parameters) if method == Method.GRID else TRIALS
    sweep = Sweep(
        name=name,
        job=job,
        code=str(job_table.get("code", "")),
        parameters=parameters,
        method=method,
        trials=int(table.get("trials", trials)),
        parallel=int(table.get("parallel", 2)),
        seed=int(table.get("seed", 0)),
        metric=str(table.get("metric", "loss")),
        is_higher_better=goal == "max",
        halving=_halving(table_of(table, "halving")),
    )
    _check(sweep)
    return sweep


def _grid_size(parameters: Mapping[str, Parameter]) -> int:
    """The trials of a whole grid, with that of the job's own settings."""
    return min(MOST_TRIALS, 1 + math.prod(max(1, len(one.values)) for one in parameters.values()))


def _parameter(name: str, table: Any) -> Parameter:
    where = f"[settings.{name}]"
    if not isinstance(table, dict):
        raise ValueError(f"{where} should be a table with values, or with low and high")
    only(table, {"values", "low", "high", "log"}, where)
    if "values" in table:
        values = table["values"]
        if not isinstance(values, list) or not values or len(table) > 1:
            raise ValueError(f"{where} has a list of values, and nothing else, or low and high")
        return Parameter(values=tuple(values))
    low: Any = table.get("low")
    high: Any = table.get("high")
    if not _is_number(low) or not _is_number(high) or not low < high:
        raise ValueError(f"{where} needs low and high, low below high")
    if table.get("log") and low <= 0:
        raise ValueError(f"{where} is on a logarithmic scale: low has to be above 0")
    is_int = isinstance(low, int) and isinstance(high, int)
    return Parameter(low=low, high=high, is_log=bool(table.get("log")), is_int=is_int)


def _is_number(value: Any) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool)


def _halving(table: Mapping[str, Any]) -> Halving | None:
    if not table:
        return None
    only(table, {"setting", "low", "high", "factor"}, "[halving]")
    found = Halving(
        setting=str(table.get("setting", "")),
        low=int(table.get("low", 1)),
        high=int(table.get("high", 0)),
        factor=int(table.get("factor", 3)),
    )
    if not found.setting or not 0 < found.low < found.high or found.factor < 2:
        raise ValueError("[halving] needs a setting, low below high, and a factor of 2 or more")
    return found


def _check(sweep: Sweep) -> None:
    if not 1 <= sweep.trials <= MOST_TRIALS or sweep.parallel < 1:
        raise ValueError(f"trials are 1 to {MOST_TRIALS:,}, parallel at least 1")
    if sweep.method == Method.GRID:
        ranges = [name for name, one in sweep.parameters.items() if not one.values]
        if ranges:
            raise ValueError(f"a grid needs values, and {ranges[0]} has a range")
    if sweep.halving and sweep.halving.setting in sweep.parameters:
        raise ValueError(f"{sweep.halving.setting} is given by [halving], and cannot be varied")


def sweep_key(sweep: Sweep, job: JobSpec) -> str:
    """What the trials of a sweep are told by: the job, with artifacts as ids, and what is varied.

    More trials, or more of them at once, are the same sweep.
    """
    told = to_json(replace(sweep, job=job, trials=1, parallel=1))
    return hashlib.sha256(json.dumps(told, sort_keys=True).encode()).hexdigest()[:16]


def trial_job(sweep: Sweep, job: JobSpec, key: str, trial: Trial) -> JobSpec:
    """The job of a trial."""
    settings = {**job.settings, **trial.settings}
    suffix = f"-{trial.number}"
    if sweep.halving is not None:
        settings[sweep.halving.setting] = sweep.halving.budgets[trial.rung]
        suffix += f"-r{trial.rung}"
    env = {**job.env, environment.SWEEP_TRIAL: f"{key}/{trial.number}/{trial.rung}"}
    return replace(job, name=f"{sweep.name}{suffix}", settings=settings, env=env)


def trial_of(sweep: Sweep, key: str, spec: JobSpec) -> Trial | None:
    """The trial that a job is; None: it is none of this sweep."""
    told = spec.env.get(environment.SWEEP_TRIAL, "").split("/")
    if len(told) != 3 or told[0] != key:
        return None
    number = int(told[1])
    chosen = {name: spec.settings[name] for name in sweep.parameters if name in spec.settings}
    return Trial(number=number, rung=int(told[2]), settings=chosen if number else DEFAULTS)


def drawn(sweep: Sweep, number: int) -> Mapping[str, Scalar] | None:
    """The settings of a trial, without a look at others; None: the grid is done.

    Trial 0 has the job's own settings.
    """
    if not number:
        return DEFAULTS
    if sweep.method == Method.GRID:
        grid = list(product(*(one.values for one in sweep.parameters.values())))
        if number > len(grid):
            return None
        return dict(zip(sweep.parameters, grid[number - 1], strict=True))
    return {
        name: one.draw(_share(f"{sweep.seed}/{number}/{name}"))
        for name, one in sweep.parameters.items()
    }


def _share(text: str) -> float:
    """A number from 0 to 1 that only the text gives."""
    return int.from_bytes(hashlib.sha256(text.encode()).digest()[:6]) / 2**48


def promoted(sweep: Sweep, trials: Sequence[Trial]) -> list[Trial]:
    """The trials of the next rung, once the last one is done; none where all is done."""
    if sweep.halving is None or not trials:
        return []
    rung = max(trial.rung for trial in trials)
    last = [trial for trial in trials if trial.rung == rung]
    if rung + 1 >= len(sweep.halving.budgets) or not all(trial.is_over for trial in last):
        return []
    good = ranked(sweep, [trial for trial in last if trial.value is not None])
    count = max(1, len(last) // sweep.halving.factor)
    return [Trial(number=one.number, rung=rung + 1, settings=one.settings) for one in good[:count]]


def ranked(sweep: Sweep, trials: Sequence[Trial]) -> list[Trial]:
    """Trials with a value, the best first; those that were given more come before."""
    sign = -1 if sweep.is_higher_better else 1
    known = [trial for trial in trials if trial.value is not None and math.isfinite(trial.value)]
    return sorted(known, key=lambda one: (-one.rung, sign * (one.value or 0.0), one.number))
