"""How a rank gets its state back: its own, another's, or one that is cut anew from shards."""

import os
import signal
from dataclasses import dataclass
from typing import Any

import torch

from karez.runtime.process_group import ProcessGroup
from karez.runtime.reshard import reshard
from karez.runtime.shards import ShardedOptimizer
from karez.runtime.snapshot_store import FoundState, SnapshotStore
from karez.runtime.training_state import (
    HEAD,
    Tracked,
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
    """What all go on from, and who has it."""

    step: int
    need_state: frozenset[int]
    """Places in the group of those that take from another what all have in common."""
    shard_ranks: tuple[int, ...]
    """Ranks whose shards are cut anew; none: each takes its own."""
    replica_servers: tuple[str, ...]
    created_generation: int = 0
    """The generation before which those shards do not count."""

    @classmethod
    def from_message(cls, message: dict[str, Any]) -> "RestorePoint":
        """From the foreman's word to go on."""
        return cls(
            step=int(message["step"]),
            need_state=frozenset(int(number) for number in message.get("fresh", ())),
            shard_ranks=tuple(int(index) for index in message.get("pieces", ())),
            replica_servers=tuple(str(address) for address in message.get("keepers", ())),
            created_generation=int(message.get("born", 0)),
        )


@dataclass(frozen=True, slots=True, kw_only=True)
class Restorer:
    """One rank's, in one generation."""

    tracked: Tracked
    snapshots: SnapshotStore | None
    group: ProcessGroup
    rank: int
    world: int
    seed: int
    is_built: bool
    """Whether the model was made within the group: then its ranks need not begin alike."""

    def restore(self, agreed: RestorePoint, *, had: int | None) -> None:
        """Take the agreed state, from here, from another rank, or from shards.

        Args:
            agreed: The foreman's word.
            had: The step that this process had reached; None: it had no state yet.

        Raises:
            RuntimeError: A peer was lost meanwhile, or nobody has a shard any more.
        """
        is_fresh = self.rank in agreed.need_state
        if agreed.step == 0 and is_fresh:
            if had is not None:
                restart_process()  # all begin again, with another number of ranks
            self._complete(0)
            return
        found = None if self.snapshots is None else self.snapshots.find(agreed.step)
        stored = () if self.snapshots is None else self.snapshots.stored_split(agreed.step)
        if agreed.shard_ranks or stored:
            self._reshard(agreed, stored)
        elif found is not None and found.shared and not is_fresh:
            unpack_shared(found.shared, self.tracked)
        elif not is_fresh and (agreed.step or had):
            restart_process()  # nobody has the state any more
        if found is not None and not is_fresh and (found.shared or agreed.step):
            self._take_per_rank(found, agreed.step)
        if agreed.need_state:
            self._share(agreed, found.per_rank if found is not None else b"")
        self.tracked.optimizer.zero_grad()
        self._complete(agreed.step)

    def _take_per_rank(self, found: FoundState, step: int) -> None:
        unpack_per_rank(found.per_rank, self.tracked, own=found.is_own)
        if not found.is_own:  # no other generator is ours
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
        return self.snapshots.shard(
            agreed.step, index, agreed.replica_servers, agreed.created_generation
        )

    def _share(self, agreed: RestorePoint, own: bytes) -> None:
        """Ranks that lack what all have in common take it from the first that has it.

        Where none of those that were there is left, all take it from a shard.
        """
        having = set(range(self.world)) - agreed.need_state
        if not having:
            light, _ = self._shard(agreed, agreed.shard_ranks[0])
            unpack_per_rank(light, self.tracked, own=False)
            return
        donor = min(having)
        body = HEAD.pack(0, 0)
        if self.rank == donor and self.tracked.is_sharded:
            parts = pack_per_rank(self.tracked)
            body = b"".join([HEAD.pack(size_of(parts), 0), *parts])
        elif self.rank == donor:
            body = b"".join(pack(self.tracked).parts)
        body = self.group.broadcast_bytes(body, donor)
        if self.rank in agreed.need_state:
            light, heavy = split(body)
            if heavy:
                unpack_shared(heavy, self.tracked)
            unpack_per_rank(own or light, self.tracked, own=bool(own))

    def _complete(self, step: int) -> None:
        """At the start all take the first rank's model; shards are cut and gathered."""
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
            tracked.optimizer.gather(self.group.gather)  # not by Rule R: nothing is kept yet


def restart_process() -> None:
    """A new process does what this one no longer can."""
    os.kill(os.getpid(), signal.SIGKILL)
