"""Every route by role and project: what a project's admin sees and does of another project."""

import hashlib
import json
from collections.abc import Iterator

import pytest

from karez.core.identity import Role
from karez.server.api.app import ROUTERS
from karez.server.api.authorization import PUBLIC, roles
from tests.hostile.conftest import TwoProjects
from tests.hostile.requests import EXAMPLES

EVERYWHERE, OWN, LISTS, SHARED, CLOUD = "everywhere", "own", "lists", "shared", "cloud"
"""Needs an admin of all projects; is of one project; lists what is of own projects; is the same for
all; is for the cloud's own parts."""
SCOPES = {
    "DELETE /alerts/{project}/{name}": OWN,
    "DELETE /artifacts/{artifact}": OWN,
    "DELETE /jobs/{job}/tunnels/{tunnel}": OWN,
    "DELETE /keys/{key}": OWN,
    "POST /keys/{key}/rotate": OWN,
    "DELETE /projects/{project}/secrets/{name}": OWN,
    "GET /alerts": LISTS,
    "GET /alerts/{project}/{name}/sent": OWN,
    "GET /artifacts": LISTS,
    "GET /artifacts/{artifact}": OWN,
    "GET /artifacts/{artifact}/files/{path:path}": OWN,
    "GET /audit": EVERYWHERE,
    "GET /blobs/{digest}/exists": LISTS,
    "GET /faults": EVERYWHERE,
    "GET /gateway/table": CLOUD,
    "GET /health": SHARED,
    "GET /jobs": LISTS,
    "GET /jobs/{job}": OWN,
    "GET /jobs/{job}/goodput": OWN,
    "GET /jobs/{job}/logs": OWN,
    "GET /jobs/{job}/logs/{name}": OWN,
    "GET /jobs/{job}/metrics": OWN,
    "GET /jobs/{job}/receipts": OWN,
    "GET /jobs/{job}/receipts/signed": OWN,
    "GET /jobs/{job}/trace": OWN,
    "GET /jobs/{job}/transitions": OWN,
    "GET /jobs/{job}/tunnels/{tunnel}/output": OWN,
    "GET /keys": LISTS,
    "GET /metrics": SHARED,
    "GET /node/blobs/{digest}": CLOUD,
    "GET /node/join": CLOUD,
    "GET /pool": SHARED,
    "GET /pool/allocations": LISTS,
    "GET /pool/defragment": EVERYWHERE,
    "GET /pool/marks": EVERYWHERE,
    "GET /pool/overrides": EVERYWHERE,
    "GET /pool/regroup": EVERYWHERE,
    "GET /pool/why/{workload}": OWN,
    "GET /projects": LISTS,
    "GET /projects/{project}/secrets": OWN,
    "GET /ready": SHARED,
    "GET /receipts/key": SHARED,
    "GET /services": LISTS,
    "GET /services/{service}": OWN,
    "GET /services/{service}/logs": OWN,
    "GET /services/{service}/logs/{name}": OWN,
    "GET /status": SHARED,
    "GET /usage": LISTS,
    "GET /usage/minutes": LISTS,
    "GET /usage/settlement": LISTS,
    "GET /usage/ledger/{project}": OWN,
    "GET /prices": SHARED,
    "PUT /prices/{model}": EVERYWHERE,
    "DELETE /prices/{model}": EVERYWHERE,
    "GET /device-prices": SHARED,
    "PUT /device-prices/{device}": EVERYWHERE,
    "DELETE /device-prices/{device}": EVERYWHERE,
    "GET /openai/files": LISTS,
    "POST /openai/files": LISTS,
    "GET /openai/files/{file}": OWN,
    "GET /openai/files/{file}/content": OWN,
    "DELETE /openai/files/{file}": OWN,
    "GET /openai/batches": LISTS,
    "POST /openai/batches": OWN,
    "GET /openai/batches/{batch}": OWN,
    "POST /openai/batches/{batch}/cancel": OWN,
    "GET /whoami": SHARED,
    "POST /alerts/{project}/{name}/test": OWN,
    "POST /artifacts": OWN,
    "POST /blobs/missing": LISTS,
    "POST /faults": EVERYWHERE,
    "POST /gateway/calls": CLOUD,
    "POST /gateway/load": CLOUD,
    "POST /jobs": OWN,
    "POST /jobs/{job}/cancel": OWN,
    "POST /jobs/{job}/faults": OWN,
    "POST /jobs/{job}/harm": OWN,
    "POST /jobs/{job}/tunnels": OWN,
    "POST /jobs/{job}/tunnels/{tunnel}/input": OWN,
    "POST /keys": OWN,
    "POST /node/join": CLOUD,
    "POST /pool/defragment": EVERYWHERE,
    "POST /pool/nodes/{node}/cordon": EVERYWHERE,
    "POST /pool/nodes/{node}/drain": EVERYWHERE,
    "POST /pool/nodes/{node}/uncordon": EVERYWHERE,
    "POST /pool/regroup": EVERYWHERE,
    "POST /pool/what-if": EVERYWHERE,
    "POST /projects": EVERYWHERE,
    "POST /services": OWN,
    "POST /services/fit": OWN,
    "POST /services/{service}/stop": OWN,
    "PUT /services/{service}": OWN,
    "PUT /alerts/{project}/{name}": OWN,
    "PUT /blobs/{digest}": OWN,
    "PUT /jobs/{job}/tunnels/{tunnel}/terminal": OWN,
    "PUT /node/blobs/{digest}": CLOUD,
    "PUT /pool/nodes/{node}/maintenance": EVERYWHERE,
    "PUT /pool/nodes/{node}/mark": EVERYWHERE,
    "PUT /pool/nodes/{node}/override": EVERYWHERE,
    "PUT /projects/{name}": EVERYWHERE,
    "PUT /projects/{project}/secrets/{name}": OWN,
}
ROLES = roles(ROUTERS)
QUERIES = {"GET /alerts": "?project=a", "PUT /blobs/{digest}": "?project=b"}
QUERIES["GET /jobs/{job}/tunnels/{tunnel}/output"] = "?offset=0"
QUERIES["POST /jobs/{job}/tunnels/{tunnel}/input"] = "?offset=0"
RANK = {Role.VIEWER: 0, Role.MEMBER: 1, Role.ADMIN: 2}


@pytest.fixture
def ids(two: TwoProjects) -> dict[str, str]:
    """What project b has, by the name that paths give it."""
    api = two.api
    job = {"name": "hidden-job", "project": "b", "command": ["true"], "chaos": True}
    body = b"hidden bytes"
    digest = hashlib.sha256(body).hexdigest()
    assert api.ask("PUT", f"/blobs/{digest}", two.b, content=body).status_code == 201
    files = [{"path": "w.gguf", "sha256": digest, "size_bytes": len(body)}]
    model = {"name": "hidden-model", "kind": "model", "format": "gguf", "project": "b"}
    rule = {"name": "hidden-rule", "on": ["failed"], "to": "a@example.com", "project": "b"}
    admin = api.key(Role.ADMIN, "b")
    service = {"name": "hidden", "model": "hidden-model"}
    ident = api.ask("POST", "/jobs", two.b, json=job).json()["id"]
    artifact = api.ask("POST", "/artifacts", two.b, json={**model, "files": files}).json()["id"]
    assert api.ask("PUT", "/alerts/b/hidden-rule", admin, json=rule).status_code < 300
    assert api.ask("PUT", "/projects/b/secrets/S", two.b, json={"text": "x"}).status_code == 204
    key = next(key.id for key in api.cloud.store.access.keys() if key.project == "b")
    return {
        "job": ident,
        "workload": ident,
        "artifact": artifact,
        "file": artifact,
        "batch": ident,
        "service": api.ask("POST", "/services", two.b, json=service).json()["id"],
        "key": key,
        "digest": digest,
        "tunnel": "t",
        "project": "b",
        "name": "hidden-rule",
        "path:path": "w.gguf",
        "node": "n",
        "model": "m",
        "device": "npu",
    }


def test_every_route_has_a_scope() -> None:
    """A change here is a change of who may do what: read it twice."""
    assert SCOPES.keys() == ROLES.keys()


def requests(ids: dict[str, str]) -> Iterator[tuple[str, str, str, object]]:
    """(route, method, path, body) of each route, aimed at project b."""
    for route in sorted(SCOPES):
        method, path = route.split()
        for name, value in ids.items():
            path = path.replace(f"{{{name}}}", value)
        yield route, method, path + QUERIES.get(route, ""), body_of(route)


def body_of(route: str) -> object:
    simple = (
        route.replace("{project}/{name}", "default/r")
        .replace("/alerts/default/r/test", "")
        .replace("{project}/secrets/{name}", "default/secrets/S")
        .replace("projects/{name}", "projects/default")
        .replace("{node}", "n")
        .replace("{model}", "m")
        .replace("{device}", "npu")
        .replace("{key}", "k")
        .replace("{job}", "victim")
        .replace("PUT /services/{service}", "PUT /services/s")
        .replace("{tunnel}", "t")
        .replace("/mark", "/override")
        .replace("/harm", "/faults")
    )
    body = EXAMPLES.get(simple)
    if isinstance(body, dict) and "project" in json.dumps(body) and "PUT /projects" not in route:
        own = {"name": "hidden-rule"} if "/alerts/" in route else {}
        return {**body, "project": "b", **own}
    posts = ("POST /jobs", "POST /services", "POST /services/fit", "POST /artifacts")
    if route in posts and isinstance(body, dict):
        return {**body, "project": "b"}
    return {"name": "hidden-rule"} if route == "PUT /projects/{name}" else body


def test_an_admin_of_a_project_reaches_nothing_of_another(
    two: TwoProjects, ids: dict[str, str]
) -> None:
    for route, method, path, body in requests(ids):
        scope = SCOPES[route]
        content = b"x" if "blobs/" in path and method == "PUT" else None
        answer = two.api.ask(method, path, two.a_admin, json=body, content=content)
        if scope in (EVERYWHERE, CLOUD):
            assert answer.status_code == 403, (route, answer.text)
        elif scope == OWN:
            assert answer.status_code in (403, 404), (route, answer.text)
        elif route == "POST /openai/files":  # what is sent is its own; this is no form
            assert answer.status_code == 400, (route, answer.text)
        else:
            assert answer.status_code in (200, 503), (route, answer.text)
            hidden = ("hidden", ids["job"], ids["service"], ids["artifact"], ids["key"])
            if not route.startswith("POST /blobs"):
                assert not any(word in answer.text for word in hidden), (route, answer.text)
    assert two.api.ask("GET", f"/blobs/{ids['digest']}/exists", two.a).json() is False
    missing = two.api.ask("POST", "/blobs/missing", two.a, json=[ids["digest"]]).json()
    assert missing == [ids["digest"]]
    assert two.api.ask("GET", f"/jobs/{ids['job']}", two.b).json()["state"] == "queued"


def test_a_lesser_role_is_refused_everywhere(two: TwoProjects, ids: dict[str, str]) -> None:
    keys = {Role.VIEWER: two.a_viewer, Role.MEMBER: two.a}
    for route, method, path, body in requests(ids):
        needed = ROLES[route]
        for role, key in keys.items():
            if needed == PUBLIC or RANK.get(Role(needed), 9) <= RANK[role]:
                continue
            answer = two.api.ask(method, path, key, json=body)
            assert answer.status_code == 403, (route, role, answer.text)


def test_bytes_and_names_are_of_their_project(two: TwoProjects, ids: dict[str, str]) -> None:
    api = two.api
    stolen = {"name": "mine", "kind": "model", "project": "a", "format": "gguf"}
    files = [{"path": "w", "sha256": ids["digest"], "size_bytes": 12}]
    refused = api.ask("POST", "/artifacts", two.a, json={**stolen, "files": files})
    assert (refused.status_code, "not uploaded" in refused.json()["title"]) == (422, True)
    own = {"name": "hidden-model", "kind": "model", "project": "a", "format": "gguf"}
    digest = hashlib.sha256(b"own").hexdigest()
    assert api.ask("PUT", f"/blobs/{digest}", two.a, content=b"own").status_code == 201
    made = api.ask(
        "POST",
        "/artifacts",
        two.a,
        json={**own, "files": [{"path": "w", "sha256": digest, "size_bytes": 3}]},
    ).json()
    assert made["spec"]["lineage"]["declared"] is True
    assert api.ask("GET", "/artifacts/hidden-model", two.a).json()["id"] == made["id"]
    assert api.ask("GET", "/artifacts/hidden-model", two.b).json()["id"] == ids["artifact"]
    ambiguous = api.ask("GET", "/artifacts/hidden-model")
    assert (ambiguous.status_code, ambiguous.json()["code"]) == (409, "ambiguous-name")
    assert api.ask("GET", "/artifacts/b:hidden-model").json()["id"] == ids["artifact"]
    job = {"name": "j", "command": ["true"], "inputs": {"m": "hidden-model"}}
    assert api.ask("POST", "/jobs", json=job).status_code == 404  # its project has none
    for project, expected in (("a", made["id"]), ("b", ids["artifact"])):
        sent = api.ask("POST", "/jobs", json={**job, "project": project})
        assert sent.json()["spec"]["inputs"] == {"m": expected}
    named = api.ask("POST", "/jobs", json={**job, "inputs": {"m": "b/hidden-model"}})
    assert named.json()["spec"]["inputs"] == {"m": ids["artifact"]}


@pytest.mark.parametrize(
    "claim",
    [
        {"lineage": {"job": "job-0123456789"}},
        {"lineage": {"receipts": ["rcp-1"]}},
        {"facts": {"kept_until": 1}},
    ],
)
def test_a_member_cannot_say_what_only_the_cloud_knows(
    two: TwoProjects, claim: dict[str, object]
) -> None:
    spec = {"name": "x", "kind": "model", "project": "a", "files": [], **claim}
    answer = two.api.ask("POST", "/artifacts", two.a, json=spec)
    assert "only the cloud" in answer.json()["title"].lower()


@pytest.mark.parametrize("name", ["/tmp/victim", "../x", "..", ".", "a/b", "a\\b", "", "a\nb"])
def test_an_input_cannot_be_named_like_a_path(two: TwoProjects, name: str) -> None:
    job = {"name": "j", "project": "a", "command": ["true"], "inputs": {name: "x"}}
    answer = two.api.ask("POST", "/jobs", two.a, json=job)
    assert (answer.status_code, "invalid name" in answer.json()["title"].lower()) == (422, True)
    secret = two.api.ask("POST", "/jobs", two.a, json={**job, "inputs": {}, "secrets": [name]})
    assert secret.status_code in (404, 422)


def test_the_last_admin_cannot_lock_itself_out(two: TwoProjects) -> None:
    keys = two.api.ask("GET", "/keys").json()
    (admin,) = (key["id"] for key in keys if key["project"] == "*")
    refused = two.api.ask("DELETE", f"/keys/{admin}")
    assert (refused.status_code, "last key" in refused.json()["title"]) == (422, True)
    spec = {"name": "second", "project": "*", "role": "admin"}
    second = two.api.ask("POST", "/keys", json=spec).json()["key"]
    assert two.api.ask("DELETE", f"/keys/{admin}", second).status_code == 204
    assert two.api.ask("GET", "/whoami").status_code == 401


def test_a_cloud_whose_admins_are_all_revoked_gets_a_new_one_at_its_start(
    two: TwoProjects,
) -> None:
    access = two.api.cloud.access
    assert access.first_start() == ""
    for key in access.store.keys():
        access.store.revoke_key(key.id, at=1.0)
    assert access.first_start() != ""
