"""The session: what user code sees of training that does not stop.

    with training.session() as run:
        run.track(model=model, optimizer=optimizer)
        for batch in run.steps(loader, total=1000):
            loss = ...; loss.backward(); optimizer.step(); optimizer.zero_grad()
            run.commit(loss=loss)

Gradients are averaged over the ranks at the end of each backward. When a peer is lost, the
averaging gives up quietly, the step's result is thrown away, and `commit` puts the state of the
last step back that every rank can restore; the loop then simply yields that batch again.
"""

import os
import random
import signal
import time
from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np
import torch

from karez.core.errors import BadRequest, StorageFull
from karez.core.slots import Slots
from karez.training.worker.group import Group, Membership
from karez.training.worker.link import (
    Shipper,
    StewardLink,
    Surroundings,
    fetch_kept,
    kept_by_peers,
    surroundings,
)
from karez.training.worker.loader import Replay, StepLoader
from karez.training.worker.state import (
    History,
    Stateful,
    Tracked,
    pack,
    room_for,
    size_of,
    unpack,
)


class Run:
    """One rank's part in a job."""

    def __init__(self, place: Surroundings) -> None:
        """Connect to the steward, if there is one."""
        self._place = place
        self.rank = place.seat
        self.world = place.world
        self.device = torch.device("cuda" if place.device == "gpu" else "cpu")
        self.step = 0
        self._generation = 0
        self._wanted = 0
        self._spoiled = False
        self._reducing = False
        self._total = 0
        self._peer = ""
        self._store_at: int | None = None
        self._tracked: Tracked | None = None
        self._slots: Slots | None = None
        self._group = Group()
        self._shipper: Shipper | None = None
        self._history = History()
        self._link = StewardLink(place.steward, place.key, self._hear) if place.steward else None

    # for user code

    def input(self, name: str) -> Path:
        """The folder of an input artifact. Raises BadRequest if the job names no such input."""
        folder = Path(self._place.inputs) / name
        if not folder.is_dir():
            raise BadRequest(
                problem=f"this job has no input {name!r}", fix=f"submit it with --input {name}=..."
            )
        return folder

    def output(self, name: str) -> Path:
        """A new folder whose files become an artifact when the job succeeds."""
        folder = Path(self._place.out) / name
        folder.mkdir(parents=True, exist_ok=True)
        return folder

    def track(
        self, *, model: torch.nn.Module, optimizer: torch.optim.Optimizer, **others: Stateful
    ) -> None:
        """Take charge of a model, its optimizer and anything else with a state_dict.

        On return they hold the state of the last step that all ranks have, and `step` says
        how many steps are done. Call it once, after building them, before `steps`.
        """
        kept = {**others, "karez": self._history}
        self._tracked = Tracked(model=model, optimizer=optimizer, others=kept)
        for parameter in model.parameters():
            if parameter.requires_grad:
                parameter.register_post_accumulate_grad_hook(self._on_grad)
        if self._link is not None:
            self._open_slots()
            self._stand(0)

    def steps(self, loader: StepLoader | Iterable[Any], *, total: int) -> Iterator[Any]:
        """Yield the batch of each step until `total` steps are complete on every rank."""
        if self._tracked is None:
            raise BadRequest(
                problem="steps() came before track()", fix="Call run.track(...) first."
            )
        source = loader if isinstance(loader, StepLoader) else Replay(loader)
        self._total = total
        if self._link is not None:
            self._link.say("total", steps=total)
        while True:
            while self.step < total:
                before = (self.step, self._generation)
                yield source.at(self.step, self.rank, self.world)
                if before == (self.step, self._generation):
                    raise BadRequest(
                        problem="a step ended without run.commit(loss=...)",
                        fix="Call it once at the end of the loop's body.",
                    )
            if self._all_here():
                return

    def commit(self, *, loss: torch.Tensor | float) -> None:
        """End a step: snapshot it, or, if a peer was lost during it, go back to the last one."""
        if not self._spoiled:
            self.step += 1
            value = float(loss.detach() if isinstance(loss, torch.Tensor) else loss)
            self._history.add(self.step, value)
            self._snapshot()
            if self._link is not None:
                self._link.say("commit", generation=self._generation, step=self.step, loss=value)
        self._heal_if_needed()

    # inside

    def _hear(self, message: Mapping[str, Any]) -> None:
        """On the link's thread: what cannot wait for the end of a step."""
        if message["type"] == "halt":
            self._wanted = int(message["generation"])
            self._group.abort()
        elif message["type"] == "store":
            self._store_at = int(message["step"])

    @property
    def _is_over(self) -> bool:
        return self._wanted > self._generation

    def _on_grad(self, _parameter: torch.Tensor) -> None:
        if not self._reducing and self._group.world > 1:
            self._reducing = True
            torch.autograd.Variable._execution_engine.queue_callback(self._reduce)

    def _reduce(self) -> None:
        self._reducing = False
        if self._spoiled or self._tracked is None:
            return
        parameters = [p for p in self._tracked.model.parameters() if p.requires_grad]
        for parameter in parameters:
            if parameter.grad is None:
                parameter.grad = torch.zeros_like(parameter)
        grads = [p.grad for p in parameters if p.grad is not None]
        self._together(lambda: self._group.average(grads))

    def _together(self, collective: Any) -> bool:
        """Do something with all ranks; False, and the step is spoiled, if one was lost."""
        if not self._wait_for_peer():
            self._spoiled = True
            return False
        try:
            if self._is_over:
                raise RuntimeError("the generation is over")
            collective()
        except RuntimeError as error:
            self._spoiled = True
            if self._link is not None and not self._is_over:
                text = str(error).splitlines()[0][:200]
                self._link.say("stumbled", generation=self._generation, error=text)
            return False
        return True

    def _wait_for_peer(self) -> bool:
        """Rule R: nobody enters step t before a peer holds this rank's step t-1."""
        while self._peer and self._slots is not None and self._slots.replicated < self.step:
            if self._is_over:
                return False
            if self._shipper is not None and self._shipper.full_bytes:
                where = f"the memory that this job holds at {self._peer}"
                raise StorageFull(path=where, wanted_bytes=self._shipper.full_bytes)
            time.sleep(0.0005)  # noqa: TID251 - waiting on shared memory, which cannot wake us
        return True

    def _all_here(self) -> bool:
        if self._group.world > 1 and not self._together(self._group.meet):
            self._heal_if_needed()
            return self.step >= self._total
        return True

    def _heal_if_needed(self) -> None:
        if self._link is None:
            return
        if self._spoiled or self._is_over:
            self._stand(self._wanted)

    def _open_slots(self) -> None:
        path = Path(self._place.slots)
        try:
            self._slots = Slots(path)
        except FileNotFoundError:
            assert self._tracked is not None
            self._slots = self._make_slots(room_for(self._tracked))
        self._shipper = Shipper(self._place)

    def _make_slots(self, capacity: int) -> Slots:
        try:
            return Slots.create(Path(self._place.slots), capacity)
        except OSError as error:
            raise StorageFull(path="/dev/shm", wanted_bytes=2 * capacity) from error  # noqa: S108

    def _snapshot(self) -> None:
        if self._slots is None or self._tracked is None:
            return
        parts = pack(self._tracked)
        if size_of(parts) > self._slots.capacity:
            before = self._slots.read(self.step - 1)
            self._slots = self._make_slots(int(size_of(parts) * 1.5))
            if before is not None:
                self._slots.write(before.step, before.generation, [before.body])
        self._slots.write(self.step, self._generation, parts)
        if self._peer and self._shipper is not None:
            self._shipper.ship(self.step, self._peer)
        if self._store_at == self.step:
            self._store_at = None
            self._store(b"".join(parts))

    def _store(self, body: bytes) -> None:
        """Write a checkpoint file; the foreman has the node put it into the blob store."""
        folder = Path(self._place.restore).parent / "stored"
        folder.mkdir(exist_ok=True)
        path = folder / f"step-{self.step}-{self.rank}.kz"
        path.write_bytes(body)
        if self._link is not None:
            self._link.say("stored", step=self.step, path=str(path))

    def _restorable(self) -> dict[int, str]:
        """Step -> where this rank would take it from."""
        found: dict[int, str] = {}
        for file in Path(self._place.restore).glob("step-*.kz"):
            found[int(file.stem.split("-")[1])] = "storage"
        if self._slots is not None and not self._slots.steps():
            for step in kept_by_peers(self._place):
                found[step] = "peer"
        if self._slots is not None:
            for step in self._slots.steps():
                found[step] = "shm"
        if self._generation == 0:
            found.setdefault(0, "start")
        return found

    def _stand(self, generation: int) -> None:
        """Leave the group, say what can be restored, and wait for the word to go on."""
        assert self._link is not None
        self._group.drop()
        self._link.say("stood", generation=generation, steps=self._say_steps())
        while True:
            message = self._link.inbox.get()
            match message["type"]:
                case "halt":
                    self._link.say(
                        "stood", generation=message["generation"], steps=self._say_steps()
                    )
                case "leave":
                    raise SystemExit(0)
                case "go" if message["generation"] >= self._wanted:
                    if self._go(message):
                        return

    def _say_steps(self) -> dict[str, str]:
        return {str(step): source for step, source in self._restorable().items()}

    def _go(self, message: dict[str, Any]) -> bool:
        """Form the group and restore; False: stay and wait, something broke again."""
        assert self._link is not None
        self._generation = self._wanted = int(message["generation"])
        self.rank, self.world = int(message["rank"]), int(message["world"])
        self._peer = str(message["peer"])
        self._spoiled = False
        step = int(message["step"])
        try:
            if self.world > 1:
                member = Membership(
                    generation=self._generation,
                    rank=self.rank,
                    world=self.world,
                    store=message["store"],
                )
                self._group.rebuild(member)
            fresh = [int(number) for number in message.get("fresh", ())]
            if self.rank not in fresh:
                self._restore(step)
            self._share(fresh)
            if step == 0 and self.world > 1 and self._tracked is not None:
                self._group.same(
                    [p.data for p in self._tracked.model.parameters() if p.requires_grad]
                )
        except RuntimeError as error:
            text = str(error).splitlines()[0][:200]
            self._link.say("stumbled", generation=self._generation, error=text)
            return False
        self.step = step
        self._settle_slots()
        losses = self._history.state_dict()["losses"]
        self._link.say("resumed", generation=self._generation, step=step, losses=losses)
        return True

    def _share(self, fresh: list[int]) -> None:
        """Ranks that are new in the gang take the state of the first that is not."""
        if not fresh or self._tracked is None:
            return
        donor = min(set(range(self.world)) - set(fresh))
        body = b"".join(pack(self._tracked)) if self.rank == donor else b""
        body = self._group.hand_out(body, donor)
        if self.rank in fresh:
            unpack(body, self._tracked)
            self._tracked.optimizer.zero_grad()

    def _settle_slots(self) -> None:
        """After a restore: the agreed step is the newest, and a new peer must hear of it."""
        if self._slots is None:
            return
        self._slots.drop_newer(self.step)
        self._slots.replicated = -1
        if self.step not in self._slots.steps():
            self._snapshot()
        elif self._peer and self._shipper is not None:
            self._shipper.ship(self.step, self._peer)

    def _restore(self, step: int) -> None:
        assert self._tracked is not None
        body = self._find(step)
        if body is not None:
            unpack(body, self._tracked)
        elif step or self.step:
            # Nobody has the state any more: a new process starts from the beginning.
            os.kill(os.getpid(), signal.SIGKILL)
        self._tracked.optimizer.zero_grad()

    def _find(self, step: int) -> bytes | None:
        snapshot = None if self._slots is None else self._slots.read(step)
        if snapshot is not None:
            return snapshot.body
        keepers = kept_by_peers(self._place)
        if step in keepers:
            body = fetch_kept(self._place, keepers[step], step)
            if body is not None:
                return body
        for file in Path(self._place.restore).glob(f"step-{step}-*.kz"):
            return file.read_bytes()
        return None

    def _finish(self) -> None:
        """Say that all is done and stay at hand until every rank has said so."""
        if self._link is None:
            return
        self._link.say("done", generation=self._generation)
        while True:
            message = self._link.inbox.get()
            if message["type"] == "leave":
                self._group.drop()
                return
            if message["type"] == "halt":
                self._stand(int(message["generation"]))
                self._link.say("done", generation=self._generation)


@contextmanager
def session(*, seed: int = 0) -> Iterator[Run]:
    """Join the gang. Outside a cloud it is a gang of one, and nothing is kept.

    Args:
        seed: For the random generators of Python, NumPy and torch, the same on all ranks;
            reseed by `run.rank` afterwards where ranks should differ.
    """
    place = surroundings()
    torch.set_num_threads(max(1, len(os.sched_getaffinity(0)) if place.steward else 1))
    random.seed(seed)
    np.random.seed(seed)
    torch.manual_seed(seed)
    run = Run(place)
    yield run
    run._finish()
