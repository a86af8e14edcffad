"""Restores the state of a rank: from its own snapshot, another rank's, or resharded."""

import os
import signal
from dataclasses import dataclass
from typing import Any

import torch

from karez.core.messages.orders import StartGenerationOrder
from karez.runtime.checkpoint_files import FoundState
from karez.runtime.process_group import ProcessGroup
from karez.runtime.reshard import reshard
from karez.runtime.shards import ShardedOptimizer
from karez.runtime.snapshot_store import SnapshotStore
from karez.runtime.tracked import Tracked
from karez.runtime.training_state import (
    HEAD,
    pack,
    pack_per_rank,
    put_back,
    shared_tree,
    size_of,
    split,
    unpack_per_rank,
    unpack_shared,
)


@dataclass(frozen=True, slots=True, kw_only=True)
class RestorePoint:
    """The step from which all ranks go on, and who has its state."""

    step: int
    need_state: frozenset[int]
    """Ranks of the new group that take the shared state from another."""
    shard_ranks: tuple[int, ...]
    """Previous ranks whose shards are resharded; none: each rank takes its own."""
    replica_servers: tuple[str, ...]
    """Replica servers that hold the shards."""
    created_generation: int = 0
    """Shards that were written before this generation are outdated."""

    @classmethod
    def from_order(cls, order: StartGenerationOrder) -> "RestorePoint":
        """The restore point of the generation that an order starts."""
        return cls(
            step=order.step,
            need_state=frozenset(order.need_state),
            shard_ranks=order.shard_ranks,
            replica_servers=order.replica_servers,
            created_generation=order.created_generation,
        )


@dataclass(frozen=True, slots=True, kw_only=True)
class Restorer:
    """Restores one rank's state in one generation."""

    tracked: Tracked
    snapshots: SnapshotStore | None
    group: ProcessGroup
    rank: int
    world: int
    seed: int
    is_built: bool
    """Whether the model was built within the group: then its ranks need not begin alike."""

    def restore(self, agreed: RestorePoint, *, had: int | None) -> None:
        """Restore the agreed step from this rank, from another rank, or from shards.

        Args:
            agreed: What the job controller decided.
            had: The step that this process had reached; None: it had no state yet.

        Raises:
            RuntimeError: A peer was lost meanwhile, or a shard is not available any more.
        """
        is_fresh = self.rank in agreed.need_state
        if agreed.step == 0 and is_fresh:
            if had is not None:
                restart_process()  # all ranks start over, with another number of ranks
            self._complete(0)
            return
        state = None if self.snapshots is None else self.snapshots.find(agreed.step)
        stored = () if self.snapshots is None else self.snapshots.stored_split(agreed.step)
        if agreed.shard_ranks or stored:
            self._reshard(agreed, stored)
        elif state is not None and state.shared and not is_fresh:
            unpack_shared(state.shared, self.tracked)
        elif not is_fresh and (agreed.step or had):
            restart_process()  # the state is lost
        if state is not None and not is_fresh and (state.shared or agreed.step):
            self._take_per_rank(state, agreed.step)
        if agreed.need_state:
            self._share(agreed, state.per_rank if state is not None else b"")
        self.tracked.optimizer.zero_grad()
        self._complete(agreed.step)

    def _take_per_rank(self, state: FoundState, step: int) -> None:
        unpack_per_rank(state.per_rank, self.tracked, own=state.is_own)
        if not state.is_own:  # another rank's random generators are not restored
            torch.manual_seed(self.seed + 7919 * self.rank + step)

    def _reshard(self, agreed: RestorePoint, stored: tuple[int, ...]) -> None:
        indices = agreed.shard_ranks or stored

        def piece(number: int) -> dict[str, Any]:
            return shared_tree(self._shard(agreed, indices[number])[1])

        tree = reshard(self.tracked, piece, before=len(indices), rank=self.rank, world=self.world)
        put_back(tree, self.tracked)

    def _shard(self, agreed: RestorePoint, index: int) -> tuple[bytes, bytes]:
        assert self.snapshots is not None
        if not agreed.shard_ranks:
            return self.snapshots.stored_shard(agreed.step, index)
        return self.snapshots.replicas.shard(
            agreed.step, index, agreed.replica_servers, agreed.created_generation
        )

    def _share(self, agreed: RestorePoint, own: bytes) -> None:
        """Give the shared state to the ranks that need it, from the first that has it.

        Where no rank has it any more, all take the per-rank part of a shard.
        """
        holders = set(range(self.world)) - agreed.need_state
        if not holders:
            per_rank, _ = self._shard(agreed, agreed.shard_ranks[0])
            unpack_per_rank(per_rank, self.tracked, own=False)
            return
        donor = min(holders)
        body = HEAD.pack(0, 0)
        if self.rank == donor and self.tracked.is_sharded:
            parts = pack_per_rank(self.tracked)
            body = b"".join([HEAD.pack(size_of(parts), 0), *parts])
        elif self.rank == donor:
            body = b"".join(pack(self.tracked).parts)
        body = self.group.broadcast_bytes(body, donor)
        if self.rank in agreed.need_state:
            per_rank, shared = split(body)
            if shared:
                unpack_shared(shared, self.tracked)
            unpack_per_rank(own or per_rank, self.tracked, own=bool(own))

    def _complete(self, step: int) -> None:
        """Give all ranks the first one's model before step 1; create or gather optimizer shards."""
        tracked = self.tracked
        if step == 0 and self.world > 1 and not self.is_built:
            self.group.broadcast_parameters(
                [p.data for p in tracked.model.parameters() if p.requires_grad]
            )
        if not isinstance(tracked.optimizer, ShardedOptimizer):
            return
        if step == 0:
            tracked.optimizer.spread(self.rank, self.world)
        else:
            tracked.optimizer.gather(self.group.gather)  # not under Rule R: no snapshot exists yet


def restart_process() -> None:
    """Kill this process with SIGKILL; the job controller has the node start a replacement.

    Does not return, and no cleanup runs: what this process cannot restore in place, a new one
    restores from the beginning.
    """
    os.kill(os.getpid(), signal.SIGKILL)
