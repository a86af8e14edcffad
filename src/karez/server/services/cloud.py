"""What routes call: one method per thing a user can ask for."""

import contextlib
import hashlib
import secrets
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import BinaryIO

from karez.core.artifacts import Artifact, ArtifactKind, ArtifactSpec, FileEntry, artifact_id
from karez.core.errors import (
    AlreadyExists,
    BadRequest,
    NotAllowed,
    NotFound,
    QuotaExceeded,
)
from karez.core.gangs import GangSpec
from karez.core.identity import EVERYWHERE, Key, KeySpec, Principal, Project, Role, includes
from karez.core.jobs import Job, JobSpec
from karez.core.ports import Blobs, Clock
from karez.core.resource_syntax import show_amount
from karez.core.routing import GatewayKey, Route, Table
from karez.core.services import Service, ServiceSpec
from karez.core.settings import Settings
from karez.core.stores.store import Store
from karez.core.workloads import ACTIVE, State, WorkloadId
from karez.server.logs import FileLogs
from karez.server.services.pool_service import PoolService
from karez.server.services.recovery_service import RecoveryService
from karez.studio.settings import check_recipe
from karez.vault.keys import Pepper, full_key, make_key, split_key

INLINE_LIMIT = 10_000


@dataclass(frozen=True, slots=True, kw_only=True)
class Cloud:
    """The services over the edges that wiring chose."""

    store: Store
    blobs: Blobs
    clock: Clock
    pepper: Pepper
    settings: Settings
    logs: FileLogs
    wake: Callable[[], None]
    """Have the scheduler look at once."""
    places: PoolService
    """The pool for those who ask."""
    recovery: RecoveryService
    """Recoveries for those who ask."""

    # jobs

    def submit(self, who: Principal, spec: JobSpec, *, once: str = "") -> Job:
        """Queue a job. The same `once` text from the same key gives the same job."""
        self.need(who, spec.project, Role.MEMBER)
        ident = _ident("job", who, once)
        known = self.store.workloads.job(ident)
        if known is not None:
            return known
        self._check_gang(spec.project, spec.gang)
        if spec.recipe:
            check_recipe(spec.recipe, spec.settings, spec.inputs)
        inputs = {name: self.artifact(who, ref).id for name, ref in spec.inputs.items()}
        code = self.artifact(who, spec.code).id if spec.code else ""
        missing = sorted(set(spec.secrets) - set(self.store.access.secrets(spec.project)))
        if missing:
            raise NotFound(noun="secret", name=missing[0])
        job = Job(
            id=WorkloadId(ident),
            spec=replace(spec, inputs=inputs, code=code),
            owner=who.name,
            created_at=self.clock.now(),
        )
        self.store.workloads.add_job(job)
        self.wake()
        return job

    def job(self, who: Principal, ident: str) -> Job:
        """One job by id or name. Raises NotFound."""
        job = self.store.workloads.job(ident)
        if job is None or not who.sees(job.spec.project):
            raise NotFound(noun="job", name=ident)
        return job

    def jobs(self, who: Principal, states: Sequence[State], limit: int) -> Sequence[Job]:
        """Those the key may see, newest first."""
        return self.store.workloads.jobs(projects=_scope(who), states=states, limit=limit)

    def cancel(self, who: Principal, ident: str) -> Job:
        """Ask for a job's end; one that has ended stays as it is."""
        job = self.job(who, ident)
        self.need(who, job.spec.project, Role.MEMBER)
        self.store.workloads.request_stop(job.id, at=self.clock.now())
        self.wake()
        return self.job(who, job.id)

    # services

    def deploy(self, who: Principal, spec: ServiceSpec, *, once: str = "") -> Service:
        """Queue a service. Raises AlreadyExists for a name that is in use."""
        self.need(who, spec.project, Role.MEMBER)
        ident = _ident("svc", who, once)
        known = self.store.workloads.service(ident)
        if known is not None:
            return known
        gang = GangSpec(min=spec.replicas, want=spec.replicas, each=spec.each)
        self._check_gang(spec.project, gang)
        model = self.artifact(who, spec.model)
        if model.spec.kind != ArtifactKind.MODEL:
            raise BadRequest(problem=f"{spec.model} is a {model.spec.kind}, not a model")
        service = Service(
            id=WorkloadId(ident),
            spec=replace(spec, model=model.id),
            owner=who.name,
            created_at=self.clock.now(),
        )
        self.store.workloads.add_service(service)
        self.wake()
        return service

    def service(self, who: Principal, ident: str) -> Service:
        """One service by id or name. Raises NotFound."""
        service = self.store.workloads.service(ident)
        if service is None or not who.sees(service.spec.project):
            raise NotFound(noun="service", name=ident)
        return service

    def services(self, who: Principal, *, ended: bool) -> Sequence[Service]:
        """Those the key may see, newest first."""
        states = () if ended else (*ACTIVE, State.QUEUED)
        return self.store.workloads.services(projects=_scope(who), states=states)

    def stop_service(self, who: Principal, ident: str) -> Service:
        """Ask for a service's end."""
        service = self.service(who, ident)
        self.need(who, service.spec.project, Role.MEMBER)
        self.store.workloads.request_stop(service.id, at=self.clock.now())
        self.wake()
        return self.service(who, service.id)

    # artifacts

    def put_blob(self, stream: BinaryIO, expect: str) -> FileEntry:
        """Store bytes under their digest."""
        return self.blobs.put(stream, expect=expect)

    def register(self, who: Principal, spec: ArtifactSpec) -> Artifact:
        """Register an artifact whose files are in the blob store. Raises BadRequest if not."""
        self.need(who, spec.project, Role.MEMBER)
        for file in spec.files:
            if not self.blobs.has(file.sha256):
                raise BadRequest(problem=f"the bytes of {file.path} were not uploaded")
        artifact = Artifact(
            id=artifact_id(spec), spec=spec, owner=who.name, created_at=self.clock.now()
        )
        return self.store.artifacts.add(artifact)

    def artifact(self, who: Principal, ident: str) -> Artifact:
        """One artifact by id or name. Raises NotFound."""
        artifact = self.store.artifacts.find(ident)
        if artifact is None or not who.sees(artifact.spec.project):
            raise NotFound(noun="artifact", name=ident)
        return artifact

    def artifacts(self, who: Principal, kinds: Sequence[ArtifactKind]) -> Sequence[Artifact]:
        """Those the key may see, newest first."""
        return self.store.artifacts.list(projects=_scope(who), kinds=kinds)

    def remove_artifact(self, who: Principal, ident: str) -> None:
        """Forget an artifact. Raises BadRequest while something active uses it."""
        artifact = self.artifact(who, ident)
        self.need(who, artifact.spec.project, Role.MEMBER)
        live = (*ACTIVE, State.QUEUED)
        users = [
            job.spec.name
            for job in self.store.workloads.jobs(projects=None, states=live, limit=INLINE_LIMIT)
            if artifact.id in (*job.spec.inputs.values(), job.spec.code)
        ]
        users += [
            service.spec.name
            for service in self.store.workloads.services(projects=None, states=live)
            if service.spec.model == artifact.id
        ]
        if users:
            raise BadRequest(
                problem=f"{artifact.spec.name} is in use by {users[0]}",
                fix=f"Stop {users[0]} first.",
            )
        self.store.artifacts.remove(artifact.id)

    # people

    def principal(self, text: str) -> Principal | None:
        """Who a key's text belongs to; None if it is no good."""
        parts = split_key(text)
        key = self.store.access.key(parts[0]) if parts else None
        if key is None or parts is None or key.revoked_at is not None:
            return None
        if not self.pepper.matches(parts[1], key.digest):
            return None
        return Principal(key_id=key.id, name=key.name, project=key.project, role=key.role)

    def need(self, who: Principal, project: str, role: Role) -> None:
        """Raises NotAllowed unless the key has this role in this project."""
        if not who.sees(project) or not includes(who.role, role):
            raise NotAllowed(needed=role, held=who.role, project=project)
        if project not in {known.name for known in self.store.access.projects()}:
            raise NotFound(noun="project", name=project)

    def need_everywhere(self, who: Principal) -> None:
        """Raises NotAllowed unless the key is an admin's for all projects."""
        if who.project != EVERYWHERE or not includes(who.role, Role.ADMIN):
            raise NotAllowed(needed=Role.ADMIN, held=who.role, project=EVERYWHERE)

    def make_key(self, who: Principal, spec: KeySpec) -> tuple[Key, str]:
        """A new key and its text, which is shown this once."""
        if spec.project == EVERYWHERE or spec.role in (Role.NODE, Role.GATEWAY, Role.MONITOR):
            self.need_everywhere(who)
        else:
            self.need(who, spec.project, Role.ADMIN)
        return self.new_key(spec)

    def new_key(self, spec: KeySpec) -> tuple[Key, str]:
        """As make_key, without asking who may."""
        ident, secret = make_key()
        key = Key(
            id=ident,
            name=spec.name,
            project=spec.project,
            role=spec.role,
            digest=self.pepper.digest(secret),
            created_at=self.clock.now(),
        )
        self.store.access.add_key(key)
        return key, full_key(ident, secret)

    def keys(self, who: Principal) -> Sequence[Key]:
        """Those of the projects this admin may see."""
        return [key for key in self.store.access.keys() if who.sees(key.project)]

    def revoke(self, who: Principal, ident: str) -> None:
        """Refuse a key from now on. Raises NotFound."""
        key = self.store.access.key(ident)
        if key is None or not who.sees(key.project):
            raise NotFound(noun="key", name=ident)
        self.store.access.revoke_key(ident, at=self.clock.now())

    def add_project(self, project: Project) -> Project:
        """Raises AlreadyExists."""
        self.store.access.add_project(project)
        return project

    def set_quota(self, project: Project) -> Project:
        """Raises NotFound."""
        if not self.store.access.set_quota(project):
            raise NotFound(noun="project", name=project.name)
        self.wake()
        return project

    def put_secret(self, who: Principal, project: str, name: str, text: str) -> None:
        """Seal and keep a secret."""
        self.need(who, project, Role.MEMBER)
        self.store.access.put_secret(project, name, self.pepper.seal(f"{project}/{name}", text))

    def drop_secret(self, who: Principal, project: str, name: str) -> None:
        """Forget a secret. Raises NotFound."""
        self.need(who, project, Role.MEMBER)
        if not self.store.access.drop_secret(project, name):
            raise NotFound(noun="secret", name=name)

    def open_secrets(self, project: str, names: Sequence[str]) -> Mapping[str, str]:
        """Secrets for a process, by name."""
        sealed = self.store.access.secrets(project)
        return {
            name: self.pepper.open(f"{project}/{name}", sealed[name])
            for name in names
            if name in sealed
        }

    # gateway

    def gateway_table(self) -> Table:
        """Keys that may call models, and where ready replicas listen."""
        keys = tuple(
            GatewayKey(id=key.id, project=key.project, role=key.role, digest=key.digest)
            for key in self.store.access.keys()
            if key.revoked_at is None and key.role in (Role.VIEWER, Role.MEMBER, Role.ADMIN)
        )
        services = self.store.workloads.services(projects=None, states=tuple(ACTIVE))
        routes = tuple(
            Route(
                service=service.spec.name,
                project=service.spec.project,
                urls=tuple(view.url for view in service.status.ranks if view.state == "ready"),
                since=service.created_at,
            )
            for service in services
        )
        return Table(keys=keys, routes=routes)

    def _check_gang(self, project: str, gang: GangSpec) -> None:
        """Refuse what its project may never hold, or no node. Raises QuotaExceeded, BadRequest."""
        quotas = {known.name: known for known in self.store.access.projects()}[project].quota
        asked = [
            {kind: amount * gang.min for kind, amount in need.amounts.items()} for need in gang.each
        ]
        over = [
            next((k for k, amount in one.items() if amount > quotas.get(k, amount)), None)
            for one in asked
        ]
        if all(over) and over[0] is not None:
            kind = over[0]
            raise QuotaExceeded(
                project=project,
                kind=kind,
                asked=show_amount(kind, asked[0][kind]),
                quota=show_amount(kind, quotas[kind]),
            )
        self.places.check(gang)


def first_start(cloud: Cloud) -> str:
    """Make the default project and the first admin key; empty if there were keys already."""
    with contextlib.suppress(AlreadyExists):  # not the first start
        cloud.store.access.add_project(Project(name="default"))
    if any(key.role == Role.ADMIN for key in cloud.store.access.keys()):
        return ""
    return cloud.new_key(KeySpec(name="admin", project=EVERYWHERE, role=Role.ADMIN))[1]


def _scope(who: Principal) -> tuple[str, ...] | None:
    return None if who.project == EVERYWHERE else (who.project,)


def _ident(kind: str, who: Principal, once: str) -> str:
    if not once:
        return f"{kind}-{secrets.token_hex(5)}"
    return f"{kind}-{hashlib.sha256(f'{who.key_id}/{once}'.encode()).hexdigest()[:10]}"
