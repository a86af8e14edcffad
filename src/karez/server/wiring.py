"""The composition root: the only module that chooses real edges."""

import os
import socket
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from pathlib import Path

from karez.core import environment
from karez.core.artifacts import Artifact
from karez.core.devices import parse_emulated
from karez.core.errors import BadRequest
from karez.core.identity import EVERYWHERE, KeySpec, Role
from karez.core.ports import Blobs, Fabric
from karez.core.settings import Settings
from karez.core.traces import JobTracer, NoTracer, Trace
from karez.core.workloads import WorkloadId
from karez.drivers.blobs import FsspecBlobs
from karez.drivers.linux import allow_many_files
from karez.drivers.mail import Mail
from karez.drivers.probes import ascend_devices
from karez.drivers.ray_environment import ray_environment
from karez.drivers.webhooks import Webhooks
from karez.node_events.hub import NodeEventHub
from karez.server.backups.backup import Source
from karez.server.backups.folder import BackupFolder
from karez.server.backups.restore import Target
from karez.server.clock import SteadyClock
from karez.server.controllers.alerts import Alerter
from karez.server.controllers.control_context import Edges
from karez.server.controllers.manager import ControllerManager
from karez.server.controllers.node_eviction import NodeEviction
from karez.server.controllers.scheduler import Scheduler
from karez.server.home import Home
from karez.server.logs import DecisionLogFile, FileLogs
from karez.server.plugins import engines, installed_engines, preload, recipes
from karez.server.services.access import AccessService
from karez.server.services.cloud import Cloud, CloudDeps, build_services
from karez.server.services.fault_injector import FaultInjector
from karez.server.services.permissions import Permissions
from karez.server.services.pool_service import PoolService
from karez.server.services.recovery_service import RecoveryService, read_trace
from karez.serving.readiness import ask_engine
from karez.serving.replica_processes import ServingDeps
from karez.serving.service_loads import ServiceLoads
from karez.store.dump import SqlDump
from karez.store.sql import SqlStore
from karez.training.controller.controller_deps import ControllerDeps
from karez.training.controller.transfers import Transfers
from karez.vault.keys import Pepper, derived, read_or_make, write_private, write_public
from karez.vault.signing import CloudKey

TRANSFERS = 16
"""Transfers between nodes and the blob store that run at once."""
LOOPBACK = ("127.0.0.1", "localhost", "::1")


def raise_limits() -> None:
    """Let this process, and those that it starts, have as many open files as they may."""
    allow_many_files()


def node_name(settings: Settings) -> str:
    """The name of this host in the pool."""
    return settings.node or socket.gethostname()


def build_cloud(settings: Settings, home: Home) -> tuple[Cloud, ControllerManager]:
    """Build control's services and controllers over the real edges."""
    edges = _ControlEdges.open(settings, home)
    cloud = edges.services()
    owner = f"{node_name(settings)}:{home.path}"
    manager = ControllerManager(
        cloud, lambda: edges.connect(cloud), owner, edges.scheduler, edges.alerter
    )
    edges.late.manager = manager
    _make_first_keys(cloud.access, home)
    return cloud, manager


def backup_source(
    settings: Settings, home: Home, *, with_database: bool, with_blobs: bool
) -> Source:
    """What a backup of this cloud reads; the cloud may run."""
    return Source(
        home=home.path,
        database=SqlDump(_database_url(settings, home.path)) if with_database else None,
        blobs=FsspecBlobs(_blobs_url(settings, home.path)) if with_blobs else None,
    )


def artifacts_of(settings: Settings, home: Home) -> Sequence[Artifact]:
    """All artifacts of the cloud with this state folder."""
    if not settings.database and not (home.path / "karez.db").exists():
        return ()
    store = SqlStore(_database_url(settings, home.path))
    try:
        return store.artifacts.list(projects=None)
    finally:
        store.close()


def blobs_of(settings: Settings, home: Home) -> Blobs:
    """The blob store of the cloud with this state folder."""
    return FsspecBlobs(_blobs_url(settings, home.path))


def backup_folder(path: Path) -> BackupFolder:
    """The folder of snapshots at a path; nothing is made yet."""
    return BackupFolder(path, lambda folder: FsspecBlobs(str(folder)))


def restore_target(settings: Settings, home: Path) -> Target:
    """Where a restored cloud with these settings goes; the folder becomes its state folder."""
    return Target(
        home=home,
        open_database=lambda path: SqlDump(_database_url(settings, path)),
        open_blobs=lambda path: FsspecBlobs(_blobs_url(settings, path)),
    )


def _database_url(settings: Settings, home: Path) -> str:
    return settings.database or f"sqlite:///{home / 'karez.db'}"


def _blobs_url(settings: Settings, home: Path) -> str:
    return settings.blobs or str(home / "blobs")


def ray_env(settings: Settings, home: Home) -> dict[str, str]:
    """The environment of every Ray process on this host."""
    env = ray_environment(home.ray_token, loopback=settings.host in LOOPBACK)
    return {**env, environment.NODE_HOME: str(home.path / "node")}


def refuse_emulation_beside_real_devices(emulate: str) -> None:
    """Check that this host has no real device of the kind that it is to emulate.

    Raises:
        BadRequest: It has, or `emulate` cannot be read.
    """
    try:
        count = parse_emulated(emulate)
    except ValueError as error:
        raise BadRequest(problem=str(error), fix="For example --emulate npu=4.") from error
    real = ascend_devices() if count else ()
    if real:
        problem = f"this host has {len(real)} real NPUs; it cannot emulate others beside them"
        raise BadRequest(problem=problem, fix="Leave out --emulate.")


def joined_ray_env(token: Path) -> dict[str, str]:
    """The environment of the Ray processes of a host that joined."""
    return ray_environment(token, loopback=False)


def _alerter(settings: Settings, home: Home, store: SqlStore, clock: SteadyClock) -> Alerter:
    pepper = Pepper(home.pepper)

    def secret_of(project: str, name: str) -> str:
        sealed = store.access.secrets(project).get(name)
        return "" if sealed is None else pepper.open(f"{project}/{name}", sealed)

    hosts = [host.strip() for host in settings.alert_hosts.split(",") if host.strip()]
    return Alerter(
        store=store,
        clock=clock,
        webhooks=Webhooks(allowed=hosts),
        mail=Mail(server=settings.smtp, sender=settings.mail_from),
        secret_of=secret_of,
    )


@dataclass(slots=True)
class _LateManager:
    """The controller manager, which is built after the services that call it."""

    manager: ControllerManager | None = None

    def wake(self) -> None:
        if self.manager is not None:
            self.manager.wake()

    def fabric(self) -> Fabric | None:
        return None if self.manager is None else self.manager.fabric

    def drop_controller(self, ident: WorkloadId) -> None:
        if self.manager is not None:
            self.manager.drop_controller(ident)


@dataclass(frozen=True, slots=True, kw_only=True)
class _ControlEdges:
    """The real edges of one control process."""

    settings: Settings
    home: Home
    clock: SteadyClock
    store: SqlStore
    blobs: FsspecBlobs
    logs: FileLogs
    scheduler: Scheduler
    signer: CloudKey
    eviction: NodeEviction
    alerter: Alerter
    late: _LateManager = field(default_factory=_LateManager)

    @classmethod
    def open(cls, settings: Settings, home: Home) -> "_ControlEdges":
        clock = SteadyClock()
        store = SqlStore(_database_url(settings, home.path))
        decisions = DecisionLogFile(home.path / "logs" / "decisions.log")
        signer = CloudKey(home.receipts_key)
        write_public(home.receipts_public, signer.public.hex())
        return cls(
            settings=settings,
            home=home,
            clock=clock,
            store=store,
            blobs=FsspecBlobs(_blobs_url(settings, home.path)),
            logs=FileLogs(home.path / "logs" / "workloads", keep_bytes=settings.log_bytes),
            scheduler=Scheduler(store, clock, decisions.write),
            signer=signer,
            eviction=NodeEviction(store=store, clock=clock),
            alerter=_alerter(settings, home, store, clock),
        )

    def services(self) -> Cloud:
        """Build the services that routes call."""
        store, clock, late = self.store, self.clock, self.late
        return build_services(
            CloudDeps(
                store=store,
                blobs=self.blobs,
                clock=clock,
                pepper=Pepper(self.home.pepper),
                settings=self.settings,
                logs=self.logs,
                wake=late.wake,
                pool=PoolService(
                    store=store,
                    clock=clock,
                    scheduler=self.scheduler,
                    wake=late.wake,
                    loads=ServiceLoads(processes=self.settings.gateway_processes),
                ),
                recovery=self._recovery(),
                fabric=late.fabric,
                send_alert=self.alerter.send,
                engines={name: engine.capabilities for name, engine in engines().items()},
                installed=installed_engines(),
            )
        )

    def connect(self, cloud: Cloud) -> Edges:
        """Connect to the nodes, and build what the controllers need."""
        fabric = _ray_fabric(self.settings, self.home, self.blobs.folder)
        hub = NodeEventHub(fabric=fabric, clock=self.clock)
        training = ControllerDeps(
            recipes=recipes(),
            store=self.store,
            fabric=fabric,
            hub=hub,
            transfers=Transfers(executor=ThreadPoolExecutor(TRANSFERS, "transfer")),
            blobs=self.blobs,
            clock=self.clock,
            settings=self.settings,
            logs=self.logs,
            find=self.scheduler.find_grants,
            secrets=cloud.secrets.open,
            model_access=cloud.jobs.keys.variables,
            sign=self.signer.sign,
            nodes_to_avoid=self.eviction.nodes_to_avoid,
            tracer=self._tracer(),
            metrics=cloud.metrics,
        )
        return Edges(
            fabric=fabric,
            deps=training,
            serving=self._serving(fabric, hub, cloud),
            eviction=self.eviction,
            uploads=self.blobs,
        )

    def _tracer(self) -> JobTracer:
        if not self.settings.otlp_endpoint:
            return NoTracer()
        from karez.server.otlp import OtlpTracer  # noqa: PLC0415 - an extra

        def read(ident: str) -> Trace | None:
            job = self.store.workloads.job(ident)
            return None if job is None else read_trace(self.store, job, self.clock.now())

        tracer = OtlpTracer.to(self.settings.otlp_endpoint, read)
        tracer.start()
        return tracer

    def _serving(self, fabric: Fabric, hub: NodeEventHub, cloud: Cloud) -> ServingDeps:
        return ServingDeps(
            store=self.store,
            fabric=fabric,
            hub=hub,
            ask=ask_engine,
            loads=cloud.pool.loads,
            wake=self.late.wake,
            clock=self.clock,
            settings=self.settings,
            logs=self.logs,
            engines=engines(),
            engine_key=read_or_make(self.home.engine_key).hex(),
        )

    def _recovery(self) -> RecoveryService:
        injector = FaultInjector(
            clock=self.clock, fabric=self.late.fabric, drop=self.late.drop_controller
        )
        return RecoveryService(
            store=self.store,
            clock=self.clock,
            public=self.signer.public,
            sign_head=self.signer.sign_head,
            injector=injector,
            reported=lambda: self.eviction.evaluate(()),
        )


def _ray_fabric(settings: Settings, home: Home, blobs_folder: str) -> Fabric:
    # Ray reads these when it is imported
    os.environ.update(ray_env(settings, home))  # noqa: TID251 - Ray's only way in
    from karez.drivers.ray_fabric import RayFabric  # noqa: PLC0415 - Ray takes 0.3 s
    from karez.drivers.ray_stewards import RayEdge  # noqa: PLC0415 - comes with Ray
    from karez.drivers.steward.config import StewardConfig  # noqa: PLC0415 - comes with Ray
    from karez.drivers.steward.staging import BlobSource  # noqa: PLC0415 - comes with Ray

    source = BlobSource(
        folder=blobs_folder,
        url=f"http://{settings.host}:{settings.port}/api/v1",
        key=home.node_key.read_text(),
    )
    steward = StewardConfig(
        node="",
        address="",
        home=str(home.path / "node"),
        token=derived(read_or_make(home.engine_key), "nodes"),
        blobs=source,
        preload=preload() if settings.preload else "",
        cpus=settings.cpus,
        npus=parse_emulated(settings.emulate),
        fence_s=settings.fence_s,
        log_bytes=settings.log_bytes,
        shared_user=settings.shared_user,
        most_processes=settings.most_processes,
        bind_paths=settings.bind_paths,
        first_user=settings.first_user,
    )
    return RayFabric(
        RayEdge(
            address=settings.ray_address or f"{settings.host}:{settings.ray_port}",
            steward=steward,
            silence_s=settings.node_silence_s,
            heartbeat_s=settings.heartbeat_s,
        )
    )


def reset_admin(settings: Settings, home: Home) -> Path:
    """Make a key of an admin of all projects, for whoever may write the state folder.

    Returns the file that it is in.
    """
    store, pepper = SqlStore(_database_url(settings, home.path)), Pepper(home.pepper)
    clock = SteadyClock()
    try:
        access = AccessService(
            store=store.access,
            permissions=Permissions(store=store.access, pepper=pepper, clock=clock),
            pepper=pepper,
            clock=clock,
            wake=lambda: None,
        )
        write_private(home.admin_key, access.reset_admin())
    finally:
        store.close()
    return home.admin_key


def _make_first_keys(access: AccessService, home: Home) -> None:
    admin = access.first_start()
    if admin:
        write_private(home.admin_key, admin)
    for path, role in ((home.gateway_key, Role.GATEWAY), (home.node_key, Role.NODE)):
        if not path.exists():
            spec = KeySpec(name=role.value, project=EVERYWHERE, role=role)
            write_private(path, access.new_key(spec)[1])
