"""Jobs: submit, show, list, cancel."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace

from karez.core.arrays import ArrayTask, describe_limit, parse_array
from karez.core.dependencies import Dependency, waits_for
from karez.core.errors import AlreadyExists, BadRequest
from karez.core.identity import Principal, Role
from karez.core.job_outputs import parse_output, resolved_inputs
from karez.core.jobs import Job, JobSpec, masked, problem_with_variable
from karez.core.ports import Clock
from karez.core.stores.workloads import WorkloadStore
from karez.core.workloads import INITIAL_STATUS, State, WorkloadId
from karez.server.services.admission import Admission
from karez.server.services.artifacts import ArtifactService
from karez.server.services.idempotency import workload_id
from karez.server.services.job_keys import JobKeys
from karez.server.services.lookup import find_job
from karez.server.services.permissions import Permissions, visible_projects
from karez.server.services.secrets import SecretService
from karez.studio.settings import check_recipe


@dataclass(frozen=True, slots=True, kw_only=True)
class JobService:
    """Jobs of the projects that a key may see."""

    store: WorkloadStore
    permissions: Permissions
    admission: Admission
    artifacts: ArtifactService
    secrets: SecretService
    keys: JobKeys
    clock: Clock
    wake: Callable[[], None]
    """Runs the scheduler at once."""

    def submit(self, who: Principal, spec: JobSpec, *, idempotency_key: str = "") -> Job:
        """Queue a job. The same idempotency key of the same user gives the same job."""
        ident = workload_id("job", who, idempotency_key)
        existing = self.store.job(ident)
        if existing is not None:
            return self._same(existing, who, spec, idempotency_key)
        job = replace(self.check(who, spec), id=ident)  # queued, or held until others have ended
        if spec.calls_models:
            self.keys.make(who, job)
        if spec.array:
            self.store.add_array(_jobs_of_array(job))
            job = self.get(who, ident)
        else:
            self.store.add_job(job)
        self.wake()
        return masked(job)

    def known(self, who: Principal, idempotency_key: str) -> Job | None:
        """The job that a key has given its user before; None: it has given none."""
        if not idempotency_key:
            return None
        return self.store.job(workload_id("job", who, idempotency_key))

    def _same(self, existing: Job, who: Principal, spec: JobSpec, key: str) -> Job:
        """The job that a key gave before. Raises AlreadyExists if it was of another request."""
        resolved = existing.spec  # names became ids, and may mean others by now
        asked = replace(
            spec,
            project=self.permissions.project_of(who, spec.project),
            inputs=resolved.inputs if spec.inputs.keys() == resolved.inputs.keys() else spec.inputs,
            code=resolved.code if spec.code else "",
            environment=resolved.environment if spec.environment else "",
            after=resolved.after if _may_be(spec, resolved.after) else spec.after,
            gang=replace(spec.gang, among=resolved.gang.among),
        )
        if asked != resolved:
            raise AlreadyExists(noun="request with the Idempotency-Key", name=key)
        return masked(existing)

    def check(self, who: Principal, spec: JobSpec) -> Job:
        """Return the job that `submit` would queue. Raises what keeps it from being queued."""
        spec = replace(spec, project=self.permissions.project_of(who, spec.project))
        if spec.image:
            spec = replace(spec, gang=self.admission.pool.with_containers(spec.gang))
        project = self.permissions.require(who, spec.project, Role.MEMBER)
        self.admission.check(who, project, spec)
        if spec.recipe:
            check_recipe(spec.recipe, spec.settings, spec.inputs)
        for name in (*spec.env, *spec.secrets):
            if problem := problem_with_variable(name):
                raise BadRequest(problem=problem, fix="Give your variable another name.")
        inputs, makers = self._inputs(who, spec)
        code = self.artifacts.of(who, spec.project, spec.code).id if spec.code else ""
        environment = self.artifacts.environment(who, spec.project, spec.environment)
        self.secrets.require(spec.project, spec.secrets)
        after, waiting = self._after(who, (*spec.after, *makers))
        return Job(
            id=workload_id("job", who, ""),
            spec=replace(spec, inputs=inputs, code=code, environment=environment, after=after),
            state=State.HELD if waiting else State.QUEUED,
            status=replace(INITIAL_STATUS, reason=waiting),
            owner=who.name,
            created_at=self.clock.now(),
        )

    def _inputs(
        self, who: Principal, spec: JobSpec
    ) -> tuple[dict[str, str], tuple[Dependency, ...]]:
        """The inputs by artifact, or by the job that will make them, and what that waits for.

        Raises:
            BadRequest: The other job makes no such output, or cannot be named here.
            NotFound: There is no such artifact or job.
        """
        inputs: dict[str, str] = {}
        makers: list[Dependency] = []
        for name, text in spec.inputs.items():
            wanted = parse_output(text)
            if wanted is None:
                inputs[name] = self.artifacts.of(who, spec.project, text).id
                continue
            job = self.one(who, wanted.job)
            inputs[name] = str(replace(wanted, job=job.id))
            if job.state == State.SUCCEEDED:
                made = _made(inputs[name], job)
                inputs[name] = self.artifacts.of(who, spec.project, made).id
            elif spec.array:
                fix = "Wait for it, and name the artifact that it made."
                problem = f"an array has no input of a job that has not ended ({job.id})"
                raise BadRequest(problem=problem, fix=fix)
            elif all(one.job not in (job.id, wanted.job) for one in (*spec.after, *makers)):
                makers.append(Dependency(job=job.id))
        return inputs, tuple(makers)

    def _after(
        self, who: Principal, after: Sequence[Dependency]
    ) -> tuple[tuple[Dependency, ...], str]:
        """The dependencies by id, and what is still to wait for. Raises BadRequest, NotFound."""
        others = [find_job(self.store, who, dependency.job) for dependency in after]
        found = tuple(replace(one, job=other.id) for one, other in zip(after, others, strict=True))
        verdict = waits_for(found, {other.id: other.state for other in others})
        if verdict.is_hopeless:
            fix = "Write JOB:any to start however it ended."
            raise BadRequest(problem=f"this would never start: {verdict.reason}", fix=fix)
        return found, verdict.reason

    def get(self, who: Principal, ident: str) -> Job:
        """One job, or an array as one, by id or name. Raises NotFound, AmbiguousName."""
        return masked(find_job(self.store, who, ident))

    def one(self, who: Principal, ident: str) -> Job:
        """One job by id or name. Raises NotFound, AmbiguousName, BadRequest for an array."""
        job = self.get(who, ident)
        if job.array is not None and job.array.index is None:
            first = f"{job.id}_{parse_array(job.spec.array).indices[0]}"
            fix = f"Name one of its jobs, such as {first}; `karez jobs list --array` lists them."
            raise BadRequest(problem=f"{job.id} is a whole array of jobs", fix=fix)
        return job

    def list(
        self, who: Principal, states: Sequence[State], limit: int, *, array: str = ""
    ) -> Sequence[Job]:
        """Jobs that a key may see, newest first.

        An array is one job, unless its jobs or those in some states are asked for.
        """
        found = self.store.jobs(
            projects=visible_projects(who),
            states=states,
            array=self.get(who, array).id if array else "",
            whole_arrays=not states and not array,
            limit=limit,
        )
        return [masked(job) for job in found]

    def cancel(self, who: Principal, ident: str) -> Job:
        """Request the end of a job, or of an array; one that has ended is returned unchanged."""
        job = self.get(who, ident)
        self.permissions.require(who, job.spec.project, Role.MEMBER)
        self.store.request_stop(job.id, at=self.clock.now())
        self.wake()
        return self.get(who, job.id)


def _made(text: str, job: Job) -> str:
    """The artifact that a job has made. Raises BadRequest."""
    try:
        return resolved_inputs({"": text}, {job.id: job.status.outputs})[""]
    except ValueError as error:
        fix = "`karez jobs show` lists the outputs of a job."
        raise BadRequest(problem=str(error), fix=fix) from error


def _may_be(spec: JobSpec, after: Sequence[Dependency]) -> bool:
    """Whether dependencies can be those of a request, with those that follow from its inputs."""
    return 0 <= len(after) - len(spec.after) <= len(spec.inputs)


def _jobs_of_array(job: Job) -> Sequence[Job]:
    """The jobs of an array, of which as many as its limit allows are queued."""
    asked = parse_array(job.spec.array)
    jobs = [
        replace(
            job,
            id=WorkloadId(f"{job.id}_{index}"),
            array=ArrayTask(id=job.id, index=index),
        )
        for index in asked.indices
    ]
    if asked.limit is None or job.state == State.HELD:
        return jobs
    waits = replace(INITIAL_STATUS, reason=describe_limit(asked.limit))
    rest = [replace(one, state=State.HELD, status=waits) for one in jobs[asked.limit :]]
    return [*jobs[: asked.limit], *rest]
