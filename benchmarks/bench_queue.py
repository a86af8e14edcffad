"""2,000 queued jobs: CPU time of a submit, of a listing and of a scheduler pass.

Claims: submit < 20 ms CPU in control, `jobs list` < 0.3 s, scheduler pass < 100 ms.
There is no peer to compare with: the figures are CPU time of one process.
"""

import gc
import tempfile
import time
from pathlib import Path
from statistics import median

from fastapi.testclient import TestClient
from report import report

from karez.core.devices import Device, DeviceKind
from karez.core.jobs import Job, JobSpec
from karez.core.nodes import Node, NodeId
from karez.core.settings import Settings
from karez.core.workloads import WorkloadId
from karez.drivers.blobs import FsspecBlobs
from karez.server.api.app import create_app
from karez.server.clock import SteadyClock
from karez.server.controllers.scheduler import Scheduler
from karez.server.logs import FileLogs
from karez.server.services.cloud import CloudDeps, build_services
from karez.server.services.fault_injector import FaultInjector
from karez.server.services.pool_service import PoolService
from karez.server.services.recovery_service import RecoveryService
from karez.store.sql import SqlStore
from karez.vault.keys import Pepper
from karez.vault.signing import CloudKey

JOBS = 2000


def main() -> None:
    """Fill a queue, and measure submits, listings and scheduler passes."""
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        store = SqlStore(f"sqlite:///{folder / 'k.db'}")
        clock = SteadyClock()
        api_scheduler = Scheduler(store, clock)
        deps = CloudDeps(
            store=store,
            blobs=FsspecBlobs(str(folder / "b")),
            clock=clock,
            pepper=Pepper(folder / "pepper"),
            settings=Settings(requests_per_s=0.0),
            logs=FileLogs(folder / "logs"),
            wake=lambda: None,
            pool=PoolService(store=store, clock=clock, scheduler=api_scheduler, wake=lambda: None),
            recovery=RecoveryService(
                store=store,
                clock=clock,
                public=CloudKey(folder / "receipts.key").public,
                sign_head=CloudKey(folder / "receipts.key").sign_head,
                injector=FaultInjector(clock=clock, fabric=lambda: None, drop=lambda _: None),
                reported=lambda: None,
            ),
            engines={},
            installed=(),
            fabric=lambda: None,
            send_alert=lambda *_: None,
        )
        cloud = build_services(deps)
        headers = {"authorization": f"Bearer {cloud.access.first_start()}"}
        app = create_app(cloud)
        app.state.loops_alive = lambda: True
        app.state.failing = lambda: 0
        # no worker fits: everything waits, which is the costly case
        devices = tuple(Device(kind=DeviceKind.NPU, index=index, milli=1) for index in range(8))
        nodes = [Node(id=NodeId(f"n{n}"), address="", devices=devices) for n in range(100)]
        store.pool.record_nodes(nodes, now=clock.now())
        with TestClient(app) as http:
            submits = []
            for number in range(JOBS):
                body = {"name": f"j{number}", "command": ["true"], "gang": {"want": 1 + number % 8}}
                before = time.process_time()
                http.post("/api/v1/jobs", json=body, headers=headers).raise_for_status()
                submits.append(time.process_time() - before)
            lists = []
            for _ in range(9):
                before = time.process_time()
                shown = http.get("/api/v1/jobs?limit=2000", headers=headers).json()
                lists.append(time.process_time() - before)
                assert len(shown) == JOBS
        gc.collect()
        gc.freeze()  # as control does; garbage of the client in this process does not count
        scheduler = Scheduler(store, clock)
        passes = []
        for number in range(9):
            if number:
                spec = JobSpec(name=f"more{number}", command=("true",))
                store.workloads.add_job(
                    Job(
                        id=WorkloadId(f"more-{number}"),
                        spec=spec,
                        owner="me",
                        created_at=clock.now(),
                    )
                )
            before = time.process_time()
            scheduler.tick()
            passes.append(time.process_time() - before)
        store.close()
    report(
        "queue of 2,000",
        [
            {"what": "submit, client and control", "median_ms": ms(submits), "bar_ms": 20},
            {"what": "list 2,000, client and control", "median_ms": ms(lists), "bar_ms": 300},
            {"what": "first scheduler pass", "median_ms": ms(passes[:1]), "bar_ms": 100},
            {"what": "later scheduler passes", "median_ms": ms(passes[1:]), "bar_ms": 100},
        ],
    )


def ms(seconds: list[float]) -> float:
    """Median of seconds, in milliseconds."""
    return round(median(seconds) * 1000, 2)


if __name__ == "__main__":
    main()
