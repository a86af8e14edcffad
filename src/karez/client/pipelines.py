"""Runs a pipeline: all jobs are queued at once, and each is held until those before it are done.

The cloud carries it through alone. The same pipeline again finds each job by what it runs and on
which content, so it may be asked for at any time, by a command that was cut as well: a step that
is done is not done twice, and one that failed is tried anew.
"""

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, replace
from itertools import count
from pathlib import Path

from karez.client import calls
from karez.client.earlier_jobs import Send, input_of, sent_code, stands
from karez.client.sdk import Client
from karez.client.steps import pause
from karez.core.dependencies import Dependency
from karez.core.errors import Failed
from karez.core.jobs import Job, JobSpec
from karez.core.pipelines import Pipeline, PipelineStep, job_spec, step_key
from karez.core.workloads import ENDED, State


@dataclass(slots=True, kw_only=True)
class PipelineRun:
    """A pipeline in a cloud."""

    client: Client
    pipeline: Pipeline
    folder: Path
    """Where the paths of the steps' code begin."""
    send: Send | None = None
    """Uploads as Client.upload does, and shows it."""
    watch: Callable[[Mapping[str, Job]], None] = lambda _: None
    """Called with step -> job at each look."""
    jobs: dict[str, Job] = field(default_factory=dict)
    """Step -> its job, once it was submitted."""
    _sent: dict[str, str] = field(default_factory=dict)
    """Folder -> artifact of it."""

    def submit(self) -> Mapping[str, Job]:
        """Queue all steps, or find those of before; returns step -> job.

        Raises:
            BadRequest: A step cannot be run so; nothing after it was queued.
            NotFound: There is no such artifact.
        """
        keys: dict[str, str] = {}
        for step in self.pipeline.steps:
            artifacts = {
                name: input_of(self.client, self.pipeline.project, text)
                for name, text in step.spec.inputs.items()
                if name not in step.taken
            }
            code = self._code(step)
            ids = {name: str(job.id) for name, job in self.jobs.items()}
            spec = job_spec(step, artifacts, code, ids)
            keys[step.name] = step_key(step, spec, keys)
            self.jobs[step.name] = self._submitted(step, spec, keys[step.name])
        return self.jobs

    def wait(self, *, limit_s: float) -> Mapping[str, Job]:
        """Wait until all steps have succeeded. Raises Failed if one has not."""
        deadline = self.client.run(pause()) + limit_s
        while True:
            for name, job in self.jobs.items():
                if job.state not in ENDED:
                    self.jobs[name] = self.client.job(job.id)
            self.watch(self.jobs)
            self._check_failed()
            if all(job.state in ENDED for job in self.jobs.values()):
                return self.jobs
            if self.client.run(pause()) > deadline:
                reason = f"it is not done after {limit_s:.0f} s."
                raise Failed(noun="pipeline", name=self.pipeline.name, reason=reason)
            self.client.run(pause(0.25))

    def _check_failed(self) -> None:
        for name, job in self.jobs.items():
            if job.state in (State.FAILED, State.CANCELLED):
                reason = f"{job.status.reason or f'it was {job.state}'} (step {name})."
                raise Failed(noun="job", name=job.id, reason=reason)
            wanted = {
                output
                for step in self.pipeline.steps
                for other, output in step.taken.values()
                if other == name
            }
            missing = wanted - set(job.status.outputs)
            if missing and job.state == State.SUCCEEDED:
                reason = f"it made no output {min(missing)!r} (step {name})."
                raise Failed(noun="job", name=job.id, reason=reason)

    def _code(self, step: PipelineStep) -> str:
        if step.code not in self._sent:
            self._sent[step.code] = sent_code(
                self.send or self.client.upload,
                self.folder,
                step.code,
                name=f"{self.pipeline.name}-code",
                project=self.pipeline.project,
            )
        return self._sent[step.code]

    def _submitted(self, step: PipelineStep, spec: JobSpec, key: str) -> Job:
        """The newest job of a step that has not failed; else one more."""
        before = {str(self.jobs[name].id) for name in step.needs}
        waits = tuple(Dependency(job=str(self.jobs[name].id)) for name in step.after)
        for attempt in count():
            asked = calls.submit(replace(spec, after=waits), f"pipeline-{key}-{attempt}")
            job = self.client.call(asked)
            waits_for_others = {one.job for one in job.spec.after} - before
            if job.state == State.HELD and waits_for_others:
                continue  # it waits for a step that has failed, and ends with it
            if job.state not in ENDED or stands(self.client, job):
                return job
        raise AssertionError("unreachable")
