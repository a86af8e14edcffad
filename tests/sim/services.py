"""Services on a cloud of models: their gateway, their processes, and their updates."""

from dataclasses import replace
from typing import Any

from karez.core.routing import GatewayLoad, ReplicaLoad, ServiceLoad
from karez.core.workloads import Progress
from karez.serving.rollout import UPDATING
from tests.sim.fake_cloud import FakeCloud
from tests.sim.fake_nodes import FakeProcess


class Gateway:
    """Reports the requests of one service once a second, as the gateway does."""

    def __init__(self, cloud: FakeCloud, service: str) -> None:
        self.cloud, self.service = cloud, service
        self.inflight = self.begun = self.late = 0
        self.kept: dict[str, int] = {}
        """URL of a replica -> requests that it still has."""
        self.counts: dict[str, dict[str, Any]] = {}

    def run(self, seconds: int) -> None:
        for _ in range(seconds):
            urls = self.urls()
            load = ServiceLoad(
                service=self.service,
                project="default",
                inflight=self.inflight,
                slots=4 * len(urls),
                begun=self.begun,
                late=self.late,
            )
            known = {**dict.fromkeys(urls, 0), **self.kept}
            replicas = tuple(
                ReplicaLoad(url=url, inflight=n, **self.counts.get(url, {}))
                for url, n in known.items()
            )
            self.cloud.loads.record(
                GatewayLoad(services=(load,), replicas=replicas), self.cloud.timeline.now()
            )
            self.cloud.manager.wake()
            self.cloud.run(1.0)

    def urls(self) -> list[str]:
        ranks = self.cloud.service(self.service).status.ranks
        return [view.url for view in ranks if view.state == "ready"]


def processes(cloud: FakeCloud, service: str) -> list[FakeProcess]:
    every = [one for node in cloud.fabric.all.values() for one in node.processes.values()]
    return [one for one in every if one.is_alive and one.spec.workload.startswith(service)]


def numbers(cloud: FakeCloud, service: str) -> list[tuple[int, str]]:
    return [(view.rank, view.state) for view in cloud.service(service).status.ranks]


def update(cloud: FakeCloud, name: str, **changes: Any) -> None:
    """As the API does it."""
    service = cloud.service(name)
    spec = replace(service.spec, **changes)
    is_other = not spec.runs_as(service.spec)
    doing = Progress(what=UPDATING, of=max(1, len(service.status.ranks)))
    status = replace(service.status, notices=(), progress=doing) if is_other else service.status
    at = cloud.timeline.now() if is_other else None
    assert cloud.store.replicas.set_spec(service, spec, status, at=at)
    cloud.manager.wake()


def crash_after(cloud: FakeCloud, service: str, least: int, seconds: float) -> None:
    """Processes of replicas from a number on end a while after they have begun."""
    begin = cloud.fabric.begin

    def crash(process: FakeProcess) -> None:
        begin(process)
        ident = process.spec.workload
        if ident.startswith(service) and int(ident.rpartition("_")[2]) >= least:
            cloud.timeline.after(seconds, lambda: cloud.fabric.end(process, 139))

    cloud.fabric.begin = crash
