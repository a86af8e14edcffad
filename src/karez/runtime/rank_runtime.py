"""A rank as a member of its gang: it meets the others, keeps its state, and heals."""

import faulthandler
import signal
import sys
import time
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import torch

from karez.core.errors import BadRequest
from karez.runtime.agent_client import AgentClient, RankEnvironment
from karez.runtime.gradient_allreduce import GradientAllReduce
from karez.runtime.process_group import Membership, ProcessGroup, ReplicaMismatch, is_torn
from karez.runtime.reshard import is_fixed_size
from karez.runtime.restore import RestorePoint, Restorer, restart_process
from karez.runtime.shards import ShardedOptimizer
from karez.runtime.snapshot_store import SnapshotStore, SnapshotTag
from karez.runtime.training_state import (
    History,
    Stateful,
    Tracked,
    digest_every,
    digest_of,
    inject_bit_error,
    pack,
    restore_extra,
)
from karez.transport.rank_status import Activity, RankStatus, RankStatusFile


class RankRuntime:
    """One rank between its user's code and its gang."""

    def __init__(
        self, environment: RankEnvironment, history: History, seed: int, group: ProcessGroup
    ) -> None:
        """Connect to the steward, if there is one."""
        self.rank, self.world = environment.rank, environment.world
        self.step, self.generation = 0, 0
        self.is_spoiled = False
        self.is_kept = bool(environment.steward)
        """Whether there is a cloud that keeps its state."""
        self.replays = 1
        """How often a step with a bad loss is done again before its batch is left out."""
        self._place, self._history, self._seed = environment, history, seed
        self._wanted = 0
        self._has_state = False  # until it has restored: what lies here may be an earlier life's
        self._skipped: tuple[int, ...] = ()
        self._waited_s, self._began = 0.0, 0.0
        self._compares = False
        self._tracked: Tracked | None = None
        self._make: Callable[[], tuple[torch.nn.Module, torch.optim.Optimizer]] | None = None
        self._others: dict[str, Stateful] = {}
        self._keeping: SnapshotStore | None = None
        self._group = group
        self._averager = GradientAllReduce(
            group=self._group, together=self._together, bad=self._bad_grads, digest=self._digest
        )
        self._board: RankStatusFile | None = None
        self._link: AgentClient | None = None
        if environment.steward:
            faulthandler.register(signal.SIGUSR2, file=sys.stderr, all_threads=True)
            self._board = RankStatusFile(Path(environment.snapshot_folder).with_suffix(".board"))
            self._link = AgentClient(environment.steward, environment.key, self._hear)

    # what the session asks

    @property
    def batch(self) -> int:
        """Which batch the next step takes: batches that were left out are counted, not used."""
        cursor = self.step
        for skipped in self._skipped:
            cursor += skipped <= cursor
        return cursor

    def need_tracked(self) -> Tracked:
        """What is tracked. Raises BadRequest before that."""
        if self._tracked is None:
            raise BadRequest(
                problem="steps() came before track()", fix="Call run.track(...) first."
            )
        return self._tracked

    def say(self, kind: str, **data: object) -> None:
        """Tell the foreman, if there is one."""
        if self._link is not None:
            self._link.send(kind, **data)

    def post(self, doing: Activity) -> None:
        """Write on the board what is being done."""
        if self._board is not None:
            now = time.monotonic()  # noqa: TID251 - the host's own clock, which the steward reads
            posted = RankStatus(
                generation=self.generation, step=self.step, activity=doing, since=now
            )
            self._board.post(posted)

    def also_keep(self, name: str, other: Stateful) -> None:
        """Keep one more thing; it gets its state back if there is one."""
        self.need_tracked().others[name] = other
        if self._keeping is not None and (found := self._keeping.find(self.step)) is not None:
            restore_extra(found.per_rank, name, other)

    def average_grads_of(self, model: torch.nn.Module) -> None:
        """Average gradients over the ranks at the end of each backward."""
        self._averager.watch(model, lambda: not self.is_spoiled and self._tracked is not None)

    def join(self, tracked: Tracked) -> None:
        """Take charge of a state; on return it is that of the last common step."""
        self._tracked = tracked
        if isinstance(tracked.optimizer, ShardedOptimizer):
            tracked.optimizer.collect = self._collect
        if self._link is not None:
            self._keeping = SnapshotStore(self._place)
            self._keeping.tracked = tracked
            self._stand(0)
        elif isinstance(tracked.optimizer, ShardedOptimizer):
            tracked.optimizer.spread(0, 1)

    def join_by(
        self,
        make: Callable[[], tuple[torch.nn.Module, torch.optim.Optimizer]],
        others: dict[str, Stateful],
    ) -> None:
        """As `join`, for a state that can only be built within a group."""
        self._make, self._others = make, others
        if self._link is None:
            self._group.rebuild(Membership(generation=0, rank=0, world=1, store=""))
            self._build()
            return
        self._keeping = SnapshotStore(self._place)
        self._stand(0)

    def may_enter(self) -> bool:
        """Rule R before a step with collectives of its own; False: begin the step again."""
        if self._make is None:
            return True  # the averaging of its gradients waits
        try:
            self._wait_for_peers()
        except RuntimeError as error:
            self.report_collective_failure(error)
            self.heal_if_needed()
            return False
        return True

    def complete(self, loss: float) -> None:
        """A step is done: keep it and say so."""
        self.step += 1
        self._snapshot()
        now = time.monotonic()  # noqa: TID251 - a duration
        busy_s = max(0.0, now - self._began - self._waited_s) if self._began else 0.0
        self._began, self._waited_s = now, 0.0
        self.say(
            "commit", generation=self.generation, step=self.step, loss=loss, busy_s=round(busy_s, 6)
        )

    def report_bad_loss(self, why: str) -> None:
        """This step must not count."""
        self.is_spoiled = True
        self.say(
            "poisoned",
            generation=self.generation,
            step=self.step + 1,
            batch=self.batch,
            error=why,
            replays=self.replays,
        )

    def is_broken_by(self, error: RuntimeError) -> bool:
        """Whether an error is that of a collective with a lost peer."""
        return self._link is not None and (self._is_over or is_torn(error))

    def report_collective_failure(self, error: Exception) -> None:
        """A collective broke: the step is spoiled, and the foreman hears of it."""
        self.is_spoiled = True
        if not self._is_over:
            text = (str(error).splitlines() or [""])[0][:200]
            self.say("stumbled", generation=self.generation, error=text)

    def all_here(self) -> bool:
        """Meet all others at the end."""
        if self._group.world > 1 and not self._together(self._group.barrier):
            self.heal_if_needed()
            return False
        return True

    def heal_if_needed(self) -> None:
        """Where the generation is over, wait for the next and restore."""
        if self._link is not None and (self.is_spoiled or self._is_over):
            self._stand(self._wanted)

    def finish(self) -> None:
        """Say that all is done and stay at hand until every rank has said so."""
        if self._link is None:
            self._group.shutdown()
            return
        self._link.send("done", generation=self.generation)
        self.post(Activity.QUIESCED)
        while True:
            message = self._link.inbox.get()
            if message["type"] == "leave":
                self._group.shutdown()
                return
            if message["type"] == "halt":
                done = self.step
                self._stand(int(message["generation"]))
                while self.step >= done and not self.all_here():
                    continue
                if self.step < done:  # its loop is over
                    restart_process()
                self._link.send("done", generation=self.generation)

    # inside

    def _hear(self, message: Mapping[str, Any]) -> None:
        """On the link's thread: what cannot wait for the end of a step."""
        match message["type"]:
            case "halt":
                self._wanted = int(message["generation"])  # before the abort: see _meet
                self._group.abort()
            case "store" if self._keeping is not None:
                self._keeping.store_at = int(message["step"])
            case "gasp" if self._keeping is not None and self._link is not None:
                self._keeping.emergency_checkpoint(self._tag, self._link)
            case "clear" if self._keeping is not None:
                self._keeping.drop_replicas(message["seats"], message["keepers"])
            case "cut":
                self._group.abort()  # as if the network had failed: nobody is told
            case "corrupt" if self._tracked is not None:
                inject_bit_error(self._tracked.model)

    @property
    def _is_over(self) -> bool:
        return self._wanted > self.generation

    @property
    def _tag(self) -> SnapshotTag:
        return SnapshotTag(generation=self.generation, rank=self.rank, world=self.world)

    def _collect(self, piece: torch.Tensor) -> torch.Tensor | None:
        found: list[torch.Tensor] = []
        self._together(lambda: found.append(self._group.gather(piece)))
        return found[0] if found else None

    def _bad_grads(self) -> None:
        """A GradScaler meets gradients that overflow every now and then; anybody else must not."""
        others = self.need_tracked().others.values()
        if not any(isinstance(other, torch.amp.GradScaler) for other in others):
            self.report_bad_loss("a gradient was not finite")

    def _together(self, collective: Callable[[], None]) -> bool:
        """Do something with all ranks; False, and the step is spoiled, if one was lost."""
        began = time.monotonic()  # noqa: TID251 - a duration
        self.post(Activity.COLLECTIVE)
        try:
            self._wait_for_peers()
            collective()
        except ReplicaMismatch as odd:
            self._report_odd(odd)
            return False
        except RuntimeError as error:
            self.report_collective_failure(error)
            return False
        finally:
            self._waited_s += time.monotonic() - began  # noqa: TID251 - as above
            self.post(Activity.COMPUTING)
        return True

    def _report_odd(self, odd: ReplicaMismatch) -> None:
        """Replicas differ: the step is given up, and where nobody is right, the one before too."""
        self.is_spoiled = True
        if self._keeping is not None and not odd.ranks and not self.need_tracked().is_sharded:
            self._keeping.slots.drop_newer_than(self.step - 1)
        self.say("corrupt", generation=self.generation, step=self.step, ranks=list(odd.ranks))

    def _wait_for_peers(self) -> None:
        """Rule R: nobody enters step t before its peers hold its step t-1. Raises RuntimeError."""
        while self._keeping is not None and not self._keeping.is_replicated(self.step):
            if self._is_over:
                break
            time.sleep(0.0005)  # noqa: TID251 - waiting on shared memory, which cannot wake us
        if self._is_over:
            raise RuntimeError("the generation is over")

    def _snapshot(self) -> None:
        if self._tracked is None or self._keeping is None:
            return
        self._keeping.snapshot(self.step, self._tag, pack(self._tracked), self._link)

    def _digest(self) -> int:
        """Of the parameters from which this step's gradients were made, where ranks compare."""
        tracked = self.need_tracked()
        is_due = (
            self._compares and tracked.is_alike and self.step % digest_every(tracked.model) == 0
        )
        return digest_of(tracked.model) if is_due else 0

    def _stand(self, generation: int) -> None:
        """Leave the group, say what can be restored, and wait for the word to go on."""
        assert self._link is not None
        self._group.shutdown()
        self.post(Activity.QUIESCED)
        self._say_stood(generation)
        while True:
            message = self._link.inbox.get()
            match message["type"]:
                case "halt":
                    self._say_stood(int(message["generation"]))
                case "seek" if self._keeping is not None:
                    found = self._keeping.replicas_of(message["seats"], message["keepers"])
                    self._say_stood(int(message["generation"]), found)
                case "leave":
                    raise SystemExit(0)
                case "go" if message["generation"] >= self._wanted:
                    if self._go(message):
                        return

    def _say_stood(
        self, generation: int, found: Mapping[int, Mapping[int, int]] | None = None
    ) -> None:
        kept, is_new = self._keeping, not self._has_state
        steps = {0: ("start", 0)} if kept is None else kept.restorable(is_new=is_new)
        sharded = self._tracked is not None and self._tracked.is_sharded
        self.say(
            "stood",
            generation=generation,
            sharded=sharded or self._make is not None,
            steps={str(step): source for step, (source, _) in steps.items()},
            born={str(step): born for step, (_, born) in steps.items() if born},
            found=found,
        )

    def _go(self, message: dict[str, Any]) -> bool:
        """Form the group and restore; False: stay and wait, something broke again."""
        assert self._link is not None
        before, agreed = self.rank, RestorePoint.from_message(message)
        self._begin(message)
        try:
            self._meet(message)
            if self._make is not None:
                self._build()
            if self._keeping is not None:
                peers = tuple(str(peer) for peer in message["peers"])
                whole = bool(message["whole"]) or self.need_tracked().is_sharded
                self._keeping.begin(peers, ship_whole=whole, epoch=int(message["epoch"]))
            had = self.step if self._has_state else None
            self._restorer.restore(agreed, had=had)
        except RuntimeError as error:
            self.is_spoiled = True
            text = (str(error).splitlines() or [""])[0][:200]
            self._link.send("stumbled", generation=self.generation, error=text)
            return False
        self.step, self._has_state = agreed.step, True
        if self._keeping is not None:
            moved = self.rank in agreed.need_state or before != self.rank
            is_recut = bool(agreed.shard_ranks)
            self._keeping.settle(self.step, self._tag, moved=moved, is_recut=is_recut)
        losses = list(self._history.losses)
        rigid = is_fixed_size(self.need_tracked().model, self.world)
        self._link.send(
            "resumed", generation=self.generation, step=self.step, losses=losses, rigid=rigid
        )
        return True

    def _begin(self, message: Mapping[str, Any]) -> None:
        """A new generation, with this place in it."""
        self.generation = int(message["generation"])
        self._group.arm()
        self.rank, self.world = int(message["rank"]), int(message["world"])
        self._skipped = tuple(int(batch) for batch in message.get("skipped", ()))
        self.is_spoiled, self._began = False, 0.0
        self._averager.begin()
        self._compares = bool(message.get("alike"))

    def _meet(self, message: Mapping[str, Any]) -> None:
        if self._is_over:
            raise RuntimeError("the generation is over")
        if self.world > 1 or self._make is not None:
            store = message["store"] if self.world > 1 else ""
            member = Membership(
                generation=self.generation, rank=self.rank, world=self.world, store=store
            )
            self._group.rebuild(member)

    @property
    def _restorer(self) -> Restorer:
        return Restorer(
            tracked=self.need_tracked(),
            snapshots=self._keeping,
            group=self._group,
            rank=self.rank,
            world=self.world,
            seed=self._seed,
            is_built=self._make is not None,
        )

    def _build(self) -> None:
        """Make what is bound to the group anew, and keep its state from now on."""
        assert self._make is not None
        model, optimizer = self._make()
        self._tracked = Tracked(model=model, optimizer=optimizer, others=self._others)
        if self._keeping is not None:
            self._keeping.tracked = self._tracked
