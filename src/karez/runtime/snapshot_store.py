"""Where a rank's snapshots are: its own shared memory, its peers' keepers, stored files."""

import threading
import time
from collections.abc import Sequence
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path

from karez.core.errors import StorageFull
from karez.runtime.agent_client import (
    AgentClient,
    RankEnvironment,
    SnapshotReplicator,
    drop_replicas,
    fetch_replica,
    replicas_at_peers,
)
from karez.runtime.training_state import (
    Packed,
    Tracked,
    capacity_for,
    is_whole,
    pack,
    size_of,
    split,
)
from karez.transport.snapshot_file import SnapshotFile


@dataclass(frozen=True, slots=True, kw_only=True)
class FoundState:
    """A state that was found: the light part, the heavy one if it is there, and whose it is."""

    per_rank: bytes
    shared: bytes
    is_own: bool


@dataclass(frozen=True, slots=True, kw_only=True)
class SnapshotTag:
    """Of which generation a snapshot is, and who stores what of it."""

    generation: int
    rank: int
    world: int


class SnapshotStore:
    """One rank's snapshots."""

    def __init__(self, place: RankEnvironment) -> None:
        """Open the slots of the process before this one, if there was one."""
        self._place = place
        self._tracked: Tracked | None = None
        self.peers: tuple[str, ...] = ()
        self.ship_whole = True
        """Whether peers need the heavy part: no other rank on another node has it."""
        self.store_at: int | None = None
        self._slots: SnapshotFile | None = None
        with suppress(FileNotFoundError, ValueError):
            self._slots = SnapshotFile(Path(place.snapshot_folder))
        self._shipper = SnapshotReplicator(place)
        self._outdated: frozenset[int] = frozenset()
        """Steps in the own memory of which a peer has a later version."""
        self._recut_at = -1
        """What is kept up to this step is split as it was before the last change of size."""
        self._stored_steps: frozenset[int] = frozenset()
        """Steps that nobody has but in files."""

    @property
    def slots(self) -> SnapshotFile:
        """The own shared memory, made if there is none. Raises StorageFull."""
        if self._slots is None:
            self._slots = self._make(capacity_for(self.tracked))
        return self._slots

    @property
    def tracked(self) -> Tracked:
        """Whose state it keeps; set before the first snapshot."""
        assert self._tracked is not None
        return self._tracked

    @tracked.setter
    def tracked(self, tracked: Tracked) -> None:
        self._tracked = tracked

    def begin(self, peers: tuple[str, ...], *, ship_whole: bool, epoch: int) -> None:
        """A generation begins, with these peers."""
        self.peers, self.ship_whole = peers, ship_whole
        self._shipper.epoch = epoch

    def snapshot(
        self, step: int, stamp: SnapshotTag, packed: Packed, link: AgentClient | None
    ) -> None:
        """Keep a completed step here, send it to the peers, and store it if that was asked."""
        parts = packed.parts
        size = size_of(parts)
        if size > self.slots.capacity:
            before = self.slots.read(step - 1)
            self._slots = self._make(int(size * 1.5))
            if before is not None:
                self.slots.write(before.step, before.generation, [before.body])
        self.slots.write(step, stamp.generation, parts)
        self.replicate(step, packed.per_rank_bytes)
        if self.store_at == step:
            self.store_at = None
            began = time.monotonic()  # noqa: TID251 - a duration
            whole = self.tracked.is_sharded or stamp.rank == 0
            body = b"".join(parts) if whole else b"".join(parts[: 1 + len(packed.per_rank)])
            self._store(step, stamp, body, link, began)

    def replicate(self, step: int, light_bytes: int | None = None) -> None:
        """Have the peers keep a step."""
        only = light_bytes if light_bytes and not self.ship_whole else 0
        if only == 0 and not self.ship_whole and (kept := self.slots.read(step)) is not None:
            only = len(kept.body) - len(split(kept.body)[1])
        if self.peers:
            self._shipper.replicate(step, self.peers, only)

    def is_replicated(self, step: int) -> bool:
        """Rule R: whether the peers hold a step. Raises StorageFull if they have no room."""
        if not self.peers or self.slots.replicated >= step:
            return True
        if self._shipper.full_bytes:
            where = f"the memory that this job holds at {self.peers[0]}"
            raise StorageFull(path=where, wanted_bytes=self._shipper.full_bytes)
        return False

    def restorable(self, *, is_new: bool) -> dict[int, tuple[str, int]]:
        """Step -> where this rank would take it from, and the generation in which it was kept.

        What is stored has no generation of its own: 0.
        """
        found: dict[int, tuple[str, int]] = {}
        for step, paths in self._stored().items():
            if any(is_whole(path.read_bytes()) for path in paths):
                found[step] = ("storage", 0)
        for step in self._shards():
            found[step] = ("storage", 0)
        own = () if self._slots is None else self._slots.steps()
        if is_new or not own:  # what lies here may be from an earlier stay: peers know better
            for step, kept in replicas_at_peers(self._place).items():
                found[step] = ("peer" if kept.whole else "replica", kept.generation)
        for step in own:
            source, born = found.get(step, ("", 0))
            is_older = source == "peer" and born > self.slots.generation(step)
            self._outdated = (self._outdated - {step}) | ({step} if is_older else set())
            if not is_older:
                found[step] = ("shm", self.slots.generation(step))
        if is_new:
            found.setdefault(0, ("start", 0))
        self._stored_steps = frozenset(s for s, (source, _) in found.items() if source == "storage")
        return found

    def stored_split(self, step: int) -> tuple[int, ...]:
        """The ranks that stored a step which this one takes from there, if they were others."""
        others = self._shards().get(step, {})
        if step not in self._stored_steps or not others:
            return ()
        own = Path(self._place.restore) / f"step-{step}-{self._place.rank}.kz"
        return tuple(sorted({*others, *([self._place.rank] if own.is_file() else [])}))

    def find(self, step: int) -> FoundState | None:
        """The state of a step from the nearest place that has it."""
        is_here = self._slots is not None and step not in self._outdated
        snapshot = self.slots.read(step) if is_here else None
        if snapshot is not None:
            light, heavy = split(snapshot.body)
            return FoundState(per_rank=light, shared=heavy, is_own=True)
        kept = replicas_at_peers(self._place).get(step)
        if kept is not None:
            body = fetch_replica(self._place, kept.address, step)
            if body is not None:
                light, heavy = split(body)
                return FoundState(per_rank=light, shared=heavy if kept.whole else b"", is_own=True)
        if (stored := self._from_files(self._stored().get(step, []))) is not None:
            return stored
        others = self._shards().get(step)
        if not others:
            return None
        light, _ = split(next(iter(others.values())).read_bytes())
        return FoundState(per_rank=light, shared=b"", is_own=False)

    def replicas_of(
        self, indices: Sequence[int], keepers: Sequence[str]
    ) -> dict[int, dict[int, int]]:
        """Rank -> step of which all that was its own can be had -> generation."""
        found = {}
        for index in indices:
            kept = replicas_at_peers(self._place, index=index, keepers=keepers)
            found[index] = {step: one.generation for step, one in kept.items() if one.whole}
        return found

    def drop_replicas(self, indices: Sequence[int], keepers: Sequence[str]) -> None:
        """Have all keepers forget these ranks, on a thread of its own."""
        threading.Thread(
            target=drop_replicas, args=(self._place, indices, keepers), daemon=True
        ).start()

    def shard(
        self, step: int, index: int, keepers: Sequence[str], born: int
    ) -> tuple[bytes, bytes]:
        """A rank's shard of a step, light and heavy, if it is of this generation or a later one.

        Raises:
            RuntimeError: Nobody has it any more, or who has it does not answer.
        """
        kept = replicas_at_peers(self._place, index=index, keepers=keepers).get(step)
        body = None
        if kept is not None and kept.generation >= born:
            with suppress(OSError, EOFError):
                body = fetch_replica(self._place, kept.address, step, index=index)
        if not body:
            raise RuntimeError(f"nobody has rank {index}'s shard of step {step}")
        return split(body)

    def stored_shard(self, step: int, index: int) -> tuple[bytes, bytes]:
        """As `shard`, from a file that was stored."""
        return split((Path(self._place.restore) / f"step-{step}-{index}.kz").read_bytes())

    def settle(self, step: int, stamp: SnapshotTag, *, moved: bool, is_recut: bool = False) -> None:
        """After a restore: the agreed step is the newest, and new peers must hear of it.

        Where shards were cut anew, those of before stay until the step after the next is written:
        as long as somebody has not completed the next one, all go on from them again.
        """
        self.slots.drop_newer_than(step)
        self.slots.replicated = -1
        self._recut_at = step if is_recut else min(self._recut_at, step - 1)
        is_here = step in self.slots.steps() and step not in self._outdated
        if is_recut and not is_here:
            self.slots.replicated = step  # it has nothing of that step that others need
        elif not is_recut and (moved or not is_here):
            self.snapshot(step, stamp, pack(self.tracked), None)
        else:
            self.replicate(step)

    def emergency_checkpoint(self, stamp: SnapshotTag, link: AgentClient) -> None:
        """Store the newest step at once: the gang is about to end."""
        steps = self.slots.steps()
        snapshot = self.slots.read(steps[-1]) if steps else None
        if snapshot is not None and snapshot.step > self._recut_at:
            world = stamp.world if self.tracked.is_sharded else 0
            alone = SnapshotTag(generation=stamp.generation, rank=stamp.rank, world=world)
            self._write(snapshot.step, alone, snapshot.body, link, 0.0)

    def _make(self, capacity: int) -> SnapshotFile:
        try:
            return SnapshotFile.create(Path(self._place.snapshot_folder), capacity)
        except OSError as error:
            raise StorageFull(path="/dev/shm", wanted_bytes=2 * capacity) from error  # noqa: S108

    def _stored(self) -> dict[int, list[Path]]:
        """Step -> the files of it: this rank's own first, then what all have in common."""
        found: dict[int, list[Path]] = {}
        for step, whose, path in self._files():
            if whose in ("whole", str(self._place.rank)):
                found.setdefault(step, []).append(path)
                found[step].sort(key=lambda path: path.stem.endswith("-whole"))
        return found

    def _shards(self) -> dict[int, dict[int, Path]]:
        """Step -> rank -> the file of its shard; only where there are others' than the own."""
        found: dict[int, dict[int, Path]] = {}
        for step, whose, path in self._files():
            if whose not in ("whole", str(self._place.rank)):
                found.setdefault(step, {})[int(whose)] = path
        return found

    def _files(self) -> list[tuple[int, str, Path]]:
        """(step, whose, path) of all stored files at hand."""
        named = [(path.stem.split("-"), path) for path in Path(self._place.restore).glob("step-*")]
        return sorted((int(name[1]), name[2], path) for name, path in named)

    def _from_files(self, paths: list[Path]) -> FoundState | None:
        found: FoundState | None = None
        for path in paths:
            light, heavy = split(path.read_bytes())
            is_own = not path.stem.endswith("-whole")
            if found is None:
                found = FoundState(per_rank=light, shared=heavy, is_own=is_own)
            elif not found.shared:
                found = FoundState(per_rank=found.per_rank, shared=heavy, is_own=found.is_own)
        return found

    def _store(
        self, step: int, stamp: SnapshotTag, body: bytes, link: AgentClient | None, began: float
    ) -> None:
        """Write a checkpoint beside the training; held up is the rank only while it copies."""
        if link is None:
            return
        held_s = time.monotonic() - began  # noqa: TID251 - a duration
        threading.Thread(
            target=self._write, args=(step, stamp, body, link, held_s), daemon=True
        ).start()

    def _write(
        self, step: int, stamp: SnapshotTag, body: bytes, link: AgentClient, held_s: float
    ) -> None:
        """Write a checkpoint file; the foreman has the node put it into the blob store."""
        folder = Path(self._place.restore).parent / "stored"
        folder.mkdir(exist_ok=True)
        path = folder / f"step-{step}-{stamp.rank}.kz"
        path.write_bytes(body)
        whole = not self.tracked.is_sharded and is_whole(body)
        link.send(
            "stored", step=step, path=str(path), world=stamp.world, whole=whole, held_s=held_s
        )
