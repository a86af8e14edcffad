"""The only place that picks real edges."""

import fcntl
import os
import socket
from collections.abc import Mapping
from dataclasses import dataclass
from importlib.metadata import entry_points
from pathlib import Path

from karez.core import environment
from karez.core.errors import AlreadyRunning, StartFailed
from karez.core.identity import EVERYWHERE, KeySpec, Role
from karez.core.ports import Engine, Fabric
from karez.core.settings import Settings
from karez.drivers.blobs import FsspecBlobs
from karez.drivers.ray_environment import ray_environment
from karez.server.clock import SteadyClock
from karez.server.controllers.manager import ControllerManager, Edges
from karez.server.controllers.node_eviction import NodeEviction
from karez.server.controllers.scheduler import Scheduler
from karez.server.logs import FileLogs, JournalFile
from karez.server.services.cloud import Cloud, first_start
from karez.server.services.fault_injector import FaultInjector
from karez.server.services.pool_service import PoolService
from karez.server.services.recovery_service import RecoveryService
from karez.serving.replica_controller import ServingDeps
from karez.store.sql import SqlStore
from karez.training.controller.controller_deps import ControllerDeps
from karez.vault.keys import Pepper, read_or_make, write_private, write_public
from karez.vault.signing import CloudKey

LOOPBACK = ("127.0.0.1", "localhost", "::1")


@dataclass(frozen=True, slots=True, kw_only=True)
class Home:
    """The files of a cloud's state folder."""

    path: Path

    @classmethod
    def of(cls, settings: Settings) -> "Home":
        """The state folder, made if need be, readable by its owner alone."""
        path = Path(settings.home).expanduser().absolute()
        try:
            (path / "logs").mkdir(mode=0o700, parents=True, exist_ok=True)
            path.chmod(0o700)
        except OSError as error:
            raise StartFailed(
                part="The state folder", detail=f"{path}: {error.strerror}"
            ) from error
        return cls(path=path)

    @property
    def admin_key(self) -> Path:
        """The first admin key."""
        return self.path / "admin.key"

    @property
    def gateway_key(self) -> Path:
        """The key with which the gateway asks control."""
        return self.path / "gateway.key"

    @property
    def node_key(self) -> Path:
        """The key with which nodes ask control; also the join token."""
        return self.path / "node.key"

    @property
    def engine_key(self) -> Path:
        """What the gateway shows to engines."""
        return self.path / "engine.key"

    @property
    def receipts_key(self) -> Path:
        """The key that signs receipts."""
        return self.path / "receipts.key"

    @property
    def receipts_public(self) -> Path:
        """Its public half, to be handed to whoever wants to check."""
        return self.path / "receipts.pub"

    @property
    def ray_token(self) -> Path:
        """Ray's cluster token. Never given to tenants."""
        return self.path / "ray.token"

    @property
    def pepper(self) -> Path:
        """The cloud's own secret."""
        return self.path / "pepper"

    def lock(self, name: str) -> int:
        """Hold a lock file until the process ends. Raises AlreadyRunning."""
        fd = os.open(self.path / f"{name}.lock", os.O_RDWR | os.O_CREAT, 0o600)
        try:
            fcntl.flock(fd, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            pid = int(os.read(fd, 20) or b"0")
            os.close(fd)
            raise AlreadyRunning(home=str(self.path), pid=pid) from None
        os.ftruncate(fd, 0)
        os.write(fd, str(os.getpid()).encode())
        return fd


def node_name(settings: Settings) -> str:
    """What this host is called in the pool."""
    return settings.node or socket.gethostname()


def build_cloud(settings: Settings, home: Home) -> tuple[Cloud, ControllerManager]:
    """Control's services and loops over the real edges."""
    clock = SteadyClock()
    store = SqlStore(settings.database or f"sqlite:///{home.path / 'karez.db'}")
    blobs = FsspecBlobs(settings.blobs or str(home.path / "blobs"))
    journal = JournalFile(home.path / "logs" / "decisions.log")
    scheduler = Scheduler(store, clock, journal.write)
    logs = FileLogs(home.path / "logs" / "workloads")
    wake: list[ControllerManager] = []
    signer, trust, recovery = _recovery(home, store, clock, wake)
    places = PoolService(store=store, clock=clock, scheduler=scheduler, wake=lambda: wake[0].wake())
    cloud = Cloud(
        store=store,
        blobs=blobs,
        clock=clock,
        pepper=Pepper(home.pepper),
        settings=settings,
        logs=logs,
        wake=lambda: wake[0].wake(),
        places=places,
        recovery=recovery,
    )
    engine_key = read_or_make(home.engine_key).hex()

    def connect() -> Edges:
        fabric = _fabric(settings, home, blobs.folder)
        tools = ControllerDeps(
            recipes=recipes(),
            store=store,
            fabric=fabric,
            blobs=blobs,
            clock=clock,
            settings=settings,
            logs=logs,
            find=scheduler.find_grants,
            secrets=cloud.open_secrets,
            sign=signer.sign,
            nodes_to_avoid=trust.nodes_to_avoid,
        )
        serving = ServingDeps(
            store=store,
            fabric=fabric,
            clock=clock,
            settings=settings,
            logs=logs,
            engines=engines(),
            engine_key=engine_key,
        )
        return Edges(fabric=fabric, tools=tools, serving=serving, trust=trust)

    loops = ControllerManager(cloud, connect, f"{node_name(settings)}:{home.path}", scheduler)
    wake.append(loops)
    _first_keys(cloud, home)
    return cloud, loops


def ray_env(settings: Settings, home: Home) -> dict[str, str]:
    """The environment of every Ray process on this host."""
    env = ray_environment(home.ray_token, loopback=settings.host in LOOPBACK)
    return {**env, environment.NODE_HOME: str(home.path / "node")}


def joined_ray_env(token: Path) -> dict[str, str]:
    """The environment of the Ray processes of a host that joined."""
    return ray_environment(token, loopback=False)


def engines() -> Mapping[str, Engine]:
    """The engine plug-ins that are installed, by name."""
    found = entry_points(group="karez.engines")
    return {point.name: point.load()() for point in found}


def recipes() -> Mapping[str, str]:
    """The recipes that are installed: name -> `module:function`."""
    return {point.name: point.value for point in entry_points(group="karez.recipes")}


def _preload() -> str:
    """The module that fork servers import before they fork ranks."""
    return next((point.value for point in entry_points(group="karez.preload")), "")


def _fabric(settings: Settings, home: Home, blobs_folder: str) -> Fabric:
    # Ray reads these when it is imported
    os.environ.update(ray_env(settings, home))  # noqa: TID251 - Ray's only way in
    from karez.drivers.ray_fabric import RayEdge, RayFabric  # noqa: PLC0415 - 0.3 s, not at start
    from karez.drivers.steward.config import StewardConfig  # noqa: PLC0415 - as above
    from karez.drivers.steward.staging import BlobSource  # noqa: PLC0415 - as above

    source = BlobSource(
        folder=blobs_folder,
        url=f"http://{settings.host}:{settings.port}/api/v1",
        key=home.node_key.read_text(),
    )
    steward = StewardConfig(
        node="",
        address="",
        home=str(home.path / "node"),
        token=read_or_make(home.engine_key).hex(),
        blobs=source,
        preload=_preload() if settings.preload else "",
        cpus=settings.cpus,
        fence_s=settings.fence_s,
    )
    address = settings.ray_address or f"{settings.host}:{settings.ray_port}"
    return RayFabric(
        RayEdge(
            address=address,
            steward=steward,
            silence_s=settings.node_silence_s,
            heartbeat_s=settings.heartbeat_s,
        )
    )


def _recovery(
    home: Home, store: SqlStore, clock: SteadyClock, loops: list[ControllerManager]
) -> tuple[CloudKey, NodeEviction, RecoveryService]:
    """Who signs receipts, who judges nodes, and who answers for both."""
    signer = CloudKey(home.receipts_key)
    write_public(home.receipts_public, signer.public.hex())
    trust = NodeEviction(store=store, clock=clock)
    injector = FaultInjector(
        clock=clock,
        fabric=lambda: loops[0].fabric,
        drop=lambda ident: loops[0].drop_controller(ident),
    )
    recovery = RecoveryService(
        store=store,
        clock=clock,
        public=signer.public,
        injector=injector,
        reported=lambda: trust.evaluate(()),
    )
    return signer, trust, recovery


def _first_keys(cloud: Cloud, home: Home) -> None:
    admin = first_start(cloud)
    if admin:
        write_private(home.admin_key, admin)
    for path, role in ((home.gateway_key, Role.GATEWAY), (home.node_key, Role.NODE)):
        if not path.exists():
            spec = KeySpec(name=role.value, project=EVERYWHERE, role=role)
            write_private(path, cloud.new_key(spec)[1])
