"""A sharded gang under random losses and changes of size: every shard that it goes on from exists,
and all of one step were cut alike."""

from random import Random

import pytest

from karez.core.nodes import NodeId
from karez.core.workloads import EndReason
from karez.training.recovery.events import (
    Resized,
    Resumed,
)
from karez.training.recovery.shard_layouts import ShardLayout, layout_at, layouts_after
from karez.training.recovery.state import Phase
from tests.training.sharded_ranks import Ranks


@pytest.mark.parametrize("seed", range(100))
def test_sharded_gang_under_random_losses_continues_only_from_existing_shards(seed: int) -> None:
    chance = Random(seed)
    ranks = Ranks(["a", "a", "b", "b", "c", "c"][: 2 * chance.randint(2, 3)], total=25)
    ranks.may_return = chance.random() < 0.5
    losses, faults = 0, 0
    for _ in range(3000):
        if ranks.ends:
            break
        draw = chance.random()
        phase = ranks.gang.phase
        if phase == Phase.DRAINING:
            ranks.leave()
        elif draw < 0.02 and faults < 6 and ranks.lives:
            faults += 1
            ranks.die(chance.choice(sorted(ranks.lives)))
        elif draw < 0.025 and not losses and phase in (Phase.RUNNING, Phase.RESUMING):
            nodes = sorted({ranks.where[n] for n in ranks.now})
            if len(nodes) > 1:
                losses += 1
                ranks.lose(chance.choice(nodes))
        elif draw < 0.05 and phase == Phase.RUNNING:
            _resize(ranks, chance)
        elif draw < 0.06 and phase in (Phase.RUNNING, Phase.QUIESCING):
            ranks.take_over()
        elif ranks.group:
            ranks.work(chance.choice(sorted(ranks.group)), ships=chance.random() < 0.5)
    assert [end.reason for end in ranks.ends] == [EndReason.DONE]
    assert ranks.gone_back <= 1
    left = [n for n, rank in enumerate(ranks.gang.ranks) if rank.has_left and n in ranks.own]
    assert (
        not left or ranks.gang.shard_layouts[-1].after > ranks.total - 2
    )  # all others were cleared away


def _resize(ranks: Ranks, chance: Random) -> None:
    now = [n for n, _ in ranks.gang.active]
    first = len(ranks.gang.ranks)
    living = [n for n in ("a", "b", "c") if n not in ranks.lost_nodes]
    if chance.random() < 0.5 and len(now) > 2:
        gone = chance.sample(now, chance.randint(1, len(now) - 2))
        ranks.tell(Resized(leave=tuple(gone)))
    elif len(now) < 8:
        join = {first + n: NodeId(chance.choice(living)) for n in range(chance.randint(1, 2))}
        ranks.tell(Resized(join=join))


def test_layouts_after_the_restored_step_are_forgotten() -> None:
    first = layouts_after((), 0, (0, 1), 1)
    later = layouts_after(first, 10, (0, 1, 2), 2)
    two, three = (
        ShardLayout(after=0, ranks=(0, 1), created_generation=1),
        ShardLayout(after=10, ranks=(0, 1, 2), created_generation=2),
    )
    assert later == (two, three)
    assert [layout_at(later, step, (9,)) for step in (1, 10, 11)] == [two, two, three]
    assert layouts_after(later, 10, (0,), 3) == (
        two,
        ShardLayout(after=10, ranks=(0,), created_generation=3),
    )
    assert layouts_after(later, 12, (0, 1, 2), 3) == later
    back = layouts_after(later, 7, (0, 1), 3)
    assert back == (
        two,
        ShardLayout(after=7, ranks=(0, 1), created_generation=3),
    )  # what three had is given up


def test_rigid_gang_does_not_change_its_size() -> None:
    ranks = Ranks(["a", "b"], total=5)
    ranks.tell(Resumed(rank=0, generation=ranks.gang.generation, rigid=True))
    before = ranks.gang
    ranks.tell(Resized(leave=(0,)))
    assert ranks.gang.active == before.active
