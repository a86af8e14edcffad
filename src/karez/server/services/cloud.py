"""The services of control, built over the edges that wiring chose."""

from collections.abc import Callable, Collection, Mapping
from dataclasses import dataclass, field

from karez.core.alerts import AlertRule, Delivery
from karez.core.engines import Capabilities
from karez.core.ports import BlobStore, Clock, Fabric
from karez.core.settings import Settings
from karez.core.stores.store import Store
from karez.server.logs import FileLogs
from karez.server.metrics import PrometheusMetrics
from karez.server.services.access import AccessService
from karez.server.services.admission import Admission
from karez.server.services.alerts import AlertService
from karez.server.services.artifacts import ArtifactService
from karez.server.services.batches import BatchService
from karez.server.services.billing import BillingService
from karez.server.services.deployments import DeploymentService
from karez.server.services.job_keys import JobKeys
from karez.server.services.jobs import JobService
from karez.server.services.model_fit import ModelFit
from karez.server.services.permissions import Permissions
from karez.server.services.pool_service import PoolService
from karez.server.services.recovery_service import RecoveryService
from karez.server.services.secrets import SecretService
from karez.server.services.tunnels import TunnelService
from karez.vault.keys import Pepper


@dataclass(frozen=True, slots=True, kw_only=True)
class CloudDeps:
    """What the services of a cloud are built from."""

    store: Store
    blobs: BlobStore
    clock: Clock
    pepper: Pepper
    settings: Settings
    logs: FileLogs
    wake: Callable[[], None]
    """Runs the scheduler at once."""
    pool: PoolService
    recovery: RecoveryService
    engines: Mapping[str, Capabilities]
    installed: Collection[str]
    """Engines whose packages are installed here."""
    send_alert: Callable[[Delivery, AlertRule], None]
    """Sends one alert at once. Raises NotDelivered."""
    fabric: Callable[[], Fabric | None]
    """The nodes, once they are connected."""
    metrics: PrometheusMetrics = field(default_factory=PrometheusMetrics)


@dataclass(frozen=True, slots=True, kw_only=True)
class Cloud:
    """One service per noun of the API, and the edges that routes read from."""

    store: Store
    blobs: BlobStore
    clock: Clock
    settings: Settings
    logs: FileLogs
    permissions: Permissions
    access: AccessService
    secrets: SecretService
    artifacts: ArtifactService
    jobs: JobService
    tunnels: TunnelService
    alerts: AlertService
    services: DeploymentService
    billing: BillingService
    batches: BatchService
    pool: PoolService
    recovery: RecoveryService
    metrics: PrometheusMetrics


def _model_fit(deps: CloudDeps) -> ModelFit:
    store = deps.store
    return ModelFit(
        blobs=deps.blobs,
        pool=store.pool,
        replicas=store.replicas,
        artifacts=store.artifacts,
        engines=deps.engines,
        installed=deps.installed,
    )


def _job_keys(deps: CloudDeps) -> JobKeys:
    settings = deps.settings
    return JobKeys(
        store=deps.store.access,
        pepper=deps.pepper,
        clock=deps.clock,
        gateway=f"http://{settings.host}:{settings.gateway_port}/v1",
    )


def build_services(deps: CloudDeps) -> Cloud:
    """Build the services of a cloud."""
    store, pepper, clock, wake = deps.store, deps.pepper, deps.clock, deps.wake
    permissions = Permissions(store=store.access, pepper=pepper, clock=clock)
    secrets = SecretService(store=store.access, permissions=permissions, pepper=pepper)
    admission = Admission(workloads=store.workloads, pool=deps.pool)
    artifacts = ArtifactService(
        store=store.artifacts,
        workloads=store.workloads,
        blobs=deps.blobs,
        permissions=permissions,
        clock=clock,
    )
    access = AccessService(
        store=store.access, permissions=permissions, pepper=pepper, clock=clock, wake=wake
    )
    jobs = JobService(
        store=store.workloads,
        permissions=permissions,
        admission=admission,
        artifacts=artifacts,
        secrets=secrets,
        keys=_job_keys(deps),
        clock=clock,
        wake=wake,
    )
    services = DeploymentService(
        store=store.workloads,
        replicas=store.replicas,
        permissions=permissions,
        admission=admission,
        artifacts=artifacts,
        engines=deps.engines,
        models=_model_fit(deps),
        clock=clock,
        wake=wake,
    )
    return Cloud(
        store=store,
        blobs=deps.blobs,
        clock=clock,
        settings=deps.settings,
        logs=deps.logs,
        permissions=permissions,
        access=access,
        secrets=secrets,
        artifacts=artifacts,
        jobs=jobs,
        alerts=AlertService(
            store=store.alerts, permissions=permissions, clock=clock, send=deps.send_alert
        ),
        tunnels=TunnelService(jobs=jobs, clock=clock, fabric=deps.fabric),
        services=services,
        batches=BatchService(artifacts=artifacts, jobs=jobs, blobs=deps.blobs, clock=clock),
        billing=BillingService(store=store.usage, permissions=permissions, clock=clock),
        pool=deps.pool,
        recovery=deps.recovery,
        metrics=deps.metrics,
    )
