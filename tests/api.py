"""The API of control over real SQLite, without a network, for tests of server, client and CLI."""

from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import httpx2
from fastapi.testclient import TestClient

from karez.core.identity import KeySpec, Role
from karez.core.ports import Fabric
from karez.core.settings import Settings
from karez.drivers.blobs import FsspecBlobs
from karez.drivers.mail import Mail
from karez.drivers.webhooks import Webhooks
from karez.engines.llamacpp import LlamaCpp
from karez.engines.transformers_engine import TransformersEngine
from karez.server.api.app import create_app
from karez.server.controllers.alerts import Alerter
from karez.server.controllers.scheduler import Scheduler
from karez.server.logs import FileLogs
from karez.server.services.cloud import Cloud, CloudDeps, build_services
from karez.server.services.fault_injector import FaultInjector
from karez.server.services.pool_service import PoolService
from karez.server.services.recovery_service import RecoveryService
from karez.store.sql import SqlStore
from karez.vault.keys import Pepper
from karez.vault.signing import CloudKey
from tests.fakes import FakeClock


@dataclass
class Api:
    http: TestClient
    alerter: Alerter
    cloud: Cloud
    admin: str

    def key(self, role: Role, project: str = "default") -> str:
        return self.cloud.access.new_key(KeySpec(name=role.value, project=project, role=role))[1]

    def ask(
        self,
        method: str,
        path: str,
        key: str = "",
        *,
        json: object = None,
        content: bytes | None = None,
        headers: Mapping[str, str] | None = None,
    ) -> httpx2.Response:
        headers = {"authorization": f"Bearer {key or self.admin}", **(headers or {})}
        return self.http.request(
            method, f"/api/v1{path}", headers=headers, json=json, content=content
        )


@contextmanager
def running_api(
    folder: Path, fabric: Fabric | None = None, settings: Settings | None = None
) -> Iterator[Api]:
    store = SqlStore(f"sqlite:///{folder / 'k.db'}")
    clock = FakeClock()
    alerter = Alerter(
        store=store,
        clock=clock,
        webhooks=Webhooks(allowed=("127.0.0.1",)),
        mail=Mail(server="", sender="karez@example.com"),
        secret_of=lambda project, name: f"{project}/{name}",
    )
    deps = CloudDeps(
        store=store,
        blobs=FsspecBlobs(str(folder / "blobs")),
        clock=clock,
        pepper=Pepper(folder / "pepper"),
        settings=settings or Settings(shared_user=True),
        logs=FileLogs(folder / "logs"),
        wake=lambda: None,
        pool=PoolService(
            store=store, clock=clock, scheduler=Scheduler(store, clock), wake=lambda: None
        ),
        engines={one.name: one.capabilities for one in (LlamaCpp, TransformersEngine)},
        installed={LlamaCpp.name},
        fabric=lambda: fabric,
        send_alert=alerter.send,
        recovery=RecoveryService(
            store=store,
            clock=clock,
            public=CloudKey(folder / "receipts.key").public,
            sign_head=CloudKey(folder / "receipts.key").sign_head,
            injector=FaultInjector(clock=clock, fabric=lambda: None, drop=lambda ident: None),
            reported=lambda: None,
        ),
    )
    cloud = build_services(deps)
    admin = cloud.access.first_start()
    app = create_app(cloud)
    app.state.loops_alive = lambda: True
    app.state.failing = lambda: 0
    with TestClient(app) as http:
        yield Api(http=http, cloud=cloud, admin=admin, alerter=alerter)
    store.close()
