"""An API with two projects, whose keys may do all that a member or an admin of one may."""

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest

from karez.core.identity import Project, Role
from karez.core.settings import Settings
from tests.api import Api, running_api
from tests.fakes import cpu_node


@dataclass
class TwoProjects:
    """Projects `a` and `b` of one cloud."""

    api: Api
    a: str
    """Key of a member of a."""
    a_admin: str
    a_viewer: str
    b: str
    """Key of a member of b."""


@pytest.fixture
def two(tmp_path: Path) -> Iterator[TwoProjects]:
    with running_api(tmp_path, settings=Settings(requests_per_s=0.0, shared_user=True)) as api:
        api.cloud.store.pool.record_nodes([cpu_node("n", 8)], now=1.0)
        for name in ("a", "b"):
            api.cloud.access.add_project(Project(name=name))
        yield TwoProjects(
            api=api,
            a=api.key(Role.MEMBER, "a"),
            a_admin=api.key(Role.ADMIN, "a"),
            a_viewer=api.key(Role.VIEWER, "a"),
            b=api.key(Role.MEMBER, "b"),
        )
