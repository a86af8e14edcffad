"""What older releases stored still opens: databases, a decision log, receipts, controller states.

`v0_1/` was written by karez 0.1 (commit 5fc63d0), before its words were changed; `v0_2/` is a dump
by `write_v0_2.py`, of a cloud in mid-work.
"""

import importlib
import sqlite3
from pathlib import Path

import pytest
import torch

from karez.core.backups import DatabaseDump
from karez.core.codec import from_text
from karez.core.devices import Health
from karez.core.nodes import NodeId
from karez.core.receipts import check
from karez.core.workloads import State, Status, WorkloadId
from karez.runtime.tracked import Tracked
from karez.runtime.training_state import split, unpack_per_rank, unpack_shared
from karez.server.controllers.scheduler import Scheduler
from karez.server.controllers.service_keeper import keep_replicas
from karez.serving.service_loads import ServiceLoads
from karez.simulation.verify_log import verify_log
from karez.store.dump import SqlDump
from karez.store.sql import SqlStore
from karez.studio.settings import check_recipe
from karez.training.recovery.controller_state import parse_state
from karez.training.recovery.shard_layouts import ShardLayout
from karez.training.recovery.state import Phase
from tests.fakes import FakeClock

OLD = Path(__file__).parent / "v0_1"
DUMP = Path(__file__).parent / "v0_2"
WEIGHTS = [-0.8004, -0.6573, -0.4026, -0.7683]
"""Of the model in `step-1-0.kz`."""


@pytest.fixture
def store(tmp_path: Path) -> SqlStore:
    file = tmp_path / "k.db"
    connection = sqlite3.connect(file)
    connection.executescript((OLD / "database.sql").read_text())
    connection.close()
    return SqlStore(f"sqlite:///{file}")


def test_workloads_of_an_older_database_are_read_and_go_on(store: SqlStore) -> None:
    states = {job.id: job.state for job in store.workloads.jobs(projects=None)}
    assert states == {
        "job-q": State.QUEUED,
        "job-r": State.RUNNING,
        "job-y": State.PREEMPTING,  # stored as `yielding`
        "job-e": State.SUCCEEDED,
    }
    queued = store.workloads.job("job-q")
    assert queued is not None
    assert (queued.spec.gang.max, queued.spec.gang.among.on) == (4, ("zone=a",))
    assert queued.spec.gang.roles[0].name == "load"
    assert [service.spec.name for service in store.workloads.services(projects=None)] == ["desk"]
    assert store.workloads.request_preemption(WorkloadId("job-r"))
    assert {kind for kind, _ in store.workloads.count_states()} == {"job", "service"}


def test_nodes_history_access_and_usage_of_an_older_database_are_read(store: SqlStore) -> None:
    (node,) = store.pool.nodes()
    assert (node.site, len(node.windows)) == ("s", 1)
    assert store.pool.overrides()[NodeId("n")].health == {"cpu:0": Health.SEPARATED}
    asked = store.resize_requests.requested(WorkloadId("job-r"))
    assert asked is not None
    assert len(asked) == 2
    public = bytes.fromhex((OLD / "receipts.pub").read_text())
    receipts = store.history.receipts(WorkloadId("job-r"))
    assert (len(receipts), list(check(receipts, public))) == (2, [])
    ((part,),) = store.history.newest_checkpoint(WorkloadId("job-r"), [0]).values()
    assert part.step == 40
    assert store.history.incidents(since=0.0)[0].code == "exit"
    assert {p.name for p in store.access.projects()} >= {"lab"}
    assert [
        (row.what, row.prompt_tokens)
        for row in store.usage.summary(projects=None, now=10.0)
        if row.requests
    ] == [("desk", 3)]


def test_the_state_that_an_older_controller_stored_is_adopted(store: SqlStore) -> None:
    (newest,) = store.history.transitions(WorkloadId("job-r"))
    saved = parse_state(newest.body)
    assert (saved.phase, saved.max_committed_step, saved.bad_loss_repeats) == (
        Phase.RESUMING,
        41,
        (3, 1),
    )
    assert saved.shard_layouts == (ShardLayout(after=40, ranks=(0, 1), created_generation=2),)
    assert (saved.recent_failures, saved.state_corrupt) == ((("n", 4.5),), (1,))
    assert saved.fault is not None
    assert saved.fault.rung == "in-place"


@pytest.mark.parametrize("text", ["[]", "{}", '{"cuts": 3}', '{"cuts": [3]}', "no JSON"])
def test_a_broken_state_is_refused_with_a_reason(text: str) -> None:
    with pytest.raises(ValueError, match=r"generation|Expecting value|dictionary|valid"):
        parse_state(text)


def test_an_older_decision_log_verifies_and_a_changed_line_is_named() -> None:
    lines = (OLD / "decisions.log").read_text().splitlines()
    assert any(" stop " in line for line in lines)
    assert any('"given"' in line or '"taken"' in line for line in lines)
    found = verify_log(lines)
    assert (found.line, found.decisions) == (None, sum(not line.startswith("{") for line in lines))
    first = next(number for number, line in enumerate(lines) if " stop " in line)
    lines[first] = lines[first].replace(" stop ", " start ")
    assert verify_log(lines).line == first + 1


def test_a_recipe_is_found_by_its_older_name() -> None:
    check_recipe("proving-ground", {"steps": 3}, {})


def test_a_snapshot_that_an_older_rank_stored_is_restored() -> None:
    body = (OLD / "step-1-0.kz").read_bytes()
    per_rank, shared = split(body)
    model = torch.nn.Linear(2, 2)
    tracked = Tracked(model=model, optimizer=torch.optim.AdamW(model.parameters()), others={})
    unpack_shared(shared, tracked)
    unpack_per_rank(per_rank, tracked, own=True)
    assert [round(x, 4) for x in model.weight.flatten().tolist()] == WEIGHTS


@pytest.mark.parametrize(
    ("module", "name"),
    [("loader", "ShuffledBatches"), ("shards", "ShardedOptimizer"), ("trainer", "attach")],
)
def test_a_script_that_imports_older_modules_runs_with_a_warning(module: str, name: str) -> None:
    with pytest.warns(DeprecationWarning, match=f"karez.runtime.{module}"):
        old = importlib.reload(importlib.import_module(f"karez.training.worker.{module}"))
    assert getattr(old, name) is getattr(importlib.import_module(f"karez.runtime.{module}"), name)


def test_a_dump_in_mid_work_is_loaded_and_what_was_promised_is_kept(tmp_path: Path) -> None:
    url = f"sqlite:///{tmp_path / 'k.db'}"
    target = SqlDump(url)
    target.load(DUMP, from_text(DatabaseDump, (DUMP / "database.json").read_text()))
    target.close()
    store = SqlStore(url)
    states = {job.id: job.state for job in store.workloads.jobs(projects=None)}
    assert states == {"job-2": State.PREEMPTING, "job-3": State.QUEUED}
    (receipt,) = store.history.receipts(WorkloadId("job-2"))
    assert (receipt.rung, receipt.step_restored) == ("in-place", 3)
    assert parse_state(store.history.transitions(WorkloadId("job-2"))[-1].body).generation == 2
    assert store.access.secrets("default") == {"TOKEN": b"\x00sealed"}
    scheduler = Scheduler(store, FakeClock(at=2_000_000.0))
    assert scheduler.tick() == 0
    ((_, token),) = store.workloads.claim(
        [State.PREEMPTING], owner="me", now=2_000_000.0, lease_s=1e9
    )
    assert store.workloads.requeue(WorkloadId("job-2"), token, Status(), now=2_000_000.0)
    assert scheduler.tick() == 1
    assert store.workloads.allocations().keys() == {"job-3"}
    service = store.workloads.service("service-1")
    assert service is not None
    assert service.state == State.QUEUED  # what it held as one is given back for its replicas
    assert keep_replicas(store, ServiceLoads(), 2_000_001.0)
    made = store.replicas.live(ended_since=2_000_000.0)
    assert [one.id for one in made] == [f"service-1_{n}" for n in range(service.spec.replicas)]
    store.close()
