"""Finds the workload that a person means by an id or a name."""

from collections.abc import Sequence
from typing import TypeVar

from karez.core.errors import AmbiguousName, NotFound
from karez.core.identity import Principal
from karez.core.jobs import Job
from karez.core.services import Service
from karez.core.stores.workloads import WorkloadStore
from karez.core.workloads import ENDED
from karez.server.services.permissions import visible_projects

W = TypeVar("W", Job, Service)
MOST = 100
"""Most workloads of one name that are looked through, the newest ones."""


def find_job(store: WorkloadStore, who: Principal, ident: str) -> Job:
    """The job or array of an id; else the live one of that name, or the newest that has ended.

    Raises:
        NotFound: There is none that the key may see.
        AmbiguousName: Several live jobs have the name.
    """
    job = store.job(ident)
    if job is not None and job.id == ident and who.sees(job.spec.project):
        return job
    named = store.jobs(projects=visible_projects(who), name=ident, whole_arrays=True, limit=MOST)
    return _meant("job", ident, named)


def find_service(store: WorkloadStore, who: Principal, ident: str) -> Service:
    """The service of an id or a name, as `find_job`. Raises NotFound, AmbiguousName."""
    service = store.service(ident)
    if service is not None and service.id == ident and who.sees(service.spec.project):
        return service
    named = store.services(projects=visible_projects(who), name=ident)
    return _meant("service", ident, named)


def find_workload(store: WorkloadStore, who: Principal, ident: str) -> Job | Service:
    """The job, else the service. Raises NotFound, AmbiguousName."""
    try:
        return find_job(store, who, ident)
    except NotFound as error:
        try:
            return find_service(store, who, ident)
        except NotFound:
            raise error from None


def _meant(noun: str, name: str, named: Sequence[W]) -> W:
    live = [one for one in named if one.state not in ENDED]
    if len(live) > 1:
        which = ", ".join(f"{one.id} ({one.state})" for one in live)
        raise AmbiguousName(noun=noun, name=name, count=len(live), which=which)
    if not named:
        raise NotFound(noun=noun, name=name)
    return (live or named)[0]
