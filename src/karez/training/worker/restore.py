"""How a rank gets its state back: its own, another's, or one that is cut anew from shards."""

import os
import signal
from dataclasses import dataclass
from typing import Any

import torch

from karez.training.worker.group import Group
from karez.training.worker.keeping import Found, Keeping
from karez.training.worker.recut import recut
from karez.training.worker.shards import ShardedOptimizer
from karez.training.worker.state import (
    HEAD,
    Tracked,
    heavy_tree,
    pack,
    pack_light,
    put_back,
    size_of,
    split,
    unpack_heavy,
    unpack_light,
)


@dataclass(frozen=True, slots=True, kw_only=True)
class Agreed:
    """What all go on from, and who has it."""

    step: int
    fresh: frozenset[int]
    """Places in the group of those that take from another what all have in common."""
    pieces: tuple[int, ...]
    """Ranks whose shards are cut anew; none: each takes its own."""
    keepers: tuple[str, ...]
    born: int = 0
    """The generation before which those shards do not count."""

    @classmethod
    def from_message(cls, message: dict[str, Any]) -> "Agreed":
        """From the foreman's word to go on."""
        return cls(
            step=int(message["step"]),
            fresh=frozenset(int(number) for number in message.get("fresh", ())),
            pieces=tuple(int(seat) for seat in message.get("pieces", ())),
            keepers=tuple(str(address) for address in message.get("keepers", ())),
            born=int(message.get("born", 0)),
        )


@dataclass(frozen=True, slots=True, kw_only=True)
class Restorer:
    """One rank's, in one generation."""

    tracked: Tracked
    keeping: Keeping | None
    group: Group
    rank: int
    world: int
    seed: int
    is_built: bool
    """Whether the model was made within the group: then its ranks need not begin alike."""

    def restore(self, agreed: Agreed, *, had: int | None) -> None:
        """Take the agreed state, from here, from another rank, or from shards.

        Args:
            agreed: The foreman's word.
            had: The step that this process had reached; None: it had no state yet.

        Raises:
            RuntimeError: A peer was lost meanwhile, or nobody has a shard any more.
        """
        is_fresh = self.rank in agreed.fresh
        if agreed.step == 0 and is_fresh:
            if had is not None:
                start_anew()  # all begin again, with another number of ranks
            self._complete(0)
            return
        found = None if self.keeping is None else self.keeping.find(agreed.step)
        stored = () if self.keeping is None else self.keeping.stored_split(agreed.step)
        if agreed.pieces or stored:
            self._recut(agreed, stored)
        elif found is not None and found.heavy and not is_fresh:
            unpack_heavy(found.heavy, self.tracked)
        elif not is_fresh and (agreed.step or had):
            start_anew()  # nobody has the state any more
        if found is not None and not is_fresh and (found.heavy or agreed.step):
            self._take_light(found, agreed.step)
        if agreed.fresh:
            self._share(agreed, found.light if found is not None else b"")
        self.tracked.optimizer.zero_grad()
        self._complete(agreed.step)

    def _take_light(self, found: Found, step: int) -> None:
        unpack_light(found.light, self.tracked, own=found.is_own)
        if not found.is_own:  # no other generator is ours
            torch.manual_seed(self.seed + 7919 * self.rank + step)

    def _recut(self, agreed: Agreed, stored: tuple[int, ...]) -> None:
        seats = agreed.pieces or stored

        def piece(number: int) -> dict[str, Any]:
            return heavy_tree(self._shard(agreed, seats[number])[1])

        tree = recut(self.tracked, piece, before=len(seats), rank=self.rank, world=self.world)
        put_back(tree, self.tracked)

    def _shard(self, agreed: Agreed, seat: int) -> tuple[bytes, bytes]:
        assert self.keeping is not None
        if not agreed.pieces:
            return self.keeping.stored_shard(agreed.step, seat)
        return self.keeping.shard(agreed.step, seat, agreed.keepers, agreed.born)

    def _share(self, agreed: Agreed, own: bytes) -> None:
        """Ranks that lack what all have in common take it from the first that has it.

        Where none of those that were there is left, all take it from a shard.
        """
        having = set(range(self.world)) - agreed.fresh
        if not having:
            light, _ = self._shard(agreed, agreed.pieces[0])
            unpack_light(light, self.tracked, own=False)
            return
        donor = min(having)
        body = HEAD.pack(0, 0)
        if self.rank == donor and self.tracked.is_sharded:
            parts = pack_light(self.tracked)
            body = b"".join([HEAD.pack(size_of(parts), 0), *parts])
        elif self.rank == donor:
            body = b"".join(pack(self.tracked).parts)
        body = self.group.hand_out(body, donor)
        if self.rank in agreed.fresh:
            light, heavy = split(body)
            if heavy:
                unpack_heavy(heavy, self.tracked)
            unpack_light(own or light, self.tracked, own=bool(own))

    def _complete(self, step: int) -> None:
        """At the start all take the first rank's model; shards are cut and gathered."""
        tracked = self.tracked
        if step == 0 and self.world > 1 and not self.is_built:
            self.group.same([p.data for p in tracked.model.parameters() if p.requires_grad])
        if not isinstance(tracked.optimizer, ShardedOptimizer):
            return
        if step == 0:
            tracked.optimizer.spread(self.rank, self.world)
        else:
            tracked.optimizer.gather(self.group.gather)  # not by Rule R: nothing is kept yet


def start_anew() -> None:
    """A new process does what this one no longer can."""
    os.kill(os.getpid(), signal.SIGKILL)
