"""The snapshots of a rank when the number of ranks changes: old shards are not stored as new."""

from pathlib import Path
from typing import Any

import torch

from karez.core.messages.reports import ProcessReport
from karez.core.messages.wire import encode
from karez.runtime.checkpoint_files import SnapshotTag
from karez.runtime.rank_environment import RankEnvironment
from karez.runtime.shards import ShardedOptimizer
from karez.runtime.snapshot_store import SnapshotStore
from karez.runtime.tracked import Tracked
from karez.runtime.training_state import pack


class RecordingAgent:
    def __init__(self) -> None:
        self.messages: list[dict[str, Any]] = []

    def send(self, report: ProcessReport) -> None:
        self.messages.append(encode(report))


def test_an_emergency_checkpoint_stores_no_shard_of_the_previous_size(tmp_path: Path) -> None:
    (tmp_path / "restore").mkdir()
    environment = RankEnvironment(
        key="j.0.1",
        job="j",
        rank=0,
        world=2,
        steward="",
        replica_server="",
        process_token="",
        replica_token="",
        replica_servers=(),
        snapshot_file=str(tmp_path / "0.slots"),
        inputs="",
        out="",
        restore=str(tmp_path / "restore"),
        address="127.0.0.1",
    )
    model = torch.nn.Linear(4, 4)
    optimizer = ShardedOptimizer(model.parameters(), torch.optim.SGD, lr=0.1)
    optimizer.spread(0, 2)
    tracked = Tracked(model=model, optimizer=optimizer, others={})
    snapshots = SnapshotStore(environment)
    snapshots.tracked = tracked
    before, now = (SnapshotTag(generation=n, rank=0, world=world) for n, world in ((1, 2), (2, 1)))
    snapshots.snapshot(4, before, pack(tracked))
    agent: Any = RecordingAgent()
    snapshots.emergency_checkpoint(before, agent)
    assert [(message["step"], message["world"]) for message in agent.messages] == [(4, 2)]
    snapshots.settle(4, now, moved=False, is_resharded=True)
    assert snapshots.restorable(is_new=False) == {4: ("shm", 1)}  # all may have to go back to it
    snapshots.emergency_checkpoint(now, agent)
    assert len(agent.messages) == 1
    optimizer.spread(0, 1)
    snapshots.snapshot(5, now, pack(tracked))
    snapshots.emergency_checkpoint(now, agent)
    assert [(message["step"], message["world"]) for message in agent.messages] == [(4, 2), (5, 1)]
    assert snapshots.restorable(is_new=False) == {4: ("shm", 1), 5: ("shm", 2)}
