"""Services, that is deployed models: deploy, show, list, stop."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace

from karez.core.artifacts import Artifact, ArtifactKind
from karez.core.errors import BadRequest
from karez.core.identity import Principal, Project, Role
from karez.core.ports import Clock
from karez.core.services import Service, ServiceSpec
from karez.core.stores.replicas import ReplicaStore
from karez.core.stores.workloads import WorkloadStore
from karez.core.workloads import LIVE, Progress
from karez.server.services.admission import Admission
from karez.server.services.artifacts import ArtifactService
from karez.server.services.idempotency import workload_id
from karez.server.services.lookup import find_service
from karez.server.services.permissions import Permissions, visible_projects
from karez.serving.rollout import UPDATING


@dataclass(frozen=True, slots=True, kw_only=True)
class DeploymentService:
    """Deployed models of the projects that a key may see."""

    store: WorkloadStore
    replicas: ReplicaStore
    permissions: Permissions
    admission: Admission
    artifacts: ArtifactService
    formats: Mapping[str, Sequence[str]]
    """Engine -> formats of models that it loads."""
    clock: Clock
    wake: Callable[[], None]
    """Runs the scheduler at once."""

    def deploy(self, who: Principal, spec: ServiceSpec, *, idempotency_key: str = "") -> Service:
        """Queue a service. Raises AlreadyExists for a name that is in use."""
        spec = replace(spec, project=self.permissions.project_of(who, spec.project))
        project = self.permissions.require(who, spec.project, Role.MEMBER)
        ident = workload_id("svc", who, idempotency_key)
        existing = self.store.service(ident)
        if existing is not None:
            return existing
        spec = self._checked(who, project, spec)
        service = Service(
            id=ident,
            spec=spec,
            owner=who.name,
            created_at=self.clock.now(),
        )
        self.store.add_service(service)
        self.wake()
        return service

    def update(self, who: Principal, ident: str, spec: ServiceSpec) -> Service:
        """Ask something else of a service; its replicas are replaced one after the other.

        Raises:
            BadRequest: Another name or project, a model that the engine does not load, or the
                service has ended.
            NotFound: There is no such service.
        """
        service = self.get(who, ident)
        project = self.permissions.require(who, service.spec.project, Role.MEMBER)
        if spec.name != service.spec.name:
            raise BadRequest(
                problem=f"{service.spec.name} cannot be renamed to {spec.name}",
                fix="Deploy another service, and stop this one.",
            )
        spec = self._checked(
            who, project, replace(spec, project=service.spec.project), instead_of=service
        )
        is_other = not spec.runs_as(service.spec)
        status = service.status
        if is_other:
            doing = Progress(what=UPDATING, of=max(1, len(status.ranks)))
            status = replace(status, notices=(), progress=doing)
        at = self.clock.now() if is_other else None
        if not self.replicas.set_spec(service, spec, status, at=at):
            raise BadRequest(
                problem=f"{service.spec.name} is to stop, has ended, or was changed meanwhile",
                fix="Look with `karez services show`, and try again.",
            )
        self.wake()
        return self.get(who, service.id)

    def _checked(
        self,
        who: Principal,
        project: Project,
        spec: ServiceSpec,
        *,
        instead_of: Service | None = None,
    ) -> ServiceSpec:
        """The specification, with the model's id, if it could be served."""
        self.admission.check(who, project, spec, instead_of=instead_of)
        model = self.artifacts.of(who, spec.project, spec.model)
        if model.spec.kind != ArtifactKind.MODEL:
            raise BadRequest(problem=f"{spec.model} is a {model.spec.kind}, not a model")
        self._check_format(spec, model)
        return replace(spec, model=model.id)

    def _check_format(self, spec: ServiceSpec, model: Artifact) -> None:
        """Refuse what the engine cannot load. Raises BadRequest."""
        if spec.engine not in self.formats:
            known = ", ".join(sorted(self.formats))
            raise BadRequest(problem=f"there is no engine {spec.engine!r}; there are: {known}")
        formats = self.formats[spec.engine]
        if model.spec.format not in formats:
            name, told = model.spec.name, model.spec.format or "no format that was told"
            fix = "Name a model that it loads."
            if "gguf" in formats and model.spec.format in ("hf", ""):
                fix = (
                    f"Convert it: `karez models convert {name} --name {name}`; deploy {name}-gguf."
                )
            raise BadRequest(
                problem=f"engine {spec.engine} loads {', '.join(formats)}; {name} has {told}",
                fix=fix,
            )

    def get(self, who: Principal, ident: str) -> Service:
        """One service by id or name. Raises NotFound."""
        return find_service(self.store, who, ident)

    def list(self, who: Principal, *, ended: bool) -> Sequence[Service]:
        """Services that a key may see, newest first; `ended` includes ended ones."""
        states = () if ended else tuple(LIVE)
        return self.store.services(projects=visible_projects(who), states=states)

    def stop(self, who: Principal, ident: str) -> Service:
        """Request a service's end."""
        service = self.get(who, ident)
        self.permissions.require(who, service.spec.project, Role.MEMBER)
        self.store.request_stop(service.id, at=self.clock.now())
        self.wake()
        return self.get(who, service.id)
