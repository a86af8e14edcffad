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

    @classmethod
    def from_message(cls, message: dict[str, Any]) -> "Agreed":
        """From the foreman's word to go on."""
        return cls(
            step=int(message["step"]),
            fresh=frozenset(int(number) for number in message.get("fresh", ())),
            pieces=tuple(int(seat) for seat in message.get("pieces", ())),
            keepers=tuple(str(address) for address in message.get("keepers", ())),
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

    def restore(self, agreed: Agreed, *, had: int) -> None:
        """Take the agreed state, from here, from another rank, or from shards.

        Args:
            agreed: The foreman's word.
            had: The step that this process had reached.

        Raises:
            RuntimeError: A peer was lost meanwhile, or nobody has a shard any more.
        """
        is_fresh = self.rank in agreed.fresh
        found = None if self.keeping is None else self.keeping.find(agreed.step)
        stored = () if self.keeping is None else self.keeping.stored_split(agreed.step)
        if pieces := agreed.pieces or stored:
            self._recut(agreed, pieces)
        elif found is not None and found.heavy and not is_fresh:
            unpack_heavy(found.heavy, self.tracked)
        elif not is_fresh and (agreed.step or had):
            start_anew()  # nobody has the state any more
        if found is not None and not is_fresh and agreed.step:
            self._take_light(found, agreed.step)
        if agreed.fresh:
            self._share(agreed.fresh, found.light if found is not None else b"")
        self.tracked.optimizer.zero_grad()
        self._complete(agreed.step)

    def _take_light(self, found: Found, step: int) -> None:
        unpack_light(found.light, self.tracked, own=found.is_own)
        if not found.is_own:  # no other generator is ours
            torch.manual_seed(self.seed + 7919 * self.rank + step)

    def _recut(self, agreed: Agreed, pieces: tuple[int, ...]) -> None:
        assert self.keeping is not None
        keeping = self.keeping

        def piece(number: int) -> dict[str, Any]:
            return heavy_tree(keeping.shard(agreed.step, pieces[number], agreed.keepers))

        tree = recut(self.tracked, piece, before=len(pieces), rank=self.rank, world=self.world)
        put_back(tree, self.tracked)

    def _share(self, fresh: frozenset[int], own: bytes) -> None:
        """Ranks that lack what all have in common take it from the first that has it."""
        donor = min(set(range(self.world)) - fresh)
        body = HEAD.pack(0, 0)
        if self.rank == donor and self.tracked.is_sharded:
            light = pack_light(self.tracked)
            body = b"".join([HEAD.pack(size_of(light), 0), *light])
        elif self.rank == donor:
            body = b"".join(pack(self.tracked).parts)
        body = self.group.hand_out(body, donor)
        if self.rank in fresh:
            light_part, heavy = split(body)
            if heavy:
                unpack_heavy(heavy, self.tracked)
            unpack_light(own or light_part, self.tracked, own=bool(own))

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
