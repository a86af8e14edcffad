"""Reports of faults, faults on purpose and receipts over HTTP; what becomes of untrusted nodes."""

from pathlib import Path

import pytest

from karez.core.identity import EVERYWHERE, Role
from karez.core.nodes import NodeState
from karez.core.recovery import Transition
from karez.server.controllers.node_eviction import NodeEviction
from karez.server.services.recovery_service import waits
from karez.training.recovery.node_health import FIRST_REST_S
from tests.api import Api
from tests.fakes import FakeClock, cpu_node

REPORT = {"sender": "dcgm", "node": "n1", "code": "xid-79", "level": "fatal"}


@pytest.fixture
def pooled(api: Api) -> Api:
    nodes = [cpu_node(f"n{number}") for number in range(3)]
    api.cloud.store.pool.record_nodes(nodes, now=api.cloud.clock.now())
    return api


def test_a_monitor_reports_faults_and_may_do_nothing_else(pooled: Api) -> None:
    monitor = pooled.key(Role.MONITOR, EVERYWHERE)
    assert pooled.ask("POST", "/faults", monitor, json=REPORT).status_code == 201
    assert pooled.ask("GET", "/jobs", monitor).status_code == 403
    assert pooled.ask("GET", "/faults", monitor).status_code == 403
    (kept,) = pooled.ask("GET", "/faults").json()
    assert (kept["node"], kept["code"], kept["at"]) == ("n1", "xid-79", 1000.0)
    assert pooled.ask("GET", "/faults?node=n2").json() == []


def test_a_projects_admin_does_not_decide_on_nodes(pooled: Api) -> None:
    local = pooled.key(Role.ADMIN)
    assert pooled.ask("POST", "/faults", local, json=REPORT).status_code == 403


@pytest.mark.parametrize(
    ("change", "status"),
    [
        ({"node": "nowhere"}, 404),
        ({"level": "awful"}, 422),
        ({"device": -1}, 422),
        ({"sender": ""}, 422),
        ({"code": "x" * 200}, 422),
        ({"colour": "red"}, 422),
        ({"at": -5}, 422),
    ],
)
def test_a_report_that_makes_no_sense_is_refused(
    pooled: Api, change: dict[str, object], status: int
) -> None:
    answer = pooled.ask("POST", "/faults", json={**REPORT, **change})
    assert answer.status_code == status
    assert pooled.ask("GET", "/faults").json() == []


def test_a_fatal_fault_evicts_a_node_and_rest_brings_it_back(pooled: Api) -> None:
    store, clock = pooled.cloud.store, pooled.cloud.clock
    assert isinstance(clock, FakeClock)
    trust = NodeEviction(store=store, clock=clock)
    trust.evaluate(store.pool.nodes())
    assert trust.nodes_to_avoid() == {}
    pooled.ask("POST", "/faults", json=REPORT)
    trust.evaluate(store.pool.nodes())
    assert list(trust.nodes_to_avoid()) == ["n1"]
    assert "xid-79" in trust.nodes_to_avoid()["n1"]  # type: ignore[index]  # a NodeId
    states = {node.id: node.state for node in store.pool.nodes()}
    assert states == {"n0": NodeState.READY, "n1": NodeState.EVICTED, "n2": NodeState.READY}
    clock.at += FIRST_REST_S + 1
    trust.evaluate([node for node in store.pool.nodes() if node.id != "n1"])
    assert list(trust.nodes_to_avoid()) == ["n1"]  # it did not answer
    trust.evaluate(store.pool.nodes())
    trust.evaluate(store.pool.nodes())
    assert trust.nodes_to_avoid() == {}


def test_chaos_needs_an_admin_and_a_job_that_allows_it(pooled: Api) -> None:
    spec = {"name": "calm", "kind": "train", "command": ["python", "x.py"]}
    pooled.ask("POST", "/jobs", json=spec)
    harm = [{"what": "kill", "rank": 0}]
    member = pooled.key(Role.MEMBER)
    assert pooled.ask("POST", "/jobs/calm/faults", member, json=harm).status_code == 403
    refused = pooled.ask("POST", "/jobs/calm/faults", json=harm)
    assert refused.status_code == 422
    assert "does not allow chaos" in refused.json()["title"]
    pooled.ask("POST", "/jobs", json={**spec, "name": "wild", "chaos": True})
    waits_yet = pooled.ask("POST", "/jobs/wild/faults", json=harm)
    assert "is queued" in waits_yet.json()["title"]
    for wrong in (
        [{"what": "boom"}],
        [{"what": "kill", "after_s": 1e9}],
        [{"what": "kill", "rank": -1}],
    ):
        assert pooled.ask("POST", "/jobs/wild/faults", json=wrong).status_code == 422


def test_old_paths_answer_and_say_that_they_are_deprecated(pooled: Api) -> None:
    old, new = pooled.ask("GET", "/pool/marks"), pooled.ask("GET", "/pool/overrides")
    assert (old.status_code, old.json()) == (200, new.json())
    assert old.headers["deprecation"].startswith("@")
    assert "deprecation" not in new.headers
    refused = pooled.ask("POST", "/jobs/none/harm", json=[{"what": "keeper", "rank": 0}])
    assert refused.status_code == 404
    assert pooled.ask("GET", "/jobs?state=yielding").json() == []


def test_goodput_and_the_key_are_there_for_a_job_that_has_not_begun(pooled: Api) -> None:
    pooled.ask("POST", "/jobs", json={"name": "new", "command": ["true"]})
    found = pooled.ask("GET", "/jobs/new/goodput").json()
    assert (found["goodput"], found["interruptions"]) == (1.0, 0)
    assert pooled.ask("GET", "/jobs/new/transitions").json() == []
    key = pooled.ask("GET", "/receipts/key").json()
    assert len(bytes.fromhex(key["public"])) == 32


def test_a_restart_counts_until_the_job_is_at_work_again(tmp_path: Path) -> None:
    log = [
        Transition(at=at, generation=1, phase=phase)
        for at, phase in ((1, "running"), (5, "failed"), (9, "quiescing"), (12, "running"))
    ]
    assert waits(log) == [(5, 12)]
