"""A rank's snapshots across a change of size: what was cut otherwise is never stored as its own."""

from pathlib import Path
from typing import Any

import torch

from karez.runtime.agent_client import RankEnvironment
from karez.runtime.shards import ShardedOptimizer
from karez.runtime.snapshot_store import SnapshotStore, SnapshotTag
from karez.runtime.training_state import Tracked, pack


class Said:
    def __init__(self) -> None:
        self.words: list[dict[str, Any]] = []

    def send(self, kind: str, **data: object) -> None:
        self.words.append({"type": kind, **data})


def test_a_dying_gasp_stores_no_shard_of_another_size(tmp_path: Path) -> None:
    (tmp_path / "restore").mkdir()
    place = RankEnvironment(
        key="j.0.1",
        job="j",
        rank=0,
        world=2,
        steward="",
        replica_server="",
        replica_token="",
        replica_servers=(),
        snapshot_folder=str(tmp_path / "0.slots"),
        inputs="",
        out="",
        restore=str(tmp_path / "restore"),
        device="cpu",
        address="127.0.0.1",
    )
    model = torch.nn.Linear(4, 4)
    optimizer = ShardedOptimizer(model.parameters(), torch.optim.SGD, lr=0.1)
    optimizer.spread(0, 2)
    tracked = Tracked(model=model, optimizer=optimizer, others={})
    keeping = SnapshotStore(place)
    keeping.tracked = tracked
    before, now = (SnapshotTag(generation=n, rank=0, world=world) for n, world in ((1, 2), (2, 1)))
    keeping.snapshot(4, before, pack(tracked), None)
    link: Any = Said()
    keeping.emergency_checkpoint(before, link)
    assert [(word["step"], word["world"]) for word in link.words] == [(4, 2)]
    keeping.settle(4, now, moved=False, is_recut=True)
    assert keeping.restorable(is_new=False) == {4: ("shm", 1)}  # all may have to go back to it
    keeping.emergency_checkpoint(now, link)
    assert len(link.words) == 1
    optimizer.spread(0, 1)
    keeping.snapshot(5, now, pack(tracked), None)
    keeping.emergency_checkpoint(now, link)
    assert [(word["step"], word["world"]) for word in link.words] == [(4, 2), (5, 1)]
    assert keeping.restorable(is_new=False) == {4: ("shm", 1), 5: ("shm", 2)}
