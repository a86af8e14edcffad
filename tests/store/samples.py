"""Sample workloads and grants for the tests of the store."""

from typing import Any

from karez.core.devices import DeviceKind
from karez.core.grants import Grant
from karez.core.jobs import Job, JobSpec
from karez.core.nodes import NodeId
from karez.core.workloads import State, WorkloadId
from karez.store.sql import SqlStore


def job(ident: str, name: str = "j", **more: Any) -> Job:
    spec = JobSpec(name=name, command=("x",))
    return Job(id=WorkloadId(ident), spec=spec, owner="me", created_at=1.0, **more)


def grant(index: int = 0) -> Grant:
    return Grant(node=NodeId("n"), kind=DeviceKind.CPU, devices=((index, 1000),))


def placed(store: SqlStore, ident: str) -> str:
    """A placed job under a lease; the lease's token."""
    store.workloads.add_job(job(ident))
    store.workloads.place(WorkloadId(ident), [grant()], now=2.0)
    (claimed,) = store.workloads.claim([State.PLACED], owner="c1", now=3.0, lease_s=5.0)
    return claimed[1]
