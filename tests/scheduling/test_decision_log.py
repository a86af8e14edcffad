"""Decision logs verify; a live cloud and a replay with the same inputs decide the same."""

import heapq
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from karez.core.devices import DeviceKind
from karez.core.gangs import GangSpec
from karez.core.identity import Project
from karez.core.jobs import Job, JobSpec
from karez.core.resource_requests import ResourceRequest
from karez.core.workloads import State, Status, WorkloadId, WorkloadKind
from karez.scheduling.decision_log import ClusterDelta, RecordedEngine
from karez.scheduling.decisions import Preempt, Resize, Start
from karez.scheduling.queue.order import PendingWorkload
from karez.server.controllers.scheduler import LIVE_POLICY, Scheduler
from karez.simulation.partitions import Hooks, replay_of
from karez.simulation.replay import Replay
from karez.simulation.trace_job import TraceJob
from karez.simulation.verify_log import verify_log
from karez.store.sql import SqlStore
from tests.fakes import FakeClock, cpu_node
from tests.scheduling.test_snapshot import node

CPU, NPU = DeviceKind.CPU, DeviceKind.NPU
HOUR_S = 3600.0

steps = st.lists(
    st.tuples(
        st.floats(0.1, 40 * HOUR_S),  # pause
        st.integers(1, 4),  # workers at least
        st.integers(0, 3),  # and so many more
        st.sampled_from([250, 1000, 3000]),
        st.sampled_from(["p", "q"]),
        st.booleans(),  # preemptible
        st.booleans(),  # elastic
        st.integers(0, 3),  # what happens beside: nothing, an end, a leave, a lost node
    ),
    max_size=20,
)


@pytest.mark.story
@given(told=steps)
def test_a_decision_log_verifies_and_a_changed_line_is_named(
    told: list[tuple[float, int, int, int, str, bool, bool, int]],
) -> None:
    lines: list[str] = []
    engine_log = RecordedEngine(write=lines.append)
    nodes = (node("a", 4, "s"), node("b", 4, "s"), node("c", 4, "t"))
    projects = (
        Project(name="p", cohort="c", guarantee={NPU: 6000}),
        Project(name="q", cohort="c", guarantee={NPU: 6000}, weight=2),
    )
    at = 0.0
    engine_log.advance(
        ClusterDelta(at=at, is_reset=True, nodes=nodes, projects=projects, policy=LIVE_POLICY)
    )
    for number, (pause, low, more, milli, project, stops, sized, beside) in enumerate(told):
        at += pause
        need = ResourceRequest(kind=NPU, milli=milli)
        most = low + more + 2 if sized else None
        came = PendingWorkload(
            id=WorkloadId(f"j{number}"),
            project=project,
            gang=GangSpec(min=low, want=low + more, max=most, each=(need,)),
            priority=0,
            since=at,
            preemptible=stops,
        )
        running, line = engine_log.engine.cluster.running, engine_log.engine.pending
        engine_log.advance(
            ClusterDelta(
                at=at,
                arrived=(came,),
                ended=(min(running),) if beside == 1 and running else (),
                withdrawn=(min(line),) if beside == 2 and line else (),
                nodes=nodes[: 2 + number % 2] if beside == 3 else None,
            )
        )
        arrays = engine_log.engine.cluster.pool.inventory.arrays
        if beside != 3:
            assert (arrays.free >= 0).all()
    found = verify_log(lines)
    assert (found.line, found.steps) == (None, len(told) + 1)
    starts = [number for number, line in enumerate(lines) if " start " in line]
    if starts:
        changed = [*lines]
        changed[starts[-1]] = changed[starts[-1]].replace("start", "starts")
        assert verify_log(changed).line == starts[-1] + 1
        del changed[starts[-1]]
        assert verify_log(changed).line is not None


def test_a_broken_decision_log_is_refused_with_the_line() -> None:
    with pytest.raises(ValueError, match="line 1"):
        verify_log(['{"at": "soon"}'])
    assert verify_log(["1.0 start j1 on a/npu:0"]).line == 1
    assert verify_log([]).line is None


class Live:
    """The live scheduler on a real store, with a clock and workers that do as a trace says."""

    def __init__(self, folder: Path, replay: Replay) -> None:
        self.store = SqlStore(f"sqlite:///{folder / 'k.db'}")
        self.clock = FakeClock(at=0.0)
        self.lines: list[str] = []
        self.scheduler = Scheduler(self.store, self.clock, self.lines.append)
        self.replay = replay
        self.store.pool.record_nodes(list(replay.nodes), now=0.0)
        self.store.access.add_project(Project(name="p"))
        self.store.access.add_project(Project(name="q"))
        self.ends: list[tuple[float, WorkloadId, int]] = []
        self.left: dict[WorkloadId, float] = {}
        self.began: dict[WorkloadId, tuple[float, int]] = {}
        self.tokens: dict[WorkloadId, str] = {}

    def submit(self, number: int, job: TraceJob) -> None:
        assert job.gang is not None
        spec = JobSpec(
            name=f"j{number}",
            project=job.project,
            kind=WorkloadKind.TRAIN,
            command=("x",),
            gang=job.gang,
            priority=job.priority,
            preemptible=job.preemptible,
        )
        ident = WorkloadId(str(number))
        self.left[ident] = job.runs_s
        made = Job(id=ident, spec=spec, owner="me", created_at=job.arrives_s)
        self.store.workloads.add_job(made)

    def run(self, times: Sequence[float]) -> None:
        coming = list(enumerate(self.replay.jobs))
        for at in times:
            self.clock.at = at
            while self.ends and self.ends[0][0] <= at:
                _, ident, life = heapq.heappop(self.ends)
                if ident in self.began and self.began[ident][1] == life:
                    del self.began[ident]
                    token = self.tokens[ident]
                    self.store.workloads.end(ident, token, State.SUCCEEDED, Status(), now=at)
            while coming and coming[0][1].arrives_s <= at:
                self.submit(*coming.pop(0))
            self.settle(at)

    def settle(self, at: float) -> None:
        """Until nothing more happens now: what is placed starts, what is asked yields."""
        while True:
            self.scheduler.tick()
            placed = self.store.workloads.claim([State.PLACED], owner="c", now=at, lease_s=1e12)
            for ident, token in placed:
                self.tokens[ident] = token
                self.store.workloads.update(ident, token=token, state=State.RUNNING, at=at)
                life = self.began.get(ident, (0.0, 0))[1] + 1 + len(self.lines)
                self.began[ident] = (at, life)
                heapq.heappush(self.ends, (at + self.left[ident], ident, life))
            yielding = self.store.workloads.jobs(projects=None, states=(State.PREEMPTING,))
            for job in yielding:
                began_at, _ = self.began.pop(job.id)
                self.left[job.id] = max(0.0, self.left[job.id] - (at - began_at)) + 60.0
                ran = Status(ran_s=job.status.ran_s + at - began_at)
                assert self.store.workloads.requeue(job.id, self.tokens[job.id], ran, now=at)
            if not placed and not yielding:
                return


jobs = st.lists(
    st.builds(
        lambda pause, runs, cores, workers, project, priority, stops: (
            pause,
            TraceJob(
                arrives_s=0.0,
                runs_s=runs,
                devices=0,
                project=project,
                priority=priority,
                gang=GangSpec(
                    min=workers, want=workers, each=(ResourceRequest(milli=1000 * cores),)
                ),
                preemptible=stops,
            ),
        ),
        st.floats(1.0, 0.5 * HOUR_S),
        st.floats(60.0, 5 * HOUR_S),
        st.integers(1, 4),
        st.integers(1, 2),
        st.sampled_from(["p", "q"]),
        st.integers(0, 1),
        st.booleans(),
    ),
    min_size=1,
    max_size=25,
)


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("live")


@pytest.mark.story
@settings(max_examples=40, deadline=None)
@given(told=jobs)
def test_live_and_simulated_decisions_are_the_same_byte_for_byte(
    folder: Path, told: list[tuple[float, TraceJob]]
) -> None:
    at, trace = 0.0, []
    for pause, job in told:
        at += pause
        trace.append(
            TraceJob(
                arrives_s=at,
                runs_s=job.runs_s,
                devices=0,
                project=job.project,
                gang=job.gang,
                priority=job.priority,
                preemptible=job.preemptible,
            )
        )
    nodes = [cpu_node("a", 4), cpu_node("b", 4)]
    simulated, left_out = replay_of(nodes, trace, LIVE_POLICY, Hooks(on_end=int), known=False)
    simulated.engine_log.learns = True  # as live: nobody knows what comes
    simulated.first = replace(simulated.first, expected=None)
    assert left_out == 0
    simulated.run()
    for file in folder.glob("k.db*"):
        file.unlink()
    live = Live(folder, simulated)
    try:
        live.run([use.at_s for use in simulated.use])
    finally:
        live.store.close()
    decided = [line for line in live.lines if not line.startswith("{")]
    assert "\n".join(decided) == "\n".join(simulated.decisions)
    assert verify_log(live.lines).line is None


def test_every_kind_of_decision_has_a_line_of_its_own() -> None:
    lines: list[str] = []
    engine_log = RecordedEngine(write=lines.append)
    elastic = GangSpec(min=1, want=2, max=4, each=(ResourceRequest(kind=NPU),))
    came = PendingWorkload(id=WorkloadId("big"), project="p", gang=elastic, priority=0, since=0.0)
    engine_log.advance(
        ClusterDelta(
            at=0.0, is_reset=True, nodes=(node("a", 4),), policy=LIVE_POLICY, arrived=(came,)
        )
    )
    (grown,) = engine_log.advance(ClusterDelta(at=HOUR_S))
    assert isinstance(grown, Resize)
    urgent = PendingWorkload(
        id=WorkloadId("now"),
        project="p",
        gang=GangSpec(each=(ResourceRequest(kind=NPU, milli=4000),)),
        priority=9,
        since=HOUR_S + 1,
    )
    stop, start = engine_log.advance(ClusterDelta(at=HOUR_S + 1, arrived=(urgent,)))
    assert isinstance(stop, Preempt)
    assert isinstance(start, Start)
    decided = [line for line in lines if not line.startswith("{")]
    assert decided == [
        "0.0 start big on a/npu:0 a/npu:1",
        "3600.0 resize big to a/npu:0 a/npu:1 a/npu:2 a/npu:3",
        "3601.0 preempt big for now",
        "3601.0 start now on a/npu:0,1,2,3",
    ]
