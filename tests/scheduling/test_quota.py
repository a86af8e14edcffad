"""Borrowing and lending: never more than all guarantees together, never more than is lent."""

from collections import Counter

import pytest
from hypothesis import given
from hypothesis import strategies as st

from karez.core.devices import DeviceKind
from karez.core.identity import Project
from karez.scheduling.queue.order import SchedulingPolicy
from karez.scheduling.queue.quota import share_of
from karez.scheduling.snapshot import Snapshot, engine_from
from tests.scheduling.test_engine import job
from tests.scheduling.test_snapshot import gang, node

NPU = DeviceKind.NPU

limits = st.builds(
    lambda guarantee, lend, more: (guarantee, min(lend, guarantee), guarantee + more),
    st.integers(0, 6),
    st.integers(0, 6),
    st.integers(0, 6),
)


def team(name: str, guarantee: int, lend: int, cap: int) -> Project:
    return Project(
        name=name,
        cohort="c",
        quota={NPU: cap * 1000},
        guarantee={NPU: guarantee * 1000},
        lend={NPU: lend * 1000},
    )


@given(
    shares=st.tuples(limits, limits, limits),
    arrivals=st.lists(
        st.tuples(st.integers(0, 2), st.sampled_from([1, 1, 2, 4]), st.booleans()), max_size=30
    ),
)
def test_quotas_and_lending_limits_hold_after_every_decision(
    shares: tuple[tuple[int, int, int], ...], arrivals: list[tuple[int, int, bool]]
) -> None:
    teams = [team(f"p{number}", *share) for number, share in enumerate(shares)]
    nodes = [node("a", 8), node("b", 8)]
    engine = engine_from(
        Snapshot(nodes=nodes, projects={p.name: p for p in teams}), SchedulingPolicy()
    )
    for number, (owner, devices, ends) in enumerate(arrivals):
        engine.add(job(number, gang(1, devices), float(number), project=f"p{owner}"))
        if ends and engine.cluster.running:
            engine.finish(min(engine.cluster.running))
        engine.decide(float(number))
        held: Counter[str] = Counter()
        for run in engine.cluster.running.values():
            held[run.project] += sum(grant.milli for grant in run.grants) // 1000
        assert sum(held.values()) <= sum(guarantee for guarantee, _, _ in shares)
        lent = sum(lend for _, lend, _ in shares)
        borrowed = 0
        for one, (guarantee, lend, cap) in zip(teams, shares, strict=True):
            assert held[one.name] <= cap
            borrowed += max(0, held[one.name] - (guarantee - lend))
        assert borrowed <= lent


def test_what_is_not_used_is_lent_up_to_the_limit() -> None:
    """The pictures of docs/scheduling.md."""
    projects = {"lab": team("lab", 8, 4, 16), "shop": team("shop", 8, 8, 100)}
    assert share_of("shop", NPU, projects, {}).room == 12_000
    assert share_of("lab", NPU, projects, {}).room == 16_000
    used = {("shop", NPU): 12_000}
    assert share_of("lab", NPU, projects, used).room == 4_000  # its reserve is never lent
    assert share_of("shop", NPU, projects, used).room == 0


def test_an_idle_owner_is_served_from_its_reserve_at_once() -> None:
    projects = {"lab": team("lab", 8, 4, 16), "shop": team("shop", 8, 8, 100)}
    engine = engine_from(
        Snapshot(nodes=[node("a", 8), node("b", 8)], projects=projects), SchedulingPolicy()
    )
    for number in range(16):
        engine.add(job(number, gang(1, 1), 0.0, project="shop"))
    assert len(engine.decide(0.0)) == 12
    for number in range(16, 24):
        engine.add(job(number, gang(1, 1), 1.0, project="lab"))
    assert len(engine.decide(1.0)) == 4
    assert "guaranteed" in engine.reasons()[job(23, gang(1, 1), 1.0).id]


@pytest.mark.parametrize(
    "fields",
    [
        {"guarantee": {NPU: 1000}},
        {"cohort": "c", "guarantee": {NPU: -1}},
        {"cohort": "c", "guarantee": {NPU: 9000}, "quota": {NPU: 8000}},
    ],
)
def test_limits_that_contradict_each_other_are_refused(fields: dict[str, object]) -> None:
    with pytest.raises(ValueError, match=r"cohort|between 0|larger"):
        Project(name="p", **fields)  # type: ignore[arg-type]
