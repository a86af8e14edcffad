"""What is accepted can be read again, and nothing that is sent makes the API fail (C2, low)."""

import hashlib
import itertools

import pytest

from karez.core.identity import Project, ProjectLimits
from karez.core.plain_json import problem_with_json
from karez.server.api.app import ROUTERS
from karez.server.api.authorization import roles
from karez.server.controllers.scheduler import Scheduler
from tests.fakes import FakeClock
from tests.hostile.conftest import TwoProjects
from tests.hostile.requests import EXAMPLES, mutated

NONE_OF_THESE = {
    "POST /gateway/calls",
    "POST /gateway/load",
    "POST /jobs/{job}/harm",
    "POST /node/join",
    "POST /pool/defragment",
    "POST /pool/regroup",
}
"""Routes of the cloud's own parts, old names, and those without a body."""


def test_every_request_with_a_body_has_an_example() -> None:
    with_body = {
        route
        for router in ROUTERS
        for route in roles([router])
        for made in router.routes
        if getattr(made, "body_field", None) and made.path == route.partition(" ")[2]
        if route.partition(" ")[0] in made.methods
    }
    described = {
        example.replace("/default/r", "/{project}/{name}")
        .replace("default/secrets/S", "{project}/secrets/{name}")
        .replace("projects/default", "projects/{name}")
        .replace("nodes/n", "nodes/{node}")
        .replace("keys/k", "keys/{key}")
        .replace("device-prices/npu", "device-prices/{device}")
        .replace("prices/m", "prices/{model}")
        .replace("services/s", "services/{service}")
        .replace("victim", "{job}")
        .replace("tunnels/t/", "tunnels/{tunnel}/")
        for example in EXAMPLES
    }
    old = {"PUT /pool/nodes/{node}/mark"}
    assert with_body - old - NONE_OF_THESE == described


@pytest.mark.story
@pytest.mark.parametrize("route", sorted(EXAMPLES))
def test_hardly_a_value_makes_the_api_fail(two: TwoProjects, route: str) -> None:
    send_all(two, route, every=11)


@pytest.mark.deep
@pytest.mark.parametrize("route", sorted(EXAMPLES))
def test_no_value_makes_the_api_fail_or_stops_others(two: TwoProjects, route: str) -> None:
    send_all(two, route, every=1)


def send_all(two: TwoProjects, route: str, *, every: int) -> None:
    api = two.api
    method, path = route.split()
    victim = api.ask("POST", "/jobs", json={"name": "victim", "command": ["true"]}).json()["id"]
    for place, text in itertools.islice(mutated(EXAMPLES[route]), 0, None, every):
        answer = api.ask(
            method,
            path.replace("victim", victim),
            content=text.encode(errors="surrogatepass"),
            headers={"content-type": "application/json"},
        )
        assert answer.status_code < 500, (place, text[:80], answer.text)
    for asked in ("/jobs", "/services", "/artifacts", "/keys", "/projects", "/pool", "/audit"):
        assert api.ask("GET", asked).status_code == 200
    assert api.ask("GET", "/alerts?project=default").status_code == 200
    assert [job for job in api.ask("GET", "/jobs").json() if job["unreadable"]] == []
    Scheduler(api.cloud.store, FakeClock()).tick()
    assert api.ask("POST", f"/jobs/{victim}/cancel").status_code == 200


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ('{"x": NaN}', "not finite"),
        ('{"x": [1e999]}', "not finite"),
        ('{"x": 9007199254740992}', "beyond"),
        ('{"x": "\\u0000"}', "NUL"),
        ('{"\\u0000": 1}', "NUL"),
        ('"\\ud800"', "surrogate"),
        ("[" * 40 + "]" * 40, "nested"),
        ("[" * 100_000, "nested"),
        ("{", ""),
        ('{"x": [1, -2.5, "é", null, true]}', ""),
    ],
)
def test_json_that_not_all_can_keep_is_refused(text: str, said: str) -> None:
    problem = problem_with_json(text.encode())
    assert said in problem
    assert bool(said) == bool(problem)


@pytest.mark.parametrize(
    "path",
    [
        f"/jobs/J/metrics?after={10**20}",
        f"/jobs/J/logs/x?offset={2**63 - 1}",
        f"/faults?since={'9' * 400}",
        "/faults?since=nan",
        "/jobs?limit=-1",
        f"/blobs/{'x' * 64}/exists",
        "/blobs/../exists",
        "/artifacts/a%00b",
        "/jobs/%ff%fe",
        "/pool/why/%1b[2J",
        "/projects/%00/secrets",
        "/services/x/logs/..%2f..%2fkey",
    ],
)
def test_no_question_makes_the_api_fail(two: TwoProjects, path: str) -> None:
    ident = two.api.ask("POST", "/jobs", json={"name": "j", "command": ["true"]}).json()["id"]
    assert 400 <= two.api.ask("GET", path.replace("J", ident)).status_code < 500


def test_a_specification_has_a_size(two: TwoProjects) -> None:
    job = {"name": "j", "project": "a", "command": ["true"]}
    for more in ({"env": {"A": "x" * (17 << 20)}}, {"command": ["x" * 140_000]}):
        answer = two.api.ask("POST", "/jobs", two.a, json={**job, **more})
        assert answer.status_code in (413, 422)
        assert "bytes" in answer.json()["title"]
    fits = {**job, "env": {"A": "x" * 100_000}}
    assert two.api.ask("POST", "/jobs", two.a, json=fits).status_code == 201


def test_a_key_of_a_request_is_not_for_another_request(two: TwoProjects) -> None:
    once = {"idempotency-key": "k"}
    job = {"name": "one", "project": "a", "command": ["true"], "env": {"API_KEY": "x"}}
    first = two.api.ask("POST", "/jobs", two.a, json=job, headers=once)
    again = two.api.ask("POST", "/jobs", two.a, json=job, headers=once)
    assert first.json()["id"] == again.json()["id"]
    assert first.json()["spec"]["env"] == again.json()["spec"]["env"] == {"API_KEY": "***"}
    other = two.api.ask("POST", "/jobs", two.a, json={**job, "name": "two"}, headers=once)
    assert other.status_code == 409


def test_limits_of_a_project(two: TwoProjects) -> None:
    api, job = two.api, {"name": "j", "project": "a", "command": ["true"]}
    api.cloud.access.set_quota(Project(name="a", limits=ProjectLimits(priority=3, queued=2)))
    assert api.ask("POST", "/jobs", two.a, json={**job, "priority": 4}).status_code == 409
    assert api.ask("POST", "/jobs", two.a_admin, json={**job, "priority": 4}).status_code == 409
    assert api.ask("POST", "/jobs", two.a, json={**job, "priority": 3}).status_code == 201
    assert api.ask("POST", "/jobs", json={**job, "priority": 1000}).status_code == 201
    full = api.ask("POST", "/jobs", two.a, json=job)
    assert (full.status_code, full.json()["code"]) == (409, "limit-exceeded")
    assert api.ask("POST", "/jobs", two.a, json={**job, "array": "0-9"}).status_code == 409
    assert api.ask("POST", "/jobs", two.b, json={**job, "project": "b"}).status_code == 201


def test_a_limit_of_storage_holds_within_an_upload_and_ends_with_a_removal(
    two: TwoProjects,
) -> None:
    api = two.api
    api.cloud.access.set_quota(Project(name="a", limits=ProjectLimits(storage_bytes=10)))

    def send(body: bytes) -> int:
        digest = hashlib.sha256(body).hexdigest()
        return int(api.ask("PUT", f"/blobs/{digest}", two.a, content=body).status_code)

    assert send(b"x" * 11) == 409
    assert send(b"x" * 10) == 201
    assert send(b"y") == 409
    digest = hashlib.sha256(b"x" * 10).hexdigest()
    files = [{"path": "f", "sha256": digest, "size_bytes": 10}]
    spec = {"name": "d", "kind": "dataset", "project": "a", "files": files}
    made = api.ask("POST", "/artifacts", two.a, json=spec).json()["id"]
    twin = api.ask("POST", "/artifacts", two.a, json={**spec, "name": "e"}).json()["id"]
    for ident, after in ((made, 409), (twin, 201)):
        assert api.ask("DELETE", f"/artifacts/{ident}", two.a).status_code == 204
        assert send(b"y") == after


def test_large_lists_are_for_who_may_send_them(two: TwoProjects) -> None:
    body = b'["' + b"0" * (2 << 20) + b'"]'
    json_type = {"content-type": "application/json"}
    for path, key, code in (
        ("/artifacts", two.a, 422),
        ("/artifacts", two.a_viewer, 413),
        ("/blobs/missing", two.a, 413),
    ):
        assert two.api.ask("POST", path, key, content=body, headers=json_type).status_code == code
