"""The arrays never hold less than nothing, and give back what was taken."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from karez.scheduling.placement.inventory import Inventory, Row, Shape, build
from karez.scheduling.placement.node_selector import NodeSelector
from karez.scheduling.placement.request_mix import request_mix
from karez.scheduling.placement.scores import Policy

rows = st.builds(
    lambda index, gpus, model, cpu, block: Row(
        name=f"n{index}",
        devices=((model, 1000),) * gpus,
        bulk=(cpu * 1000, 64 << 30, 0, 0),
        supernode=f"s{block}" if block else "",
    ),
    st.integers(0, 99),
    st.integers(0, 8),
    st.sampled_from(["gpu:A", "gpu:B"]),
    st.integers(0, 32),
    st.integers(0, 3),
)
pools = st.lists(rows, min_size=1, max_size=12, unique_by=lambda row: row.name)
shapes = st.builds(
    lambda count, milli, models, cpu: Shape(
        devices=count, milli=milli if count == 1 else 1000, models=models, bulk=(cpu, 1 << 30, 0, 0)
    ),
    st.integers(0, 8),
    st.sampled_from([110, 190, 470, 500, 810, 1000]),
    st.sampled_from([-1, 1, 2, 3]),
    st.integers(0, 12_000),
)
asked = st.lists(shapes, min_size=1, max_size=40)


def fill(inventory: Inventory, selector: NodeSelector, all_shapes: list[Shape]) -> list[object]:
    """Take what fits, give every third back: the decisions in order."""
    log: list[object] = []
    taken: list[tuple[int, Shape, int]] = []
    for number, shape in enumerate(all_shapes):
        found = selector.select(shape)
        log.append(found)
        if found is not None:
            taken.append((found[0], shape, inventory.allocate(found[0], shape, found[1])))
        if number % 3 == 2 and taken:
            inventory.release(*taken.pop(0))
    return log


@given(pool=pools, wanted=asked, policy=st.sampled_from(Policy))
def test_taking_never_overdraws_and_giving_back_restores(
    pool: list[Row], wanted: list[Shape], policy: Policy
) -> None:
    inventory = build(pool)
    selector = NodeSelector(
        inventory=inventory, mix=request_mix(wanted), policy=policy, compiled=False
    )
    taken = []
    for shape in wanted:
        found = selector.select(shape)
        if found is None:
            continue
        mask = inventory.allocate(found[0], shape, found[1])
        assert mask.bit_count() == shape.devices
        taken.append((found[0], shape, mask))
        assert (inventory.arrays.free >= 0).all()
        assert (inventory.arrays.bulk >= 0).all()
    for node, shape, mask in taken:
        inventory.release(node, shape, mask)
    assert (inventory.arrays.free == inventory.size).all()
    assert (inventory.arrays.bulk == inventory.bulk_size).all()
    assert (inventory.arrays.busy == 0).all()


@given(pool=pools, wanted=asked, policy=st.sampled_from(Policy))
def test_remembered_scores_decide_as_fresh_ones_do(
    pool: list[Row], wanted: list[Shape], policy: Policy
) -> None:
    kept = build(pool)
    mix = request_mix(wanted, kept.supply)
    selector = NodeSelector(inventory=kept, mix=mix, policy=policy, compiled=False)
    for shape in wanted:
        fresh = NodeSelector(inventory=kept.fork(), mix=mix, policy=policy, compiled=False)
        found = selector.select(shape)
        assert found == fresh.select(shape)
        if found is not None:
            kept.allocate(found[0], shape, found[1])


def test_a_fork_is_a_world_of_its_own() -> None:
    inventory = build([Row(name="a", devices=(("gpu:A", 1000),) * 2, bulk=(1000, 1, 0, 0))])
    inventory.fork().allocate(0, Shape(devices=2), 0)
    assert inventory.free_milli == 2000
    assert inventory.changes == 0


@pytest.mark.story
@settings(deadline=None, max_examples=150)
@given(pool=pools, wanted=asked, policy=st.sampled_from(Policy))
def test_numba_and_numpy_decide_alike(pool: list[Row], wanted: list[Shape], policy: Policy) -> None:
    mix = request_mix(wanted, build(pool).supply)
    logs = []
    for compiled in (True, False):
        inventory = build(pool)
        selector = NodeSelector(inventory=inventory, mix=mix, policy=policy, compiled=compiled)
        logs.append(fill(inventory, selector, wanted))
    assert logs[0] == logs[1]


@pytest.mark.story
def test_numba_and_numpy_decide_alike_on_a_large_pool() -> None:
    chance = np.random.default_rng(3)
    pool = [
        Row(
            name=f"n{n:05d}",
            devices=((f"gpu:{n % 3}", 1000),) * 8,
            bulk=(128_000, 1 << 40, 0, 0),
            supernode=f"s{n // 48}",
        )
        for n in range(600)
    ]
    kinds = [Shape(devices=1, milli=m, bulk=(4000, 1 << 30, 0, 0)) for m in (190, 470, 810, 1000)]
    kinds += [Shape(devices=d, bulk=(8000 * d, 1 << 34, 0, 0)) for d in (2, 4, 8)]
    wanted = [kinds[index] for index in chance.integers(len(kinds), size=1500)]
    logs = []
    for compiled in (True, False):
        inventory = build(pool)
        selector = NodeSelector(
            inventory=inventory, mix=request_mix(wanted, inventory.supply), compiled=compiled
        )
        logs.append(fill(inventory, selector, wanted))
    assert logs[0] == logs[1]
