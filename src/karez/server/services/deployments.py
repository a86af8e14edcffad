"""Services, that is deployed models: deploy, show, list, stop."""

from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, replace

from karez.core.artifacts import Artifact, ArtifactKind
from karez.core.engines import AUTO, Capabilities
from karez.core.errors import AlreadyExists, BadRequest
from karez.core.fit import Fit, FitReport
from karez.core.identity import Principal, Project, Role
from karez.core.ports import Clock
from karez.core.resource_requests import ResourceRequest
from karez.core.services import Service, ServiceSpec
from karez.core.stores.replicas import ReplicaStore
from karez.core.stores.workloads import WorkloadStore
from karez.core.workloads import LIVE, Progress, Status
from karez.server.services.admission import Admission
from karez.server.services.artifacts import ArtifactService
from karez.server.services.idempotency import workload_id
from karez.server.services.lookup import find_service
from karez.server.services.model_fit import ModelFit
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
    engines: Mapping[str, Capabilities]
    models: ModelFit
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
        spec, why = self._checked(who, project, spec)
        service = Service(
            id=ident,
            spec=spec,
            status=Status(notices=(why,)),
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
        spec, why = self._checked(
            who, project, replace(spec, project=service.spec.project), instead_of=service
        )
        is_other = not spec.runs_as(service.spec)
        status = service.status
        if is_other:
            doing = Progress(what=UPDATING, of=max(1, len(status.ranks)))
            status = replace(status, notices=(why,), progress=doing)
        at = self.clock.now() if is_other else None
        if not self.replicas.set_spec(service, spec, status, at=at):
            raise BadRequest(
                problem=f"{service.spec.name} is to stop, has ended, or was changed meanwhile",
                fix="Look with `karez services show`, and try again.",
            )
        self.wake()
        return self.get(who, service.id)

    def fit(self, who: Principal, spec: ServiceSpec) -> FitReport:
        """What would become of a service: its engine, and the memory of a replica.

        Raises:
            BadRequest: No engine can serve it.
            NotFound: A model is not there.
        """
        spec = replace(spec, project=self.permissions.project_of(who, spec.project))
        self.permissions.require(who, spec.project, Role.VIEWER)
        self._check_engine(spec)
        spec, model, adapters = self._models(who, spec)
        return self.models.report(spec, model, adapters)

    def _check_engine(self, spec: ServiceSpec) -> None:
        """Raise BadRequest for an engine that nobody knows."""
        if spec.engine != AUTO and spec.engine not in self.engines:
            known = ", ".join(sorted(self.engines))
            raise BadRequest(problem=f"there is no engine {spec.engine!r}; there are: {known}")

    def _checked(
        self,
        who: Principal,
        project: Project,
        spec: ServiceSpec,
        *,
        instead_of: Service | None = None,
    ) -> tuple[ServiceSpec, str]:
        """The specification with ids and its engine, and why that one, if it could be served."""
        self.admission.check(who, project, spec, instead_of=instead_of)
        self._check_engine(spec)
        spec, model, adapters = self._models(who, spec)
        self._check_names(spec, instead_of)
        if instead_of is not None and spec.engine in (AUTO, instead_of.spec.engine):
            same = replace(spec, engine=instead_of.spec.engine)
            if same.runs_as(instead_of.spec):
                return same, ""
        report = self._fitting(spec, model, adapters, instead_of)
        each, left_out = _that_fit(spec.each, report.fits)
        why = f"engine {report.engine}: {report.why}{left_out}"
        return replace(spec, engine=report.engine, each=each), why

    def _fitting(
        self,
        spec: ServiceSpec,
        model: Artifact,
        adapters: Sequence[Artifact],
        instead_of: Service | None,
    ) -> FitReport:
        """The engine, which an update keeps if it can. Raises BadRequest."""
        if spec.engine == AUTO and instead_of is not None:
            before = instead_of.spec
            if before.prefer == spec.prefer and before.engine in self.engines:
                with suppress(BadRequest):
                    same = replace(spec, engine=before.engine)
                    return replace(self.models.check(same, model, adapters), why="as before")
        return self.models.check(spec, model, adapters)

    def _models(
        self, who: Principal, spec: ServiceSpec
    ) -> tuple[ServiceSpec, Artifact, list[Artifact]]:
        """The specification with the ids of its model and adapters, and these themselves."""
        model = self._model(who, spec, spec.model)
        adapters = [self._model(who, spec, adapter.model) for adapter in spec.adapters]
        pairs = zip(spec.adapters, adapters, strict=True)
        named = tuple(replace(one, model=found.id) for one, found in pairs)
        packages = self.artifacts.environment(who, spec.project, spec.environment)
        found = replace(spec, model=model.id, adapters=named, environment=packages)
        return found, model, adapters

    def _model(self, who: Principal, spec: ServiceSpec, ident: str) -> Artifact:
        model = self.artifacts.of(who, spec.project, ident)
        if model.spec.kind != ArtifactKind.MODEL:
            raise BadRequest(problem=f"{ident} is a {model.spec.kind}, not a model")
        return model

    def _check_names(self, spec: ServiceSpec, instead_of: Service | None) -> None:
        """Refuse names that other services of the project answer to. Raises AlreadyExists."""
        names = {adapter.name for adapter in spec.adapters}
        for other in self.store.services(projects=[spec.project], states=tuple(LIVE)):
            if instead_of is not None and other.id == instead_of.id:
                continue
            taken = {other.spec.name, *(adapter.name for adapter in other.spec.adapters)}
            if both := (names & taken) or ({spec.name} & (taken - {other.spec.name})):
                raise AlreadyExists(noun="model", name=min(both))

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


def _that_fit(
    each: tuple[ResourceRequest, ...], fits: Sequence[Fit]
) -> tuple[tuple[ResourceRequest, ...], str]:
    """The alternatives of which one is given to a replica: those with room for it."""
    if not fits:
        return each, ""
    pairs = [*zip(each, fits, strict=True)]
    left = "".join(
        f"; without {fit.device}, which has no room" for _, fit in pairs if not fit.is_enough
    )
    return tuple(request for request, fit in pairs if fit.is_enough), left
