"""Runs a sweep: trials are jobs, some at a time, and the next one is chosen by those before.

Each trial's job tells which it is. So a sweep that was cut goes on with the trials that there are,
and a sweep of more trials begins with those of before.
"""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from math import isfinite
from pathlib import Path

from karez.client import calls
from karez.client.earlier_jobs import Send, input_of, sent_code
from karez.client.sdk import Client
from karez.client.steps import pause
from karez.client.sweep_sampler import suggested
from karez.core.errors import BadRequest, Failed
from karez.core.jobs import Job, JobSpec, Scalar
from karez.core.sweeps import (
    Method,
    Sweep,
    Trial,
    drawn,
    promoted,
    sweep_key,
    trial_job,
    trial_of,
)
from karez.core.workloads import ENDED, State

LISTED = 10_000
"""Newest jobs among which the trials of before are looked for."""
Place = tuple[int, int]
"""(number, rung) of a trial."""


@dataclass(slots=True, kw_only=True)
class SweepRun:
    """A sweep in a cloud."""

    client: Client
    sweep: Sweep
    folder: Path
    """Where the path of the job's code begins."""
    send: Send | None = None
    """Uploads as Client.upload does, and shows it."""
    watch: Callable[[Trial, Job], None] = lambda _, __: None
    """Called when a trial was begun, and when it is over."""
    trials: dict[Place, Trial] = field(default_factory=dict)
    jobs: dict[Place, Job] = field(default_factory=dict)

    def run(self, *, limit_s: float) -> Sequence[Trial]:
        """Try until all trials are over; returns them.

        Raises:
            BadRequest: The job cannot be run so, or does not make the metric.
            Failed: No trial succeeded, or they are not over in time.
        """
        job = self._resolved()
        key = sweep_key(self.sweep, job)
        self.find(key)
        deadline = self.client.run(pause()) + limit_s
        while True:
            self._look()
            running = [trial for trial in self.trials.values() if not trial.is_over]
            fresh = self._next()[: max(0, self.sweep.parallel - len(running))]
            for trial in fresh:
                self._begin(trial_job(self.sweep, job, key, trial), key, trial)
            if not fresh and not running:
                return self._all()
            if self.client.run(pause()) > deadline:
                reason = f"it is not done after {limit_s:.0f} s."
                raise Failed(noun="sweep", name=self.sweep.name, reason=reason)
            if not fresh:
                self.client.run(pause(0.25))

    def find(self, key: str = "") -> None:
        """Find the trials that there are."""
        key = key or sweep_key(self.sweep, self._resolved())
        for job in reversed(self.client.jobs(limit=LISTED)):
            trial = trial_of(self.sweep, key, job.spec)
            if trial is not None and job.spec.project == self.sweep.job.project:
                place = (trial.number, trial.rung)
                self.trials[place], self.jobs[place] = trial, job
                self._settle(place)

    def _resolved(self) -> JobSpec:
        """The job, with artifacts as ids and its code uploaded."""
        spec = self.sweep.job
        code = sent_code(
            self.send or self.client.upload,
            self.folder,
            self.sweep.code,
            name=f"{self.sweep.name}-code",
            project=spec.project,
        )
        inputs = {
            name: input_of(self.client, spec.project, text) for name, text in spec.inputs.items()
        }
        return replace(spec, inputs=inputs, code=code)

    def _next(self) -> list[Trial]:
        """The trials that may begin now."""
        begun = [trial for (_, rung), trial in self.trials.items() if not rung]
        number = len(begun)
        if number >= self.sweep.trials:
            return promoted(self.sweep, list(self.trials.values()))
        settings: Mapping[str, Scalar] | None
        if number and self.sweep.method == Method.BAYESIAN:
            settings = suggested(self.sweep, begun, number)
        else:
            settings = drawn(self.sweep, number)
        if settings is None:  # the grid is done
            return promoted(self.sweep, list(self.trials.values()))
        return [Trial(number=number, rung=0, settings=settings)]

    def _begin(self, spec: JobSpec, key: str, trial: Trial) -> None:
        place = (trial.number, trial.rung)
        once = f"sweep-{key}-{trial.number}-{trial.rung}"
        self.jobs[place] = self.client.call(calls.submit(spec, once))
        self.trials[place] = trial
        self.watch(trial, self.jobs[place])

    def _look(self) -> None:
        for place, trial in self.trials.items():
            if not trial.is_over:
                self.jobs[place] = self.client.job(self.jobs[place].id)
                self._settle(place)
                if self.trials[place].is_over:
                    self.watch(self.trials[place], self.jobs[place])

    def _settle(self, place: Place) -> None:
        """Take what a job that has ended made."""
        job = self.jobs[place]
        if job.state in ENDED:
            value = self._value(job) if job.state == State.SUCCEEDED else None
            if value is not None and not isfinite(value):
                value = None  # a training that diverged is no better than one that failed
            self.trials[place] = replace(self.trials[place], is_over=True, value=value)

    def _value(self, job: Job) -> float | None:
        """The metric of a job that succeeded. Raises BadRequest if it has none."""
        if self.sweep.metric == "loss":
            if job.status.loss is None:
                raise _no_metric(job, "loss", {})
            return job.status.loss
        output, _, fact = self.sweep.metric.partition("/")
        made = job.status.outputs
        if output not in made:
            raise _no_metric(job, self.sweep.metric, made)
        facts = self.client.artifact(made[output]).spec.facts
        value = facts.get(fact)
        if not isinstance(value, int | float):
            raise _no_metric(job, self.sweep.metric, [f"{output}/{name}" for name in facts])
        return float(value)

    def _all(self) -> Sequence[Trial]:
        if all(trial.value is None for trial in self.trials.values()):
            first = self.jobs[0, 0]
            reason = f"no trial succeeded; the first: {first.status.reason or first.state}."
            raise Failed(noun="job", name=first.id, reason=reason)
        return list(self.trials.values())


def _no_metric(job: Job, metric: str, there: Mapping[str, str] | Sequence[str]) -> BadRequest:
    told = ", ".join(there) or "nothing"
    return BadRequest(
        problem=f"{job.id} made no number {metric}, but {told}",
        fix="Write metric = 'OUTPUT/FACT' of a fact that the job's output has, or 'loss'.",
    )
