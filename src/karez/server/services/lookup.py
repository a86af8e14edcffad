"""Finds the workload that a person means by an id or a name."""

from collections.abc import Sequence
from typing import TypeVar

from karez.core.errors import AmbiguousName, NotFound
from karez.core.identity import Principal
from karez.core.jobs import Job
from karez.core.names import split_name
from karez.core.services import Service
from karez.core.stores.workloads import WorkloadStore
from karez.core.workloads import ENDED
from karez.server.services.permissions import visible_projects

W = TypeVar("W", Job, Service)
MOST = 100
"""Most workloads of one name that are looked through, the newest ones."""


def find_job(store: WorkloadStore, who: Principal, ident: str) -> Job:
    """The job or array of an id; else the live one of a name, or the newest that has ended.

    `PROJECT/NAME` looks in one project.

    Raises:
        NotFound: There is none that the key may see.
        AmbiguousName: Several live jobs have the name, or jobs of several projects.
    """
    projects, name = _scope(who, ident)
    job = store.job(name)
    if job is not None and job.id == name and who.sees(job.spec.project):
        return job
    named = store.jobs(projects=projects, name=name, whole_arrays=True, limit=MOST)
    return _meant("job", ident, named)


def find_service(store: WorkloadStore, who: Principal, ident: str) -> Service:
    """The service of an id or a name, as `find_job`. Raises NotFound, AmbiguousName."""
    projects, name = _scope(who, ident)
    service = store.service(name)
    if service is not None and service.id == name and who.sees(service.spec.project):
        return service
    named = store.services(projects=projects, name=name)
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


def _scope(who: Principal, ident: str) -> tuple[Sequence[str] | None, str]:
    """The projects in which a name is looked for (None: all), and the name."""
    project, name = split_name(ident)
    return (visible_projects(who) if not project else [project] * who.sees(project)), name


def _meant(noun: str, name: str, named: Sequence[W]) -> W:
    if not named:
        raise NotFound(noun=noun, name=name)
    live = [one for one in named if one.state not in ENDED]
    projects = {one.spec.project for one in named}
    if len(live) > 1 or len(projects) > 1:
        several = live if len(live) > 1 else named
        which = ", ".join(
            f"{one.id} ({one.state}{f' in {one.spec.project}' if len(projects) > 1 else ''})"
            for one in several
        )
        raise AmbiguousName(noun=noun, name=name, count=len(several), which=which)
    return (live or named)[0]
