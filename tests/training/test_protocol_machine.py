"""The recovery protocol under any order of orders, reports and faults; Hypothesis shrinks them."""

from typing import Any

import pytest
from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import (
    RuleBasedStateMachine,
    initialize,
    invariant,
    precondition,
    rule,
    run_state_machine_as_test,
)

from karez.core.nodes import NodeId
from karez.core.workloads import EndReason
from karez.training.recovery.events import CollectiveFailed, Hung, Tick
from karez.training.recovery.invariants import violations
from karez.training.recovery.state import Phase
from tests import recovery_invariants
from tests.training.protocol_world import Process, ProtocolWorld

NODES = [NodeId("a"), NodeId("b"), NodeId("c")]


def one_of(items: list[Any], pick: int) -> Any:
    return items[pick % len(items)]


class Protocol(RuleBasedStateMachine):
    """Ranks that can die, hang and lose their node, and control that can be replaced."""

    world: ProtocolWorld

    @initialize(places=st.lists(st.sampled_from(NODES), min_size=1, max_size=4))
    def begin(self, places: list[NodeId]) -> None:
        recovery_invariants.found.clear()
        self.world = ProtocolWorld(nodes=places)

    @invariant()
    def all_holds(self) -> None:
        if hasattr(self, "world"):
            assert not violations(self.world.gang), self.world.gang
            assert not recovery_invariants.found, recovery_invariants.found

    @precondition(lambda self: any(self.world.orders.values()))
    @rule(pick=st.integers(0, 9))
    def an_order_is_obeyed(self, pick: int) -> None:
        waiting = sorted(rank for rank, orders in self.world.orders.items() if orders)
        self.world.do_next(one_of(waiting, pick))

    @precondition(lambda self: any(self.world.reports.values()))
    @rule(pick=st.integers(0, 9))
    def a_report_is_read(self, pick: int) -> None:
        waiting = sorted(node for node, reports in self.world.reports.items() if reports)
        self.world.read_next(one_of(waiting, pick))

    @precondition(lambda self: bool(self.world.searches))
    @rule(finds=st.booleans())
    def a_search_is_answered(self, *, finds: bool) -> None:
        self.world.answer_search(finds=finds)

    @precondition(lambda self: bool(self.world.may_work()))
    @rule(pick=st.integers(0, 9))
    def a_step_is_done(self, pick: int) -> None:
        self.world.work(one_of(self.world.may_work(), pick))

    @rule()
    def all_goes_well_for_a_while(self) -> None:
        self.settle(rounds=6)

    @rule(pick=st.integers(0, 9), code=st.sampled_from((-9, 1)))
    def a_rank_dies(self, pick: int, code: int) -> None:
        if alive := self.alive():
            self.world.end(one_of(alive, pick), code)

    @rule(pick=st.integers(0, 9))
    def a_rank_hangs(self, pick: int) -> None:
        at_work = [process for process in self.alive() if process.step < self.world.total]
        if at_work:  # what a script does after its last step may take as long as it likes
            one_of(at_work, pick).is_hung = True

    @rule(pick=st.integers(0, 9))
    def a_collective_fails(self, pick: int) -> None:
        group = [process for process in self.alive() if process.in_group and not process.is_hung]
        if group:
            process = one_of(group, pick)
            event = CollectiveFailed(
                rank=process.rank, generation=process.generation, error="reset"
            )
            self.world.report(process, event)

    @rule(pick=st.integers(0, 9))
    def a_node_is_lost(self, pick: int) -> None:
        up = sorted({process.node for process in self.alive()})
        if len(up) > 1:
            self.world.lose(one_of(up, pick))

    @rule(is_told=st.booleans())
    def control_is_replaced(self, *, is_told: bool) -> None:
        known = [self.world.newest(number) for number, _ in self.world.gang.active]
        if any(known) and not self.world.is_over():  # else the job starts over
            self.world.take_over(is_told=is_told)

    @rule(after_s=st.sampled_from((0.5, 31.0)))
    def time_passes(self, after_s: float) -> None:
        self.world.tell(Tick(), after_s=after_s)

    def alive(self) -> list[Process]:
        found = (self.world.running(n) for n, _ in self.world.gang.active)
        return [process for process in found if process is not None]

    def settle(self, rounds: int) -> None:
        """Let everything through, again and again."""
        world = self.world
        for _ in range(rounds):
            for rank in sorted(world.orders):
                while world.orders[rank]:
                    world.do_next(rank)
            for node in sorted(world.reports):
                while world.reports[node]:
                    world.read_next(node)
            while world.searches:
                world.answer_search(finds=True)
            for process in world.may_work():
                world.work(process)

    def teardown(self) -> None:
        """Without further faults it comes to its end."""
        if not hasattr(self, "world"):
            return
        world = self.world
        for _ in range(60):
            self.settle(rounds=4)
            if world.is_over():
                break
            hung = tuple(p.rank for p in self.alive() if p.is_hung)
            if hung and world.gang.phase in (Phase.RUNNING, Phase.RESUMING):
                world.tell(Hung(ranks=hung, why="it hangs", since=world.at))
            world.tell(Tick(), after_s=31.0)
        self.all_holds()
        assert world.is_over(), world.gang
        (end,) = world.ends
        if end.reason == EndReason.DONE:
            assert min(rank.committed for _, rank in world.gang.active) == world.total
        else:
            assert world.gang.fault is not None


TestProtocol = Protocol.TestCase
TestProtocol.settings = settings(max_examples=30, stateful_step_count=40, derandomize=True)


@pytest.mark.deep
def test_many_and_long_examples() -> None:
    run_state_machine_as_test(
        Protocol, settings=settings(max_examples=3000, stateful_step_count=80)
    )
