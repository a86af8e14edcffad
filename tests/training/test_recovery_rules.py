"""What decides in a recovery: the ladder's order, who hangs, when to store, whom to trust."""

from dataclasses import replace

import pytest

from karez.core.jobs import LADDER
from karez.core.nodes import Node, NodeId, NodeState
from karez.core.processes import ProcessSample
from karez.core.receipts import Receipt
from karez.core.recovery import FaultPhase, FaultReport, Severity
from karez.core.workloads import EndReason
from karez.training.recovery import ladder
from karez.training.recovery.checkpoint_interval import (
    CheckpointCadence,
    best_interval,
    mean_time_between_failures,
)
from karez.training.recovery.commands import EndGang
from karez.training.recovery.events import UNEVEN, Hung
from karez.training.recovery.hang_detector import KNOWN, HangDetector
from karez.training.recovery.hang_diagnosis import Stalled, diagnose, find_stopped
from karez.training.recovery.node_health import EVICTED, FIRST_REST_S
from karez.training.recovery.node_health import judge_nodes as trust
from karez.training.recovery.state import Gang, Phase, Rank, RankPhase
from karez.training.recovery.transitions import advance
from tests.fakes import cpu_node

A = NodeId("a")


def receipt(rung: str, seconds: float, cause: str = "rank 1 killed by signal 9") -> Receipt:
    return Receipt(
        id=f"r-{rung}-{seconds}",
        job="j",
        generation=1,
        cause=cause,
        ranks=(1,),
        rung=rung,
        source="shm",
        detected_at=100.0,
        decided_at=100.1,
        restored_at=100.2,
        resumed_at=100.0 + seconds,
        step_before=5,
        step_restored=5,
    )


def test_first_rung_is_in_place_and_replace_after_a_second_fault_of_the_node() -> None:
    costs = ladder.expected_costs([])
    first = [ladder.order_rungs(LADDER, costs, again=again, world=4)[0] for again in (0, 1, 5)]
    assert first == ["in-place", "replace", "replace"]
    assert ladder.order_rungs(LADDER, costs, again=0, world=4)[-1] == "restart"


def test_measured_recoveries_change_the_order_of_rungs() -> None:
    slow = [receipt("in-place", 9.0), receipt("in-place", 11.0)]
    assert ladder.order_rungs(LADDER, ladder.expected_costs(slow), again=0, world=4)[0] == "replace"
    mixed = [receipt("replace", 500.0, "rank 1 killed; then rank 1 killed")]
    assert ladder.expected_costs(mixed) == ladder.PRIOR_S  # more went wrong: it teaches nothing


def test_fixed_ladder_keeps_the_users_order_and_only_allowed_rungs_are_tried() -> None:
    given = ("restart", "in-place")
    assert ladder.order_rungs(given, ladder.PRIOR_S, again=0, world=4, is_fixed=True) == given
    assert ladder.order_rungs(given, ladder.PRIOR_S, again=0, world=4) == ("in-place", "restart")


def test_evicted_node_is_left_whatever_a_replacement_costs() -> None:
    costs = {**ladder.PRIOR_S, "replace": 100.0}
    assert ladder.order_rungs(LADDER, costs, again=0, world=4)[0] == "in-place"
    assert ladder.order_rungs(LADDER, costs, again=ladder.CONDEMNED, world=4)[0] == "replace"


def steady(step_s: float, steps: int = 50, ranks: int = 2) -> HangDetector:
    detector = HangDetector(floor_s=1.0)
    detector.begin(range(ranks), 0.0)
    for step in range(1, steps + 1):
        for rank in range(ranks):
            detector.record_event(rank, 0.5 * step_s, step * step_s)
    return detector


def test_step_limit_follows_from_earlier_steps_and_never_falls_below_its_floor() -> None:
    assert steady(0.01).limit_s == 1.0
    assert steady(2.0).limit_s == pytest.approx(10.0)
    assert steady(2.0, steps=KNOWN - 2).limit_s >= 60.0  # too few are known


def test_each_hang_verdict_doubles_the_limit_until_the_next_step() -> None:
    detector = steady(2.0)
    detector.record_verdict()
    detector.record_verdict()
    assert detector.limit_s == pytest.approx(40.0)
    detector.record_event(0, 1.0, 102.0)
    assert detector.limit_s == pytest.approx(10.0)


def look(
    doing: str, *, step: int = 7, state: str = "sleeping", cpu_s: float = 1.0
) -> ProcessSample:
    return ProcessSample(key="k", state=state, cpu_s=cpu_s, activity=doing, step=step)


def verdict(first: list[ProcessSample], second: list[ProcessSample], late_s: float = 6.0) -> object:
    return diagnose(
        dict(enumerate(first)),
        dict(enumerate(second)),
        apart_s=0.2,
        late_s=late_s,
        limit_s=5.0,
        since=0.0,
    )


def test_rank_outside_the_collective_is_the_one_that_hangs() -> None:
    looks = [look("collective"), look("computing"), look("collective")]
    found = verdict(looks, looks)
    assert isinstance(found, Hung)
    assert found.ranks == (1,)


def test_computing_rank_and_rank_waiting_for_a_processor_get_more_time() -> None:
    first = [look("collective"), look("computing", cpu_s=1.0)]
    busy = [look("collective"), look("computing", cpu_s=1.1)]
    starved = [look("collective"), look("computing", state="running")]
    assert verdict(first, busy) is None
    assert verdict(first, starved) is None
    assert isinstance(verdict(first, busy, late_s=21.0), Hung)  # but not for ever


def test_rank_waiting_for_data_is_stalled_and_hangs_only_after_data_s() -> None:
    looks = [look("collective"), look("loading")]
    assert verdict(looks, looks) == Stalled(ranks=(1,), for_s=6.0)
    assert isinstance(verdict(looks, looks, late_s=601.0), Hung)


def test_hang_inside_a_collective_names_no_rank_and_a_stopped_process_is_named() -> None:
    looks = [look("collective"), look("collective")]
    found = verdict(looks, looks)
    assert isinstance(found, Hung)
    assert found.ranks == ()
    stopped = find_stopped({0: look("collective"), 1: look("collective", state="stopped")}, 3.0)
    assert stopped is not None
    assert (stopped.ranks, stopped.code, stopped.since) == ((1,), "frozen", 3.0)


def test_progress_between_two_samples_is_no_hang() -> None:
    later = [look("collective", step=8)] * 2
    assert verdict([look("collective"), look("computing")], later) is None


def test_a_rank_that_left_its_loop_is_named_and_the_gang_fails() -> None:
    looks = [look("quiesced", step=7), look("collective", step=7)]
    found = verdict(looks, looks)
    assert isinstance(found, Hung)
    assert (found.ranks, found.code) == ((0,), UNEVEN)
    assert found.why.startswith("rank 0 left its loop after step 7, and rank 1 waits for it")
    ranks = tuple(Rank(node=A, phase=RankPhase.TRAINING) for _ in range(2))
    gang = Gang(ranks=ranks, phase=Phase.RUNNING, is_session=True)
    failed, commands = advance(gang, found, 9.0)
    assert failed.phase == Phase.FAILED
    (end,) = (command for command in commands if isinstance(command, EndGang))
    assert (end.reason, end.detail) == (EndReason.USER_ERROR, found.why)
    busy = [look("quiesced", step=7), look("computing", step=7, state="running")]
    assert verdict(busy, busy) is None  # it may be saving the model


def test_straggler_is_named_after_three_windows_and_a_noisy_rank_is_not() -> None:
    detector = HangDetector()
    detector.begin(range(4), 0.0)
    named = []
    for step in range(200):
        for rank in range(4):
            noise = 0.01 * ((step * 7 + rank) % 5)
            slow = 0.5 if rank == 2 else 0.0
            detector.record_event(rank, 1.0 + noise + slow, float(step))
            if (found := detector.straggler()) is not None:
                named.append((found.rank, step))
    assert [rank for rank, _ in named] == [2]
    assert named[0][1] >= 3 * 20 - 1


def test_checkpoint_interval_follows_young_and_daly_within_its_limits() -> None:
    assert best_interval(1.0, 10_000.0) == pytest.approx((2 * 10_000.0) ** 0.5, rel=0.02)
    assert best_interval(0.1, 60.0) == 10.0  # never more often
    assert best_interval(100.0, 1e9) == 1800.0  # never more seldom
    pace = CheckpointCadence(began_at=0.0)
    pace.note(2.0)
    calm = pace.every_s(1000, 3600.0)
    pace.faults = 50
    assert pace.every_s(1000, 3600.0) < calm
    assert CheckpointCadence(fixed_s=42.0).every_s(9, 5.0) == 42.0
    assert mean_time_between_failures(0, 1, 0.0) == pytest.approx(86_400 / 4e-3)


def report(node: str, at: float, level: Severity = Severity.MAJOR, **more: object) -> FaultReport:
    fields = {"sender": "dcgm", "code": "xid-79", "level": level, "at": at, **more}
    return FaultReport(node=node, **fields)  # type: ignore[arg-type]  # FaultReport's fields


def pool(count: int) -> list[Node]:
    return [cpu_node(f"n{number}") for number in range(count)]


def test_repeat_offenders_are_evicted_and_at_most_a_tenth_at_once() -> None:
    nodes, here = pool(20), frozenset(NodeId(f"n{n}") for n in range(20))
    once = [report("n3", 10.0), report("n3", 20.0)]
    assert not trust(nodes, once, here, 30.0).evict
    assert list(trust(nodes, [*once, report("n3", 25.0)], here, 30.0).evict) == ["n3"]
    fatal = [report(f"n{n}", 10.0, Severity.FATAL) for n in range(20)]
    assert len(trust(nodes, fatal, here, 30.0).evict) == 2  # a tenth
    assert not trust(pool(1), fatal, here, 30.0).evict  # never the last


def test_ended_faults_do_not_count_and_lasting_faults_count_until_they_end() -> None:
    nodes, here = pool(20), frozenset([NodeId("n3")])
    began = report("n3", 10.0, Severity.FATAL, occasion=FaultPhase.OCCUR)
    over = report("n3", 20.0, occasion=FaultPhase.RECOVER)
    assert trust(nodes, [began], here, 1e6).evict
    assert not trust(nodes, [began, over], here, 30.0).evict


def test_evicted_node_is_released_after_its_rest_which_doubles_each_time() -> None:
    nodes = [replace(pool(1)[0], state=NodeState.EVICTED), *pool(5)[1:]]
    here = frozenset([NodeId("n0")])
    once = [report("n0", 0.0, Severity.MINOR, code=EVICTED, sender="karez")]
    twice = [*once, report("n0", 100.0, Severity.MINOR, code=EVICTED, sender="karez")]
    assert trust(nodes, once, here, FIRST_REST_S + 1).release == ("n0",)
    assert trust(nodes, once, frozenset(), FIRST_REST_S + 1).release == ()  # it does not answer
    assert trust(nodes, twice, here, FIRST_REST_S + 101).release == ()
    assert trust(nodes, twice, here, 2 * FIRST_REST_S + 101).release == ("n0",)
