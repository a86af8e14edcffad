"""Jobs in a store, and controllers that take them, for tests of the scheduler."""

from karez.core.gangs import GangSpec
from karez.core.jobs import Job, JobSpec
from karez.core.resource_requests import ResourceRequest
from karez.core.workloads import State, WorkloadId
from karez.store.sql import SqlStore

HOUR_S = 3600.0


def submit(store: SqlStore, name: str, cores: int, at: float, **more: object) -> None:
    spec = JobSpec(
        name=name,
        command=("true",),
        gang=GangSpec(each=(ResourceRequest(milli=1000 * cores),)),
        **more,  # type: ignore[arg-type]
    )
    store.workloads.add_job(Job(id=WorkloadId(name), spec=spec, owner="me", created_at=at))


def state(store: SqlStore, name: str) -> State:
    found = store.workloads.job(name)
    assert found is not None
    return found.state


def run(store: SqlStore, name: str, at: float) -> str:
    """A controller takes it and it runs; the token of its lease."""
    tokens = dict(store.workloads.claim([State.PLACED], owner="c", now=at, lease_s=1e9))
    token = tokens[WorkloadId(name)]
    assert store.workloads.update(WorkloadId(name), token=token, state=State.RUNNING, at=at)
    return token
