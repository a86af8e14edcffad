"""The snapshots of a rank, in its own shared memory, at its peers, and in stored files."""

import threading
from contextlib import suppress
from pathlib import Path

from karez.core.errors import StorageFull
from karez.runtime.agent_client import AgentClient
from karez.runtime.checkpoint_files import (
    Checkpoint,
    CheckpointFiles,
    FoundState,
    SnapshotTag,
    write_checkpoint,
)
from karez.runtime.host_clock import monotonic_s
from karez.runtime.peer_replicas import PeerReplicas
from karez.runtime.rank_environment import RankEnvironment
from karez.runtime.replica_client import fetch_replica, replicas_at_peers
from karez.runtime.snapshot_replicator import SnapshotReplicator
from karez.runtime.snapshot_writer import SnapshotWriter
from karez.runtime.tracked import Tracked
from karez.runtime.training_state import Packed, capacity_for, is_whole, pack, size_of, split
from karez.transport.snapshot_file import SnapshotFile


class SnapshotStore:
    """Writes, replicates and finds the snapshots of one rank."""

    def __init__(self, environment: RankEnvironment) -> None:
        """Open the snapshot file of the previous process of this rank, if there was one."""
        self._environment = environment
        self.replicas = PeerReplicas(environment=environment)
        self._tracked: Tracked | None = None
        self.peers: tuple[str, ...] = ()
        self.ship_whole = True
        """Whether peers need the shared part: no other rank on another node has it."""
        self.store_at: int | None = None
        """The step of which to write a checkpoint file, if the ranks have agreed on one."""
        self.is_store_wanted = False
        """Whether the job controller has asked for a checkpoint file."""
        self._file: SnapshotFile | None = None
        with suppress(FileNotFoundError, ValueError):
            self._file = SnapshotFile(Path(environment.snapshot_file))
        self._replicator = SnapshotReplicator(environment)
        self.writer = SnapshotWriter()
        self._checkpoints = CheckpointFiles(folder=Path(environment.restore), rank=environment.rank)
        self._outdated: frozenset[int] = frozenset()
        """Steps in the own memory of which a peer has a later version."""
        self._resharded_at = -1
        """Snapshots up to this step have the shards of the previous number of ranks."""
        self._newest = 0
        """The step of the newest snapshot."""
        self._stored_steps: frozenset[int] = frozenset()
        """Steps that can be restored from files alone."""

    @property
    def file(self) -> SnapshotFile:
        """The snapshot file in shared memory, created if there is none. Raises StorageFull."""
        if self._file is None:
            self._file = self._create_file(capacity_for(self.tracked))
        return self._file

    @property
    def tracked(self) -> Tracked:
        """The objects whose state is kept; set before the first snapshot."""
        assert self._tracked is not None
        return self._tracked

    @tracked.setter
    def tracked(self, tracked: Tracked) -> None:
        self._tracked = tracked

    def begin(self, peers: tuple[str, ...], *, ship_whole: bool, epoch: int) -> None:
        """Begin a generation with these peers."""
        self.peers, self.ship_whole = peers, ship_whole
        self._replicator.epoch = epoch

    def snapshot(self, step: int, tag: SnapshotTag, packed: Packed) -> None:
        """Write a completed step and replicate it; one that is still copied is written later."""
        self.writer.wait()
        self._make_room(size_of(packed.parts))
        if packed.copy is None:
            self._write(step, tag, packed)
        else:
            self.writer.begin(packed.copy, lambda: self._write(step, tag, packed))

    def _make_room(self, size: int) -> None:
        """Make a larger file, with the newest snapshot, if the present one is too small."""
        if size > self.file.capacity:
            steps = self.file.steps()
            previous = self.file.read(steps[-1]) if steps else None
            self._file = self._create_file(int(size * 1.5))
            if previous is not None:
                self.file.write(previous.step, previous.generation, [previous.body])

    def _write(self, step: int, tag: SnapshotTag, packed: Packed) -> None:
        self.file.write(step, tag.generation, packed.parts)
        self.replicate(step, packed.per_rank_bytes)

    def store(self, step: int, tag: SnapshotTag, packed: Packed, agent: AgentClient) -> None:
        """Store a checkpoint file of a completed step, beside the training."""
        self.writer.wait()
        if packed.copy is not None and not packed.copy.finish():
            return  # an abort cut it short, and the generation is over
        self.store_at, self.is_store_wanted = None, False
        began_s, parts = monotonic_s(), packed.parts
        has_shared = self.tracked.is_sharded or tag.rank == 0
        body = b"".join(parts if has_shared else parts[: 1 + len(packed.per_rank)])
        self._write_beside(self._checkpoint(step, tag, body), agent, began_s)

    def replicate(self, step: int, per_rank_bytes: int | None = None) -> None:
        """Have the peers hold a replica of a snapshot, which is the newest from here on."""
        self._newest = step
        only = per_rank_bytes if per_rank_bytes and not self.ship_whole else 0
        if only == 0 and not self.ship_whole and (snapshot := self.file.read(step)) is not None:
            only = len(snapshot.body) - len(split(snapshot.body)[1])
        if self.peers:
            self._replicator.replicate(step, self.peers, only)

    def is_replicated(self) -> bool:
        """Whether the newest snapshot is written, and the peers hold it.

        Raises:
            StorageFull: There is no room, here or at the peers.
        """
        if not self.writer.is_idle():
            return False
        if not self.peers or self.file.replicated >= self._newest:
            return True
        if self._replicator.full_bytes:
            where = f"the memory that this job holds at {self.peers[0]}"
            raise StorageFull(path=where, wanted_bytes=self._replicator.full_bytes)
        return False

    def restorable(self, *, is_new: bool) -> dict[int, tuple[str, int]]:
        """List the steps that this rank can restore: the source and the generation of each.

        Stored files have no generation: 0.
        """
        sources = {step: ("storage", 0) for step in self._checkpoints.steps()}
        own_steps = () if self._file is None else self._file.steps()
        if is_new or not own_steps:  # own memory may be of an earlier process: peers know better
            for step, replica in replicas_at_peers(self._environment).items():
                sources[step] = ("peer" if replica.whole else "replica", replica.generation)
        for step in own_steps:
            source, generation = sources.get(step, ("", 0))
            is_older = source == "peer" and generation > self.file.generation(step)
            self._outdated = (self._outdated - {step}) | ({step} if is_older else set())
            if not is_older:
                sources[step] = ("shm", self.file.generation(step))
        if is_new:
            sources.setdefault(0, ("start", 0))
        self._stored_steps = frozenset(
            n for n, (source, _) in sources.items() if source == "storage"
        )
        return sources

    def stored_split(self, step: int) -> tuple[int, ...]:
        """Return the ranks whose stored shards make up a step; none if it has another source."""
        return self._checkpoints.shard_ranks(step) if step in self._stored_steps else ()

    def find(self, step: int) -> FoundState | None:
        """Find the state of a step: in shared memory, at the peers, then in stored files."""
        is_here = self._file is not None and step not in self._outdated
        snapshot = self.file.read(step) if is_here else None
        if snapshot is not None:
            per_rank, shared = split(snapshot.body)
            return FoundState(per_rank=per_rank, shared=shared, is_own=True)
        replica = replicas_at_peers(self._environment).get(step)
        if replica is not None:
            body = fetch_replica(self._environment, replica.address, step)
            if body is not None:
                per_rank, shared = split(body)
                shared = shared if replica.whole else b""
                return FoundState(per_rank=per_rank, shared=shared, is_own=True)
        return self._checkpoints.find(step)

    def stored_shard(self, step: int, index: int) -> tuple[bytes, bytes]:
        """Read a rank's shard of a step from a stored file."""
        return self._checkpoints.shard(step, index)

    def settle(
        self, step: int, tag: SnapshotTag, *, moved: bool, is_resharded: bool = False
    ) -> None:
        """Make the restored step the newest one, and replicate it to new peers.

        After resharding, the previous shards stay until the step after the next is written: as
        long as a rank has not completed the next step, all may have to restore them again.
        """
        self.file.drop_newer_than(step)
        self.file.replicated = -1
        self._resharded_at = step if is_resharded else min(self._resharded_at, step - 1)
        is_here = step in self.file.steps() and step not in self._outdated
        if is_resharded and not is_here:
            self._newest = self.file.replicated = (
                step  # it has nothing of that step that others need
            )
        elif not is_resharded and (moved or not is_here):
            self.snapshot(step, tag, pack(self.tracked))
        else:
            self.replicate(step)

    def emergency_checkpoint(self, tag: SnapshotTag, agent: AgentClient) -> None:
        """Write the newest step to a file at once: the gang is about to end."""
        steps = self.file.steps()
        snapshot = self.file.read(steps[-1]) if steps else None
        if snapshot is not None and snapshot.step > self._resharded_at:
            checkpoint = self._checkpoint(snapshot.step, tag, snapshot.body, is_alone=True)
            write_checkpoint(self._store_folder, checkpoint, agent, 0.0)

    def _create_file(self, capacity: int) -> SnapshotFile:
        try:
            return SnapshotFile.create(Path(self._environment.snapshot_file), capacity)
        except OSError as error:
            raise StorageFull(path="/dev/shm", wanted_bytes=2 * capacity) from error  # noqa: S108 - names shared memory

    @property
    def _store_folder(self) -> Path:
        return Path(self._environment.restore).parent / "stored"

    def _checkpoint(
        self, step: int, tag: SnapshotTag, body: bytes, *, is_alone: bool = False
    ) -> Checkpoint:
        """A checkpoint of this rank; one that is alone is part of a set only if sharded."""
        is_sharded = self.tracked.is_sharded
        return Checkpoint(
            step=step,
            rank=tag.rank,
            world=0 if is_alone and not is_sharded else tag.world,
            body=body,
            whole=not is_sharded and is_whole(body),
        )

    def _write_beside(self, checkpoint: Checkpoint, agent: AgentClient, began_s: float) -> None:
        """Write a checkpoint on another thread; the training is held up only by the copy."""
        held_s = monotonic_s() - began_s
        threading.Thread(
            target=write_checkpoint,
            args=(self._store_folder, checkpoint, agent, held_s),
            daemon=True,
        ).start()
