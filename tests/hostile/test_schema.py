"""Requests that Schemathesis makes from the API's own description, by keys of every role."""

import os
from collections.abc import Iterator
from pathlib import Path
from typing import Any, cast

import pytest
import schemathesis
from httpx2 import InvalidURL
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from karez.core.identity import EVERYWHERE, Project, Role
from karez.core.settings import Settings
from tests.api import Api, running_api
from tests.fakes import cpu_node

MANY = int(os.environ.get("KAREZ_TEST_EXAMPLES", "100"))
"""Requests to each route, in `make deep`."""


@pytest.fixture
def api(tmp_path: Path) -> Iterator[Api]:
    with running_api(tmp_path, settings=Settings(requests_per_s=0.0, shared_user=True)) as made:
        made.cloud.store.pool.record_nodes([cpu_node("n", 8)], now=1.0)
        made.cloud.access.add_project(Project(name="b"))
        yield made


def keys_of(api: Api) -> list[str]:
    """A key of each role in one project and in all, and two that are none."""
    parts = [role for role in Role if role not in (Role.VIEWER, Role.MEMBER, Role.ADMIN)]
    people = [Role.VIEWER, Role.MEMBER, Role.ADMIN]
    return [
        *(api.key(role, project) for role in people for project in ("default", EVERYWHERE)),
        *(api.key(role, EVERYWHERE) for role in parts),
        "none",
        "kz_000000000000_" + "x" * 32,
    ]


def ask_all(api: Api, examples: int) -> dict[int, int]:
    """Send requests to every route; returns how often each status came."""
    schema = schemathesis.openapi.from_dict(api.ask("GET", "/openapi.json").json())
    keys, statuses, routes = keys_of(api), dict[int, int](), 0
    for found in schema.get_all_operations():
        operation: Any = cast("Any", found).ok()
        routes += 1

        @settings(
            max_examples=examples,
            deadline=None,
            derandomize=True,
            database=None,
            suppress_health_check=list(HealthCheck),
        )
        @given(case=operation.as_strategy(), key=st.sampled_from(keys))
        def ask(case: Any, key: str) -> None:
            words = case.as_transport_kwargs(base_url="http://testserver")
            words["headers"] = {**words["headers"], "authorization": f"Bearer {key}"}
            words.pop("cookies", None)
            try:
                request = api.http.build_request(**words)
            except (UnicodeError, ValueError, TypeError, InvalidURL):
                return  # no client could send it
            answer = api.http.send(request)
            statuses[answer.status_code] = statuses.get(answer.status_code, 0) + 1
            assert answer.status_code < 500, (case.method, case.path, answer.text)

        ask()
    assert routes > 70
    assert sum(statuses.values()) > routes * examples / 2
    return statuses


@pytest.mark.story
def test_every_route_answers_what_its_description_allows(api: Api) -> None:
    statuses = ask_all(api, 3)
    assert statuses[200] > 0
    assert statuses[403] > 0


@pytest.mark.deep
def test_no_request_of_any_role_makes_the_api_fail(api: Api) -> None:
    ask_all(api, MANY)
