"""Where a rank's snapshots are: its own shared memory, its peers' keepers, stored files."""

import threading
import time
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path

from karez.core.errors import StorageFull
from karez.core.slots import Slots
from karez.training.worker.link import (
    Shipper,
    StewardLink,
    Surroundings,
    fetch_kept,
    kept_by_peers,
)
from karez.training.worker.state import (
    Packed,
    Tracked,
    is_whole,
    pack,
    room_for,
    size_of,
    split,
)


@dataclass(frozen=True, slots=True, kw_only=True)
class Found:
    """A state that was found: the light part, the heavy one if it is there, and whose it is."""

    light: bytes
    heavy: bytes
    is_own: bool


@dataclass(frozen=True, slots=True, kw_only=True)
class Stamp:
    """Of which generation a snapshot is, and who stores what of it."""

    generation: int
    rank: int
    world: int


class Keeping:
    """One rank's snapshots."""

    def __init__(self, place: Surroundings) -> None:
        """Open the slots of the process before this one, if there was one."""
        self._place = place
        self._tracked: Tracked | None = None
        self.peers: tuple[str, ...] = ()
        self.ship_whole = True
        """Whether peers need the heavy part: no other rank on another node has it."""
        self.store_at: int | None = None
        self._slots: Slots | None = None
        with suppress(FileNotFoundError, ValueError):
            self._slots = Slots(Path(place.slots))
        self._shipper = Shipper(place)

    @property
    def slots(self) -> Slots:
        """The own shared memory, made if there is none. Raises StorageFull."""
        if self._slots is None:
            self._slots = self._make(room_for(self.tracked))
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

    def snapshot(self, step: int, stamp: Stamp, packed: Packed, link: StewardLink | None) -> None:
        """Keep a completed step here, send it to the peers, and store it if that was asked."""
        parts = packed.parts
        size = size_of(parts)
        if size > self.slots.capacity:
            before = self.slots.read(step - 1)
            self._slots = self._make(int(size * 1.5))
            if before is not None:
                self.slots.write(before.step, before.generation, [before.body])
        self.slots.write(step, stamp.generation, parts)
        self.ship(step, packed.light_bytes)
        if self.store_at == step:
            self.store_at = None
            began = time.monotonic()  # noqa: TID251 - a duration
            whole = self.tracked.is_sharded or stamp.rank == 0
            body = b"".join(parts) if whole else b"".join(parts[: 1 + len(packed.light)])
            self._store(step, stamp, body, link, began)

    def ship(self, step: int, light_bytes: int | None = None) -> None:
        """Have the peers keep a step."""
        only = light_bytes if light_bytes and not self.ship_whole else 0
        if only == 0 and not self.ship_whole and (kept := self.slots.read(step)) is not None:
            only = len(kept.body) - len(split(kept.body)[1])
        if self.peers:
            self._shipper.ship(step, self.peers, only)

    def is_replicated(self, step: int) -> bool:
        """Rule R: whether the peers hold a step. Raises StorageFull if they have no room."""
        if not self.peers or self.slots.replicated >= step:
            return True
        if self._shipper.full_bytes:
            where = f"the memory that this job holds at {self.peers[0]}"
            raise StorageFull(path=where, wanted_bytes=self._shipper.full_bytes)
        return False

    def restorable(self, *, is_new: bool) -> dict[int, str]:
        """Step -> where this rank would take it from."""
        found: dict[int, str] = {}
        for step, paths in self._stored().items():
            if any(is_whole(path.read_bytes()) for path in paths):
                found[step] = "storage"
        own = () if self._slots is None else self._slots.steps()
        if is_new or not own:  # what lies here may be from an earlier stay: peers know better
            for step, (_, whole) in kept_by_peers(self._place).items():
                found[step] = "peer" if whole else "replica"
        for step in own:
            found[step] = "shm"
        if is_new:
            found.setdefault(0, "start")
        return found

    def find(self, step: int) -> Found | None:
        """The state of a step from the nearest place that has it."""
        snapshot = None if self._slots is None else self._slots.read(step)
        if snapshot is not None:
            light, heavy = split(snapshot.body)
            return Found(light=light, heavy=heavy, is_own=True)
        kept = kept_by_peers(self._place).get(step)
        if kept is not None:
            body = fetch_kept(self._place, kept[0], step)
            if body is not None:
                light, heavy = split(body)
                return Found(light=light, heavy=heavy if kept[1] else b"", is_own=True)
        return self._from_files(self._stored().get(step, []))

    def settle(self, step: int, stamp: Stamp, *, moved: bool) -> None:
        """After a restore: the agreed step is the newest, and new peers must hear of it."""
        self.slots.drop_newer(step)
        self.slots.replicated = -1
        if moved or step not in self.slots.steps():
            self.snapshot(step, stamp, pack(self.tracked), None)
        else:
            self.ship(step)

    def gasp(self, stamp: Stamp, link: StewardLink) -> None:
        """Store the newest step at once: the gang is about to end."""
        steps = self.slots.steps()
        snapshot = self.slots.read(steps[-1]) if steps else None
        if snapshot is not None:
            alone = Stamp(generation=stamp.generation, rank=stamp.rank, world=0)
            self._write(snapshot.step, alone, snapshot.body, link, 0.0)

    def _make(self, capacity: int) -> Slots:
        try:
            return Slots.create(Path(self._place.slots), capacity)
        except OSError as error:
            raise StorageFull(path="/dev/shm", wanted_bytes=2 * capacity) from error  # noqa: S108

    def _stored(self) -> dict[int, list[Path]]:
        """Step -> the files of it: this rank's own first, then what all have in common."""
        found: dict[int, list[Path]] = {}
        for path in sorted(Path(self._place.restore).glob("step-*.kz")):
            step = int(path.stem.split("-")[1])
            found.setdefault(step, []).append(path)
            found[step].sort(key=lambda path: path.stem.endswith("-whole"))
        return found

    def _from_files(self, paths: list[Path]) -> Found | None:
        found: Found | None = None
        for path in paths:
            light, heavy = split(path.read_bytes())
            is_own = not path.stem.endswith("-whole")
            if found is None:
                found = Found(light=light, heavy=heavy, is_own=is_own)
            elif not found.heavy:
                found = Found(light=found.light, heavy=heavy, is_own=found.is_own)
        return found

    def _store(
        self, step: int, stamp: Stamp, body: bytes, link: StewardLink | None, began: float
    ) -> None:
        """Write a checkpoint beside the training; held up is the rank only while it copies."""
        if link is None:
            return
        held_s = time.monotonic() - began  # noqa: TID251 - a duration
        threading.Thread(
            target=self._write, args=(step, stamp, body, link, held_s), daemon=True
        ).start()

    def _write(
        self, step: int, stamp: Stamp, body: bytes, link: StewardLink, held_s: float
    ) -> None:
        """Write a checkpoint file; the foreman has the node put it into the blob store."""
        folder = Path(self._place.restore).parent / "stored"
        folder.mkdir(exist_ok=True)
        path = folder / f"step-{step}-{stamp.rank}.kz"
        path.write_bytes(body)
        whole = not self.tracked.is_sharded and is_whole(body)
        link.say("stored", step=step, path=str(path), world=stamp.world, whole=whole, held_s=held_s)
