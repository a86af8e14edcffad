"""What traces, inventories and requests may say, and what becomes of what makes no sense."""

import gzip
import json
import subprocess
import sys
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from karez.cli.inventory_files import kept_inventory, lines_of
from karez.core.codec import to_json
from karez.core.devices import DeviceKind
from karez.core.errors import BadRequest, NotFound
from karez.core.explanations import WhatIf
from karez.core.gangs import GangSpec
from karez.core.nodes import NodeId
from karez.core.resource_requests import ResourceRequest
from karez.scheduling.engine import SchedulingEngine
from karez.simulation import inventories, workloads
from karez.simulation.colocation import colocate
from karez.simulation.colocation_report import LEAVE_S, Colocation
from karez.simulation.demand import read_demand
from karez.simulation.failures import parse_failures
from karez.simulation.partitions import Hooks, replay_of
from karez.simulation.queueing import Extras, queueing, rules_of
from karez.simulation.request_queue import RequestQueue
from karez.simulation.trace_what_if import trace_what_if
from karez.simulation.verify_log import verify_log
from tests.simulation.test_simulation import NODES, POOL, lines

OWN = (
    "arrive,runs,project,class,workers,each,roles,priority,preemptible,deadline\n"
    '0,600,a,train,1:2:8,"npu=1,cpu=1",,0,yes,\n'
    '60,60,a,eval,2,"npu=1,cpu=1;gpu=1,speed=0.5",,1,no,3600\n'
    '120,60,b,train,1,"npu=1,cpu=2,memory=8GiB",loader:1:cpu=4,0,yes,1\n'
)
RICH = """
[[nodes]]
count = 2
npu = 4
cpu = 16
memory = "64GiB"
dpu = 1
storage = "1TiB"
labels = { zone = "a" }
"""


def test_our_own_columns_say_all_that_a_request_may() -> None:
    jobs = workloads.read_jobs(lines(OWN), "j")
    assert [job.sort for job in jobs] == ["train", "eval", "train"]
    assert jobs[0].gang is not None
    assert jobs[0].gang.max == 8
    assert jobs[1].gang is not None
    assert len(jobs[1].gang.each) == 2
    assert jobs[2].gang is not None
    assert jobs[2].gang.roles[0].name == "loader"
    nodes = inventories.read_inventory(RICH, "i")
    report = queueing(nodes, jobs, policy="karez", known=False)
    assert (report.jobs, report.left_out, report.unfinished) == (3, 0, 0)
    assert {one.name for one in report.classes} == {"train", "eval"}
    assert report.missed_deadlines == 1  # one second was not enough
    held = {use.kind: use.peak_pct for use in report.kinds}
    assert 0 < held[DeviceKind.NPU] <= 100
    assert 0 < held[DeviceKind.MEMORY] <= 100


DLRM = (
    "instance_sn,role,app_name,cpu_request,cpu_limit,gpu_request,gpu_limit,rdma_request,"
    "rdma_limit,memory_request,memory_limit,disk_request,disk_limit,max_instance_per_node,"
    "creation_time,scheduled_time,deletion_time\n"
    "i0,HN,x,12,12,1,1,25,25,30.0,30.0,64.0,80.0,8,,,\n"
    "i1,CN,x,8,8,0,0,80,80,30.0,30.0,64.0,80.0,-1,100.0,100.0,200.0\n"
    "i2,CN,x,8,8,0,0,80,80,30.0,30.0,64.0,80.0,-1,110.0,110.0,200.0\n"
)


def test_instances_with_shares_of_a_network_card_are_never_given_more_than_there_is() -> None:
    jobs = workloads.read_jobs(lines(DLRM), "j")
    nodes = inventories.read_inventory(RICH.replace("npu", "gpu").replace("= 2", "= 1"), "i")
    replay, left_out = replay_of(nodes, jobs, rules_of("fifo", known=False), HOOKS, known=False)
    seen = []

    def look(engine: SchedulingEngine, at: float) -> None:
        arrays = engine.cluster.pool.inventory.arrays
        assert (arrays.bulk >= 0).all()
        assert (arrays.free >= 0).all()
        seen.append(at)

    replay.on_step = look
    outcomes = replay.run()
    assert left_out == 0
    ends = sorted(outcome.ended_s for outcome in outcomes)
    month = 31 * 86_400.0  # 25% and 80% of one card do not go together
    assert ends == [month, month + 100.0, month + 190.0]
    assert seen


HOOKS = Hooks(on_end=int)


def test_failures_interrupt_and_the_same_seed_gives_the_same() -> None:
    nodes = inventories.read_inventory(POOL, "i")
    many = "timestamp,duration,num_gpus,cluster\n" + "".join(
        f"{at * 60},7200,8,a\n" for at in range(40)
    )
    jobs = workloads.read_jobs(lines(many), "j")
    found = [
        queueing(
            nodes,
            jobs,
            policy="karez",
            known=False,
            extras=Extras(failures=parse_failures("5h:30m", seed)),
        )
        for seed in (1, 1, 2)
    ]
    calm = queueing(nodes, jobs, policy="karez", known=False)
    assert found[0] == found[1]
    assert found[0].log_sha256 != found[2].log_sha256
    assert found[0].jobs == 40
    assert found[0].interruptions > 0
    assert found[0].jct_s.mean > calm.jct_s.mean
    assert calm.interruptions == 0


@pytest.mark.parametrize("text", ["30d", "x:4h", "30d:0s", "1s:4h", "30d:-4h", ":"])
def test_bad_failures_are_refused(text: str) -> None:
    with pytest.raises(BadRequest, match="failures"):
        parse_failures(text, 1)


GPU = ResourceRequest(kind=DeviceKind.GPU)


def shares(**more: Any) -> Colocation:
    gang = GangSpec(min=1, want=1, max=16, each=(GPU,))
    return Colocation(**{"replica": GPU, "replica_rate": 10.0, "training": gang, **more})


def test_training_fills_the_valleys_of_the_requests() -> None:
    rows = "".join(f"{minute * 60},{100 if minute % 120 < 20 else 10}\n" for minute in range(600))
    sharing = shares()
    demand = read_demand(lines("at,load\n" + rows), "r", sharing)
    nodes = inventories.read_inventory(POOL, "i")
    report = colocate(nodes, demand, sharing)
    assert report == colocate(nodes, demand, sharing)
    assert report.split.replicas_peak == 10
    assert report.split.training_device_hours == pytest.approx(6 * 10.0)
    assert report.training_gain is not None
    assert report.training_gain > 2
    assert report.use_gain > 1.25
    assert report.shared.unserved_pct < 1  # a tenfold step costs what waits while replicas start
    assert report.shared.resizes > 4
    assert 0 < report.reclaim_p50_s <= report.reclaim_p99_s <= sharing.step_s + LEAVE_S
    with pytest.raises(BadRequest, match="does not hold"):
        colocate(nodes[:1], demand, sharing)


@given(
    st.lists(st.floats(0, 100), min_size=1, max_size=40),
    st.integers(1, 4),
    st.sampled_from([0.0, 10.0, 45.0]),
)
@settings(max_examples=25)
def test_what_is_shared_adds_up(load: list[float], gangs: int, start_s: float) -> None:
    rows = "".join(f"{n * 60},{value}\n" for n, value in enumerate(load))
    sharing = shares(gangs=gangs, start_s=start_s)
    demand = read_demand(lines("at,load\n" + rows), "r", sharing)
    report = colocate(inventories.read_inventory(POOL, "i"), demand, sharing)
    for one in (report.shared, report.halves, report.split):
        assert 0 <= one.unserved_pct <= 100
        assert 0 <= one.device_use_pct <= 100 + 1e-6
        assert 0 <= one.waited_p50_s <= one.waited_p99_s <= sharing.patience_s
    assert report.split.unserved_pct <= 0.1
    for point in report.points:
        assert point.capacity + point.training_devices <= report.devices + 1e-6


def test_load_waits_in_its_order_and_leaves_when_its_patience_ends() -> None:
    queue = RequestQueue(3.0)
    assert queue.serve(0.0, 4.0, 4.0) == 4.0
    assert queue.serve(1.0, 8.0, 4.0) == 4.0
    assert queue.waiting == pytest.approx(4.0)
    assert queue.serve(2.0, 4.0, 6.0) == 6.0
    assert queue.serve(3.0, 0.0, 0.0) == 0.0
    assert queue.serve(5.0, 1.0, 0.0) == 0.0
    assert queue.serve(6.0, 0.0, 9.0) == pytest.approx(1.0)  # what came at 2 has left
    assert queue.unserved == pytest.approx(2.0)
    assert queue.served == pytest.approx(15.0)
    assert queue.waited(0.5) == 0.0
    assert queue.waited(1.0) == 1.0
    assert queue.unserved_pct == pytest.approx(100 * 2 / 17)


def test_request_traces_are_known_by_their_columns() -> None:
    sharing = shares(parallel=4)
    azure = (
        "TIMESTAMP,ContextTokens,GeneratedTokens\n2023-11-16 18:15:46.5,30,10\n"
        "2023-11-16 18:16:46.5,5,5\n"
    )
    found = read_demand(lines(azure), "r", sharing)
    assert found.answer_s == 10.0  # 16 s and 4 s
    assert found.busy == (*[1.0] * 16, *[0.0] * 44, 1.0)
    rows = ({"timestamp": 60000 * n, "input_length": 30, "output_length": 10} for n in (0, 1))
    mooncake = "".join(f"{json.dumps(row)}\n" for row in rows)
    assert read_demand(lines(mooncake), "r", sharing).busy == (*[1.0] * 16, *[0.0] * 44, 1.0)
    twice = read_demand(lines(mooncake), "r", replace(sharing, times=2.0))
    assert twice.busy[:2] == (2.0, 2.0)
    rates = "client,window_start_s,rate_rps\n0,600,1.5\n1,600,0.5\n0,1200,3\n"
    found = read_demand(lines(rates), "r", sharing)
    assert (found.tick_s, found.busy) == (10.0, tuple([0.8] * 60 + [1.2] * 60))
    for broken in ('{"timestamp": 1}\n', "{\n", '{"timestamp": -1, "input_length": 1}\n'):
        with pytest.raises(BadRequest, match="line 1: this is no JSON object"):
            read_demand(lines(broken), "r", sharing)
    for bad in ("a,b\n1,2\n", "at,load\n", "at,load\n0,x\n", "at,load\n0,1\n1e14,1\n"):
        with pytest.raises(BadRequest, match="the-file"):
            read_demand(lines(bad), "the-file", sharing)


@pytest.mark.parametrize(
    ("row", "says"),
    [
        ("0,x,a", "column runs"),
        ("soon,1,a", "column arrive"),
        ("0,1,a,c,0", "column workers"),
        ("0,1,a,c,4:2", "column workers"),
        ("0,1,a,c,1,npu=1000000", "column each"),
        ("0,1,a,c,1,cpu=1,loader", "column roles"),
        ("0,1,a,c,1,cpu=1,,high", "column priority"),
        ("0,1,a,c,1,cpu=1,,0,maybe", "column preemptible"),
    ],
)
def test_a_bad_row_of_our_own_is_named(row: str, says: str) -> None:
    head = OWN.split("\n", 1)[0]
    cells = row.split(",") + [""] * (head.count(",") + 1 - len(row.split(",")))
    with pytest.raises(BadRequest, match=says):
        workloads.read_jobs(lines(f"{head}\n{','.join(cells)}\n"), "the-file")


def test_an_inventory_may_be_toml_csv_or_what_the_pool_prints(tmp_path: Path) -> None:
    toml = inventories.read_inventory(RICH, "i")
    assert toml[0].labels == {"zone": "a"}
    again = inventories.read_inventory(json.dumps([to_json(node) for node in toml]), "i")
    assert list(again) == list(toml)
    csv = inventories.read_inventory(NODES, "i")
    assert [len([d for d in n.devices if d.kind == "gpu"]) for n in csv] == [8, 8]
    for bad in ("[{}]", "[1]", '[{"id": "a", "address": "", "devices": 3}]', "[] x"):
        with pytest.raises(BadRequest, match="the-file"):
            inventories.read_inventory(bad, "the-file")


@pytest.mark.story
def test_a_replays_journal_can_be_redone(tmp_path: Path) -> None:
    pool, jobs, log = tmp_path / "pool.toml", tmp_path / "jobs.csv", tmp_path / "j.log"
    pool.write_text(RICH)
    jobs.write_text(OWN)

    def karez(*words: str) -> subprocess.CompletedProcess[str]:
        env = {"KAREZ_HOME": str(tmp_path / "home"), "PATH": "/usr/bin:/bin"}
        return subprocess.run(
            [sys.executable, "-m", "karez.cli.main", *words],
            capture_output=True,
            text=True,
            env=env,
            check=False,
        )

    kept = karez("pool", "import", str(pool), "--name", "lab")
    assert kept.returncode == 0, kept.stderr
    assert "2 nodes with 8 npu" in kept.stdout
    ran = karez(
        "simulate",
        "queue",
        "--jobs",
        str(jobs),
        "--inventory",
        "lab",
        "--decision-log",
        str(log),
        "--json",
    )
    assert ran.returncode == 0, ran.stderr
    assert json.loads(ran.stdout)["jobs"] == 3
    same = karez("simulate", "journal", str(log))
    assert (same.returncode, "all the same" in same.stdout) == (0, True), same.stderr
    lines_ = log.read_text().splitlines()
    changed = [line.replace("start 0", "start 1") for line in lines_]
    log.write_text("\n".join(changed))
    other = karez("simulate", "journal", str(log))
    assert other.returncode == 1
    assert "is not the same" in other.stdout
    broken = karez("simulate", "journal", str(pool))
    assert broken.returncode != 0
    assert "Traceback" not in broken.stderr


def test_what_if_asks_about_a_trace_with_the_same_decisions() -> None:
    nodes = inventories.read_inventory("[[nodes]]\ncount = 2\ngpu = 8\n", "i")
    head = "timestamp,duration,num_gpus,cluster\n"
    rows = "".join(f"{at * 60},3600,8,{'ab'[at % 2]}\n" for at in range(20))
    jobs = workloads.read_jobs(lines(head + rows), "j")
    more = trace_what_if(nodes, jobs, WhatIf(add=2, like=nodes[0].id))
    assert (more.nodes_before, more.nodes_after) == (2, 4)
    assert more.queued_after_s < more.queued_before_s
    assert {one.project for one in more.projects} == {"a", "b"}
    same = trace_what_if(nodes, jobs, WhatIf())
    assert same.jct_before_s == same.jct_after_s
    limited = trace_what_if(nodes, jobs, WhatIf(quota={"a": {DeviceKind.GPU: 4000}}))
    (only,) = limited.projects  # no job of the other could ever start
    assert only.project == "b"
    assert only.queued_after_s < only.queued_before_s
    gang = GangSpec(min=2, want=2, each=(ResourceRequest(kind=DeviceKind.GPU, milli=8000),))
    asked = trace_what_if(nodes, jobs, WhatIf(submit=gang, project="a"), runs_s=60.0)
    assert asked.asked_jct_s is not None
    assert asked.asked_jct_s >= 60.0
    with pytest.raises(NotFound):
        trace_what_if(nodes, jobs, WhatIf(remove=(NodeId("x"),)))


ODD = {
    "arrive,runs\nnan,1\n": "column arrive",
    "arrive,runs\n-inf,1\n": "column arrive",
    "arrive,runs\n1e300,1\n": "column arrive",
    "arrive,runs,runs\n1,1,1\n": "duplicate column",
    "timestamp,duration,num_gpus,cluster\nnan,1,1,a\n": "column timestamp",
}


@pytest.mark.parametrize("text", ODD)
def test_odd_numbers_are_refused_and_never_hang(text: str) -> None:
    with pytest.raises(BadRequest, match=ODD[text]):
        workloads.read_jobs(lines(text), "the-file")


def test_a_job_of_more_workers_than_any_gang_is_left_out() -> None:
    text = "timestamp,duration,num_gpus,cluster\n0,1,1,a\n0,1,1000000,a\n"
    nodes = inventories.read_inventory(POOL, "i")
    report = queueing(nodes, workloads.read_jobs(lines(text), "j"), policy="fifo", known=False)
    assert (report.jobs, report.left_out) == (1, 1)


@pytest.mark.parametrize(
    "text",
    [
        "nodes = [1]\n",
        '[[nodes]]\nmemory = "99999999999999999999TiB"\n',
        "[[nodes]]\nmemory = 9223372036854775808\n",
        "sn,cpu_milli,memory_mib,gpu,model\na,1099511627776,1,0,\n",
        '[{"id": "a", "address": "", "devices": [{"kind": "gpu", "index": 0},'
        ' {"kind": "gpu", "index": 0}]}]',
        '[{"id": "a", "address": "", "devices": [{"kind": "gpu", "index": 0, "milli": 5000}]}]',
        "sn,cpu_milli,memory_mib,gpu,model\n"
        + "".join(f"n{n},1000,1,1,model-{n}\n" for n in range(70)),
    ],
)
def test_an_inventory_of_absurd_amounts_is_refused(text: str) -> None:
    with pytest.raises(BadRequest, match="the-file"):
        inventories.read_inventory(text, "the-file")


@pytest.mark.parametrize(
    ("change", "complaint"),
    [
        ({"replica_rate": 0.0}, "rate .*not 0"),
        ({"replica_rate": -1.0}, "rate .*not -1"),
        ({"replica_rate": float("nan")}, "rate .*not nan"),
        ({"replica_rate": float("inf")}, "rate .*not inf"),
        ({"start_s": -1.0}, "not -1"),
        ({"gangs": 0}, "training gangs, not 0"),
        ({"parallel": 0}, "answers at once, not 0"),
        ({"step_s": 0.0}, "a step, not 0"),
        ({"patience_s": -1.0}, "patience, not -1"),
        ({"answer_s": 0.0}, "an answer, not 0"),
        ({"times": float("nan")}, "times the requests, not nan"),
    ],
)
def test_a_sharing_that_makes_no_sense_is_refused(change: dict[str, Any], complaint: str) -> None:
    with pytest.raises(ValueError, match=complaint):
        shares(**change)


def test_a_replica_that_starts_slowly_serves_late() -> None:
    rows = "".join(f"{n * 60},{10 if n < 10 else 60}\n" for n in range(20))
    nodes = inventories.read_inventory(POOL, "i")
    found = []
    for start_s in (0.0, 30.0, 120.0):
        sharing = shares(start_s=start_s, patience_s=5.0)
        demand = read_demand(lines("at,load\n" + rows), "r", sharing)
        found.append(colocate(nodes, demand, sharing).shared)
    assert found[0].unserved_pct < found[1].unserved_pct < found[2].unserved_pct
    assert all(one.waited_p99_s <= 5.0 for one in found)


def test_files_that_are_no_text_end_in_two_lines(tmp_path: Path) -> None:
    binary, packed = tmp_path / "x.csv", tmp_path / "x.csv.gz"
    binary.write_bytes(b"arrive,runs\n\xff\xfe,1\n")
    data = bytearray(gzip.compress(b"arrive,runs\n" + b"1,2\n" * 5000))
    data[20:40] = b"\0" * 20
    packed.write_bytes(bytes(data))
    for path in (binary, packed):
        with pytest.raises(BadRequest, match=r"annot read|invalid CSV"), lines_of(path) as found:
            workloads.read_jobs(found, str(path))
    for name in ("../../x", "/abs", "a\0", "x" * 300):
        with pytest.raises(BadRequest):
            kept_inventory(name)


def test_a_journal_of_what_was_never_there_is_named_by_line() -> None:
    for line in (
        '{"at":1,"moves":[{"id":"a","to":[]}]}',
        '{"at":1,"ended":["a"]}',
        '{"at":1,"given":[{"node":"a","kind":"gpu","devices":[[0,1000]]}]}',
    ):
        with pytest.raises(ValueError, match="line 1"):
            verify_log([line])
