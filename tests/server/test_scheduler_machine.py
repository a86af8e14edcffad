"""The scheduler under any order of jobs, nodes, and ends of control; Hypothesis shrinks them."""

import tempfile
from collections.abc import Iterator
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import pytest
from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import (
    RuleBasedStateMachine,
    initialize,
    invariant,
    rule,
    run_state_machine_as_test,
)

from karez.core.gangs import GangSpec
from karez.core.jobs import Job, JobSpec
from karez.core.nodes import NodeId, NodeState
from karez.core.resource_requests import ResourceRequest
from karez.core.units import MILLI
from karez.core.workloads import EndReason, State, Status, WorkloadId, WorkloadKind
from karez.server.controllers.held_devices import held_devices
from karez.server.controllers.scheduler import PAUSE_S, Scheduler
from karez.store.schema import metadata
from karez.store.sql import SqlStore
from tests.fakes import FakeClock, cpu_node

NODES = ("a", "b")
CORES = 4
WRITES = (
    ("scheduler", "save_pending_decisions"),
    ("workloads", "request_preemption"),
    ("workloads", "place"),
    ("workloads", "explain"),
    ("resize_requests", "request"),
)


class Killed(BaseException):
    """Stands for SIGKILL to control."""


@dataclass
class World:
    """A store, the controllers of what runs in it, and one scheduler after another."""

    store: SqlStore
    clock: FakeClock = field(default_factory=lambda: FakeClock(at=1000.0))
    tokens: dict[WorkloadId, str] = field(default_factory=dict)
    count: int = 0
    writes_left: int | None = None
    """Writes of the scheduler until control is killed; None: it lives on."""

    def __post_init__(self) -> None:
        with self.store.db.write() as tx:
            for table in metadata.sorted_tables:
                tx.execute(table.delete())
        self.store.pool.record_nodes([cpu_node(name, CORES) for name in NODES], now=1.0)
        for part, name in WRITES:
            found = getattr(self.store, part)
            vars(found)[name] = self.counted(getattr(type(found), name).__get__(found))
        self.scheduler = Scheduler(self.store, self.clock)

    def counted(self, write: Any) -> Any:
        def call(*args: Any, **kwargs: Any) -> Any:
            if self.writes_left is not None:
                self.writes_left -= 1
                if self.writes_left < 0:
                    raise Killed
            return write(*args, **kwargs)

        return call

    def restart(self) -> None:
        self.writes_left = None
        self.scheduler = Scheduler(self.store, self.clock)

    def tick(self) -> None:
        self.clock.at += PAUSE_S + 0.1
        try:
            self.scheduler.tick()
        except Killed:
            self.restart()
        now = self.clock.at
        for ident, token in self.store.workloads.claim(
            [State.PLACED], owner="c", now=now, lease_s=1e9
        ):
            self.tokens[ident] = token

    def jobs(self, *states: State) -> list[Job]:
        return sorted(
            self.store.workloads.jobs(projects=None, states=states, limit=1000),
            key=lambda job: job.id,
        )

    def submit(self, spec: JobSpec) -> None:
        self.count += 1
        ident = WorkloadId(f"job-{self.count}")
        job = Job(id=ident, spec=spec, owner="me", created_at=self.clock.at)
        self.store.workloads.add_job(job)

    def run(self, job: Job) -> None:
        token = self.tokens[job.id]
        update = self.store.workloads.update
        update(job.id, token=token, state=State.RUNNING, at=self.clock.at)

    def give_back(self, job: Job) -> None:
        """Its controller obeys: it waits in the queue again."""
        status = Status(ran_s=job.status.ran_s + 1.0)
        assert self.store.workloads.requeue(job.id, self.tokens[job.id], status, now=self.clock.at)

    def end(self, job: Job) -> None:
        status = replace(job.status, end=EndReason.DONE)
        end = self.store.workloads.end
        assert end(job.id, self.tokens[job.id], State.SUCCEEDED, status, now=self.clock.at)

    def change_size(self, job: Job) -> None:
        """Its controller obeys, or finds that it cannot."""
        asked = self.store.resize_requests.take(job.id)
        if asked is not None:
            token = self.tokens[job.id]
            self.store.workloads.regrant(job.id, token, tuple(asked), now=self.clock.at)


def pick(items: list[Job], number: int) -> Iterator[Job]:
    if items:
        yield items[number % len(items)]


class Scheduling(RuleBasedStateMachine):
    """Jobs that start, yield and end, nodes that drain, and control that is killed in a pass."""

    folder: str
    store: SqlStore | None = None

    @initialize()
    def begin(self) -> None:
        if type(self).store is None:
            self.folder = tempfile.mkdtemp(prefix="kz-test-")
            type(self).store = SqlStore(f"sqlite:///{Path(self.folder) / 'k.db'}")
        assert self.store is not None
        self.world = World(store=self.store)

    @invariant()
    def no_device_is_given_twice(self) -> None:
        if hasattr(self, "world"):
            runs = self.world.store.workloads.allocations().values()
            held = held_devices(grant for run in runs for grant in run.grants)
            assert max(held.values(), default=0) <= MILLI

    @rule(
        cores=st.integers(1, 3),
        ranks=st.integers(1, 3),
        priority=st.sampled_from((0, 0, 5)),
        preemptible=st.booleans(),
        elastic=st.booleans(),
    )
    def a_job_is_submitted(
        self, cores: int, ranks: int, priority: int, *, preemptible: bool, elastic: bool
    ) -> None:
        ranks = min(ranks, 2) if cores > CORES // 2 else ranks  # else it would never fit
        low, high = (1, ranks + 2) if elastic else (ranks, None)
        gang = GangSpec(each=(ResourceRequest(milli=MILLI * cores),), want=ranks, min=low, max=high)
        self.world.submit(
            JobSpec(
                name="x",
                kind=WorkloadKind.TRAIN,
                command=("true",),
                gang=gang,
                priority=priority,
                preemptible=preemptible,
            )
        )

    @rule()
    def a_pass_is_made(self) -> None:
        self.world.tick()

    @rule(after=st.integers(0, 6))
    def control_is_killed_in_a_pass(self, after: int) -> None:
        self.world.writes_left = after
        self.world.tick()
        self.world.restart()

    @rule()
    def control_starts_again_and_owes_the_same(self) -> None:
        """What it decides besides, since it looks at all anew, is for others."""
        self.world.tick()
        before = self.world.scheduler._owed
        self.world.restart()
        self.world.tick()
        after = self.world.scheduler._owed
        held = self.world.store.workloads.allocations()
        new = [start.after for ident, start in after.starts.items() if ident not in before.starts]
        for ident, start in before.starts.items():
            # or it was made: who was to make room had not grown yet; or another comes before it,
            # since a workload that yields was counted with the devices that it is to have
            is_made = ident in held and held[ident].grants == start.grants
            is_passed = any(ident in after for after in new)
            assert is_made or is_passed or after.starts.get(ident) == start
        assert before.preempting <= after.preempting
        changed = {
            ident
            for ident, resize in before.resizing.items()
            if ident in held and held[ident].grants != resize.grants
        }
        assert changed <= after.resizing.keys()
        assert after.preempting - before.preempting <= set().union(*new)

    @rule(number=st.integers(0, 9))
    def a_job_begins_to_run(self, number: int) -> None:
        for job in pick(self.world.jobs(State.PLACED), number):
            self.world.run(job)

    @rule(number=st.integers(0, 9))
    def a_job_yields(self, number: int) -> None:
        for job in pick(self.world.jobs(State.PREEMPTING), number):
            self.world.give_back(job)

    @rule(number=st.integers(0, 9))
    def a_job_ends(self, number: int) -> None:
        for job in pick(self.world.jobs(State.RUNNING, State.PREEMPTING), number):
            self.world.end(job)

    @rule(number=st.integers(0, 9))
    def a_gang_changes_its_size(self, number: int) -> None:
        for job in pick(self.world.jobs(State.RUNNING), number):
            self.world.change_size(job)

    @rule(name=st.sampled_from(NODES), state=st.sampled_from((NodeState.DRAINING, NodeState.READY)))
    def a_node_changes(self, name: str, state: NodeState) -> None:
        self.world.store.pool.set_node(NodeId(name), state)

    def teardown(self) -> None:
        """When controllers obey and jobs end, everything that waits gets its turn."""
        if not hasattr(self, "world"):
            return
        world = self.world
        for name in NODES:
            world.store.pool.set_node(NodeId(name), NodeState.READY)
        for _ in range(6 * world.count + 20):
            world.tick()
            self.no_device_is_given_twice()
            for job in world.jobs(State.PREEMPTING):
                world.give_back(job)
            for job in world.jobs(State.PLACED):
                world.run(job)
            for job in world.jobs(State.RUNNING):
                world.change_size(job)
            for job in world.jobs(State.RUNNING)[:1]:
                world.end(job)
            if not world.jobs(State.QUEUED, State.PLACED, State.RUNNING, State.PREEMPTING):
                break
        left = world.jobs(State.QUEUED, State.PLACED, State.RUNNING, State.PREEMPTING)
        assert not left, [(job.id, job.state, job.status.reason) for job in left]
        world.clock.at += 100.0
        world.tick()
        assert world.scheduler._owed.is_empty()


@pytest.mark.story
def test_examples() -> None:
    run_state_machine_as_test(
        Scheduling, settings=settings(max_examples=60, stateful_step_count=40, derandomize=True)
    )


@pytest.mark.deep
def test_many_and_long_examples() -> None:
    run_state_machine_as_test(
        Scheduling, settings=settings(max_examples=1500, stateful_step_count=60)
    )


@pytest.mark.story
def test_who_yields_keeps_its_place_in_the_queue_when_its_next_start_is_given_up() -> None:
    """Whether control starts again meanwhile or not."""
    plans = []
    for is_restarted in (False, True):
        machine = Scheduling()
        machine.begin()
        submit = machine.a_job_is_submitted
        submit(cores=3, ranks=2, priority=5, preemptible=True, elastic=True)
        submit(cores=3, ranks=1, priority=0, preemptible=True, elastic=False)
        machine.a_pass_is_made()
        for name in ("b", "a"):
            machine.a_node_changes(name=name, state=NodeState.DRAINING)
            machine.a_pass_is_made()
        machine.a_node_changes(name="a", state=NodeState.READY)
        if is_restarted:
            machine.world.restart()
        machine.a_pass_is_made()
        starts = machine.world.scheduler._owed.starts
        plans.append({ident: (start.grants, start.reason) for ident, start in starts.items()})
    assert list(plans[0]) == ["job-1"]
    assert plans[0][WorkloadId("job-1")][1] == "it is being moved"
    assert plans[0] == plans[1]
