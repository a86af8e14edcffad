"""The API over real SQLite: who may do what, what is refused and how, what is written down."""

import hashlib
from pathlib import Path

import pytest

from karez.core.devices import DeviceKind
from karez.core.identity import EVERYWHERE, Project, Role
from karez.core.messages.wire import PROTOCOL, PROTOCOL_HEADER
from karez.core.workloads import State
from karez.server.api.app import PREFIX, ROUTERS
from karez.server.api.authorization import roles
from karez.server.controllers.scheduler import Scheduler
from tests.api import Api
from tests.fakes import FakeClock, cpu_node

OLD_NAMES = ("/regroup", "/marks", "/mark", "/harm")
"""Ends of paths of karez 0.1: they answer for one release, and are not described."""
ROLES = Path(__file__).parent / "routes.txt"
BATCH = {"name": "hello", "command": ["echo", "hi"]}


def test_every_route_names_its_role(api: Api) -> None:
    """A change here is a change of who may do what: read it twice."""
    known = roles(ROUTERS)
    assert (
        "".join(f"{role:8} {route}\n" for route, role in sorted(known.items())) == ROLES.read_text()
    )
    described = api.http.get("/api/v1/openapi.json").json()["paths"]
    served = {f"{m.upper()} {path}" for path, methods in described.items() for m in methods}
    old = {route for route in known if route.endswith(OLD_NAMES)}
    assert len(old) == 5
    assert served == {
        route.replace(" ", f" {PREFIX}").replace(":path", "") for route in known.keys() - old
    }


def test_nothing_is_answered_without_a_key_but_health(api: Api) -> None:
    for route, role in roles(ROUTERS).items():
        method, path = route.split(" ", 1)
        answer = api.http.request(method, PREFIX + path.replace("{", "x").replace("}", ""))
        assert (answer.status_code in (200, 503)) == (role == "public"), route
        if role != "public":
            assert answer.status_code == 401, route


def test_a_viewer_looks_and_a_member_acts_in_its_project_alone(api: Api) -> None:
    api.cloud.access.add_project(Project(name="other"))
    viewer, member = api.key(Role.VIEWER), api.key(Role.MEMBER)
    foreign = api.key(Role.MEMBER, "other")
    assert api.ask("POST", "/jobs", viewer, json=BATCH).status_code == 403
    made = api.ask("POST", "/jobs", member, json=BATCH)
    assert made.status_code == 201
    ident = made.json()["id"]
    assert api.ask("GET", f"/jobs/{ident}", viewer).status_code == 200
    assert api.ask("GET", f"/jobs/{ident}", foreign).status_code == 404
    assert api.ask("POST", f"/jobs/{ident}/cancel", foreign).status_code == 404
    assert api.ask("GET", "/jobs", foreign).json() == []
    elsewhere = {**BATCH, "project": "elsewhere"}
    assert api.ask("POST", "/jobs", foreign, json=elsewhere).status_code == 403
    own = api.ask("POST", "/jobs", foreign, json=BATCH).json()  # its project is its default
    assert own["spec"]["project"] == "other"
    assert api.ask("GET", "/jobs/hello", member).json()["id"] == ident
    assert api.ask("GET", "/jobs/hello", foreign).json()["id"] == own["id"]
    assert api.ask("GET", "/keys", member).status_code == 403


def test_a_projects_admin_cannot_reach_beyond_it(api: Api) -> None:
    local = api.key(Role.ADMIN)
    for spec in ({"name": "x", "project": "*", "role": "admin"}, {"name": "x", "role": "node"}):
        assert api.ask("POST", "/keys", local, json=spec).status_code == 403
    assert api.ask("POST", "/projects", local, json={"name": "new"}).status_code == 403
    assert api.ask("GET", "/audit", local).status_code == 403
    assert api.ask("POST", "/keys", local, json={"name": "x"}).status_code == 201


def test_a_revoked_key_is_refused(api: Api) -> None:
    made = api.ask("POST", "/keys", json={"name": "temp"}).json()
    assert api.ask("GET", "/whoami", made["key"]).json()["role"] == "member"
    assert api.ask("DELETE", f"/keys/{made['id']}").status_code == 204
    assert api.ask("GET", "/whoami", made["key"]).status_code == 401
    assert "digest" not in api.ask("GET", "/keys").text


@pytest.mark.parametrize(
    ("body", "status", "words"),
    [
        ({**BATCH, "naem": 1}, 422, "naem: Unexpected"),
        ({**BATCH, "name": "../etc"}, 422, "Invalid name"),
        ({**BATCH, "command": []}, 422, "either a command or a recipe"),
        ({**BATCH, "inputs": {"data": "none"}}, 404, "no artifact 'default/none'"),
        ({**BATCH, "secrets": ["none"]}, 404, "no secret 'none'"),
        ({**BATCH, "project": "none"}, 404, "no project 'none'"),
        ({**BATCH, "gang": {"min": 2, "want": 1}}, 422, "min <= want"),
        ({"name": "x", "recipe": "none"}, 422, "no recipe 'none'"),
        ({"name": "x", "recipe": "sft-lora", "settings": {"stesp": 1}}, 422, "no setting 'stesp'"),
        ({"name": "x", "recipe": "sft-lora", "settings": {"steps": 0}}, 422, "at least 1"),
        ({"name": "x", "recipe": "sft-lora"}, 422, "needs an input 'model'"),
        ({**BATCH, "max_duration_s": -1}, 422, "must be positive"),
    ],
)
def test_a_wrong_job_is_refused_with_the_reason_and_the_next_step(
    api: Api, body: dict[str, object], status: int, words: str
) -> None:
    answer = api.ask("POST", "/jobs", json=body)
    assert answer.status_code == status, answer.text
    assert answer.headers["content-type"] == "application/problem+json"
    assert words in answer.json()["title"]
    assert answer.json()["hint"]
    assert api.ask("GET", "/jobs").json() == []


def test_bad_bytes_and_unknown_paths_are_problems_too(api: Api) -> None:
    broken = api.ask("POST", "/jobs", content=b"{", headers={"content-type": "application/json"})
    assert broken.status_code == 422
    for answer in (broken, api.ask("GET", "/nothing"), api.ask("PATCH", "/jobs")):
        assert answer.headers["content-type"] == "application/problem+json"


def test_sending_a_job_twice_queues_it_once(api: Api) -> None:
    headers = {"idempotency-key": "abc"}
    first = api.ask("POST", "/jobs", json=BATCH, headers=headers).json()
    again = api.ask("POST", "/jobs", json=BATCH, headers=headers).json()
    assert first["id"] == again["id"]
    assert len(api.ask("GET", "/jobs").json()) == 1
    other = api.ask("POST", "/jobs", api.key(Role.MEMBER), json=BATCH, headers=headers).json()
    assert other["id"] != first["id"]


def test_a_quota_that_can_never_be_met_is_refused_at_the_door(api: Api) -> None:
    api.cloud.access.set_quota(Project(name="default", quota={DeviceKind.CPU: 1000}))
    answer = api.ask("POST", "/jobs", json={**BATCH, "gang": {"min": 2, "want": 2}})
    assert answer.status_code == 409
    assert "may hold 1 cpu; this asks for 2" in answer.json()["title"]


def test_artifacts_are_uploaded_registered_and_read_back(api: Api) -> None:
    data = b"x" * 100_000
    digest = hashlib.sha256(data).hexdigest()
    wrong = api.ask("PUT", f"/blobs/{'0' * 64}", content=data)
    assert (wrong.status_code, wrong.json()["code"]) == (422, "broken-artifact")
    spec = {
        "name": "d",
        "kind": "dataset",
        "files": [{"path": "a/b.txt", "sha256": digest, "size_bytes": len(data)}],
    }
    assert api.ask("POST", "/artifacts", json=spec).status_code == 422  # bytes not there yet
    assert api.ask("GET", f"/blobs/{digest}/exists").json() is False
    assert api.ask("PUT", f"/blobs/{digest}", content=data).status_code == 201
    assert api.ask("POST", "/artifacts", json=spec).status_code == 201
    assert api.ask("GET", "/artifacts/d/files/a/b.txt").content == data
    assert api.ask("GET", "/artifacts/d/files/none").status_code == 404
    service = {"name": "s", "model": "d"}
    assert "not a model" in api.ask("POST", "/services", json=service).json()["title"]
    job = api.ask("POST", "/jobs", json={**BATCH, "inputs": {"data": "d"}}).json()
    assert job["spec"]["inputs"]["data"].startswith("art-")
    assert "in use by hello" in api.ask("DELETE", "/artifacts/d").json()["title"]
    api.ask("POST", "/jobs/hello/cancel")
    assert api.ask("DELETE", "/artifacts/d").status_code == 204
    assert not list((Path(api.cloud.blobs.folder)).glob("*.part"))  # type: ignore[attr-defined]


def test_secrets_go_in_and_never_come_out(api: Api) -> None:
    assert (
        api.ask("PUT", "/projects/default/secrets/token", json={"text": "hush"}).status_code == 204
    )
    assert api.ask("GET", "/projects/default/secrets").json() == ["token"]
    assert b"hush" not in api.cloud.store.access.secrets("default")["token"]
    assert api.cloud.secrets.open("default", ["token"]) == {"token": "hush"}
    assert api.ask("GET", "/projects/default/secrets", api.key(Role.VIEWER)).status_code == 403


def test_every_change_is_written_down_refused_ones_too(api: Api) -> None:
    api.ask("POST", "/jobs", json=BATCH)
    api.ask("POST", "/jobs", api.key(Role.VIEWER), json=BATCH)
    assert api.http.post("/api/v1/jobs", json=BATCH).status_code == 401  # nobody: no row
    rows = api.ask("GET", "/audit").json()
    assert [(r["action"], r["outcome"]) for r in rows[:2]] == [
        ("POST /jobs", "403"),
        ("POST /jobs", "201"),
    ]
    assert rows[1]["actor"].startswith("admin")


def test_readiness_status_and_metrics(api: Api) -> None:
    assert api.http.get("/api/v1/ready").status_code == 503
    api.cloud.store.pool.record_nodes([cpu_node("a")], now=1.0)
    assert api.http.get("/api/v1/ready").status_code == 200
    api.ask("POST", "/jobs", json=BATCH)
    assert api.ask("GET", "/status").json()["jobs"] == {State.QUEUED: 1}
    assert (
        'karez_workloads{kind="job",sort="job",state="queued"} 1.0'
        in api.ask("GET", "/metrics").text
    )


def test_nodes_are_closed_and_opened(api: Api) -> None:
    api.cloud.store.pool.record_nodes([cpu_node("a")], now=1.0)
    assert api.ask("POST", "/pool/nodes/a/cordon").status_code == 200
    assert api.ask("GET", "/pool").json()[0]["state"] == "cordoned"
    assert api.ask("POST", "/pool/nodes/none/cordon").status_code == 404


def test_why_tells_what_waits_and_hides_what_a_key_may_not_see(api: Api) -> None:
    api.cloud.store.pool.record_nodes([cpu_node("a", 4)], now=1.0)
    api.ask("POST", "/projects", json={"name": "other"})
    big = {"name": "big", "project": "other", "command": ["true"], "gang": {"min": 3, "want": 3}}
    ident = api.ask("POST", "/jobs", json=big).json()["id"]
    assert "next pass" in api.ask("GET", "/pool/why/big").json()["reason"]
    scheduler = Scheduler(api.cloud.store, FakeClock())
    assert scheduler.tick() == 1
    waits = {"name": "waits", "command": ["true"], "gang": {"min": 2, "want": 2}}
    assert api.ask("POST", "/jobs", json=waits).status_code == 201
    assert scheduler.tick() == 0
    why = api.ask("GET", "/pool/why/waits").json()
    assert "1 of 2 workers fit" in why["reason"]
    assert [holder["id"] for holder in why["holders"]] == [ident]
    assert [change["stop"] for change in why["changes"] if change["stop"]] == [[ident]]
    assert f"big ({ident})" in why["changes"][1]["what"]
    assert why["changes"][0]["workers"] == 1
    mine = api.ask("GET", "/pool/why/waits", api.key(Role.VIEWER)).json()
    assert mine["holders"] == []
    assert not [change for change in mine["changes"] if change["stop"]]
    assert api.ask("GET", "/pool/why/big", api.key(Role.VIEWER)).status_code == 404
    assert "placed" in api.ask("GET", "/pool/why/big").json()["state"]


def test_what_if_says_who_would_be_touched_and_changes_nothing(api: Api) -> None:
    api.cloud.store.pool.record_nodes([cpu_node("a", 4)], now=1.0)
    running = {"name": "runs", "command": ["true"], "gang": {"min": 3, "want": 3}}
    ident = api.ask("POST", "/jobs", json=running).json()["id"]
    scheduler = Scheduler(api.cloud.store, FakeClock())
    assert scheduler.tick() == 1
    more = {"add": 1, "like": "a", "submit": {"min": 5, "want": 5}}
    outlook = api.ask("POST", "/pool/what-if", json=more).json()
    (effect,) = outlook["effects"]
    assert (effect["id"], effect["after"]) == ("hypothetical", "starts with 5 workers")
    (gone,) = api.ask("POST", "/pool/what-if", json={"remove": ["a"]}).json()["effects"]
    assert (gone["id"], gone["before"], gone["after"]) == (
        ident,
        "runs with 3 workers",
        "runs with 0 workers",
    )
    assert api.ask("POST", "/pool/what-if", json={}).json()["effects"] == []
    assert api.ask("POST", "/pool/what-if", json={"remove": ["none"]}).status_code == 404
    assert api.ask("POST", "/pool/what-if", json={"add": 10**6, "like": "a"}).status_code == 422
    assert api.ask("POST", "/pool/what-if", api.key(Role.ADMIN), json={}).status_code == 403
    assert len(api.ask("GET", "/pool").json()) == 1


def test_the_gateway_learns_keys_and_routes_but_no_secrets(api: Api) -> None:
    gateway = api.key(Role.GATEWAY, EVERYWHERE)
    same = {PROTOCOL_HEADER: str(PROTOCOL)}
    table = api.ask("GET", "/gateway/table", gateway, headers=same).json()
    assert table["routes"] == []
    known = {"id", "project", "role", "digest", "calls", "parent"}
    assert all(set(key) == known for key in table["keys"])
    assert api.ask("GET", "/gateway/table").status_code == 403  # an admin is no gateway


@pytest.mark.parametrize("number", ["", "1", "99999", "two", "-2"])
def test_nodes_and_gateways_of_another_release_are_told_so(api: Api, number: str) -> None:
    for path, role in (("/gateway/table", Role.GATEWAY), ("/node/join", Role.NODE)):
        headers = {PROTOCOL_HEADER: number} if number else {}
        answer = api.ask("GET", path, api.key(role, EVERYWHERE), headers=headers)
        assert answer.status_code == 409
        assert answer.json()["code"] == "protocol-mismatch"
        assert "same release" in answer.text


def test_the_api_describes_itself_with_examples(api: Api) -> None:
    described = api.http.get("/api/v1/openapi.json").json()
    for path, methods in described["paths"].items():
        for method, operation in methods.items():
            assert operation.get("summary"), (method, path)
            assert operation.get("description"), (method, path)
            assert "x-karez-role" in operation, (method, path)


def test_a_node_is_marked_drained_and_planned_for(api: Api) -> None:
    api.cloud.store.pool.record_nodes([cpu_node("n", 2)], now=1.0)
    admin = {"authorization": f"Bearer {api.admin}"}
    pool = f"{PREFIX}/pool"

    def put(path: str, body: object) -> int:
        return api.http.put(f"{pool}/nodes/{path}", json=body, headers=admin).status_code

    assert put("n/mark", {"labels": {"zone": "a"}, "health": {"cpu:0": "pre-separated"}}) == 200
    assert put("n/mark", {"health": {"npu3": "healthy"}}) == 422
    assert put("n/mark", {"health": {"npu:3": "fine"}}) == 422
    assert put("x/mark", {}) == 404
    assert put("n/maintenance", [{"starts_at": 9e9, "ends_at": 9e9 + 60}]) == 200
    assert put("n/maintenance", [{"starts_at": 10, "ends_at": 5}]) == 422
    assert put("n/maintenance", [{"starts_at": 0, "ends_at": 5}]) == 422  # it is over
    assert put("x/maintenance", []) == 404
    assert api.http.post(f"{pool}/nodes/n/drain", headers=admin).status_code == 200
    (node,) = api.http.get(pool, headers=admin).json()
    assert (node["state"], node["labels"]) == ("draining", {"zone": "a"})
    assert node["devices"][0]["health"] == "pre-separated"
    assert len(node["windows"]) == 1
    plan = api.http.get(f"{pool}/regroup", headers=admin).json()
    assert (plan["moves"], plan["carried_out"]) == ([], False)


def test_what_no_node_could_hold_is_refused_at_the_door(api: Api) -> None:
    api.cloud.store.pool.record_nodes([cpu_node("n", 2)], now=1.0)
    admin = {"authorization": f"Bearer {api.admin}"}

    def submit(**each: object) -> tuple[int, str]:
        body = {"name": "j", "command": ["x"], "gang": {"each": [each]}}
        answer = api.http.post(f"{PREFIX}/jobs", json=body, headers=admin)
        return answer.status_code, answer.text

    assert submit(kind="cpu", milli=2000)[0] == 201
    assert submit(kind="npu", milli=1000)[0] == 201  # such nodes may still join
    code, said = submit(kind="cpu", milli=64_000)
    assert code == 422
    assert "could never start" in said
    assert submit(kind="memory", milli=0, memory_bytes=1)[0] == 422
    assert submit(kind="cpu", milli=1000, cpu_milli=1000)[0] == 422
