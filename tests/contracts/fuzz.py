"""Seeded schedules of faults against real gangs: same losses, same weights, nothing left behind."""

from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from random import Random

from karez.core.devices import DeviceKind
from karez.core.fault_injection import FaultKind
from karez.core.gangs import GangSpec
from karez.core.grants import Grant
from karez.core.jobs import Job, JobSpec
from karez.core.node_affinity import NodeAffinity
from karez.core.nodes import NodeId
from karez.core.ports import NodeLost
from karez.core.receipts import Receipt
from karez.core.resource_requests import ResourceRequest
from karez.core.settings import Settings
from karez.core.workloads import State, WorkloadId, WorkloadKind
from tests.contracts.gang import HELD, Bench, Gang, until

STEPS = 60
FAULTS = (
    FaultKind.KILL,
    FaultKind.KILL,
    FaultKind.KILL,
    FaultKind.STOP,
    FaultKind.LINK,
    FaultKind.CORRUPT,
    FaultKind.NODE,
    FaultKind.REPLICA_SERVER,
    FaultKind.CONTROLLER,
)


@dataclass
class Ground(Bench):
    """Three nodes, the third of them free; whatever is asked for is found there or elsewhere."""

    settings: Settings = field(
        default_factory=lambda: Settings(checkpoint_s=1e9, tick_s=0.1, hang_s=0.6, quiesce_s=2.0)
    )
    given: int = 100
    trial: "Trial | None" = None
    """The newest one, for whoever looks into a failure."""

    def find(
        self, need: ResourceRequest, count: int, avoid: frozenset[NodeId], among: NodeAffinity
    ) -> Sequence[Grant]:
        node = next((name for name in ("c", "b", "a") if NodeId(name) not in avoid), None)
        if node is None:
            return []
        self.given += count
        return [
            Grant(node=NodeId(node), kind=self.held, devices=((self.given - n, 1000),))
            for n in range(count)
        ]


@dataclass
class Trial(Gang):
    """One run of the chaos workload."""

    mode: str = "ddp"
    seed: int = 1
    every: int = 1
    """Steps between two snapshots; 0: by their cost."""

    def __post_init__(self) -> None:
        self.bench.count += 1
        self.id = WorkloadId(f"job-{self.bench.count}")
        settings: dict[str, str | int | float | bool] = {
            "steps": self.steps,
            "mode": self.mode,
            "width": 64,
            "batch": 4 * self.ranks,
            "pause_ms": 4.0,
            "snapshot_every": self.every,
        }
        spec = JobSpec(
            name="trial",
            kind=WorkloadKind.TRAIN,
            recipe="chaos-workload",
            settings=settings,
            gang=GangSpec(min=self.ranks, want=self.ranks),
            chaos=True,
        )
        self.bench.store.workloads.add_job(Job(id=self.id, spec=spec, owner="t", created_at=1.0))
        self.grants = [
            Grant(
                node=NodeId("ab"[n * 2 // self.ranks]),
                kind=self.bench.held,
                devices=((n, 1000),),
            )
            for n in range(self.ranks)
        ]
        self.place()
        self.controller = None
        self.thread = None

    def weights(self) -> str:
        artifact = self.bench.store.artifacts.find(self.job().status.outputs["weights"])
        assert artifact is not None
        is_emulated = self.bench.held == DeviceKind.NPU
        assert artifact.spec.facts["device"] == ("npu:0, emulated" if is_emulated else "cpu")
        return str(artifact.spec.facts["weights_sha256"])

    def receipts(self) -> Sequence[Receipt]:
        return self.bench.store.history.receipts(self.id)

    def harm(self, what: FaultKind, rank: int) -> None:
        """Cause a fault, wherever the rank is right now."""
        if what == FaultKind.CONTROLLER:
            self.abandon()
            self.start()
            return
        info = self.processes().get(rank)
        if info is None or not info.alive or not info.pid:
            return
        for node, steward in list(self.bench.fabric.stewards.items()):
            if any(known.key == info.key for known in steward.processes()):
                try:
                    self.bench.fabric.inject_fault(node, self.id, info.key, what)
                except NodeLost:
                    return


@dataclass(frozen=True)
class Outcome:
    """What a schedule led to."""

    seed: int
    faults: tuple[str, ...]
    receipts: Sequence[Receipt]
    same: bool
    why: str = ""


def calm(
    bench: Ground, mode: str, ranks: int, every: int = 1
) -> tuple[dict[tuple[int, int], str], str]:
    """Losses and weights without faults."""
    trial = Trial(bench, ranks=ranks, steps=STEPS, mode=mode, every=every).start()
    done = trial.finish()
    assert done.state == State.SUCCEEDED, f"{done.status} {bench.logs.text()[-3000:]}"
    return trial.losses(), trial.weights()


def disturbed(
    bench: Ground,
    mode: str,
    ranks: int,
    seed: int,
    want: tuple[dict[tuple[int, int], str], str],
    every: int = 1,
) -> Outcome:
    """Three to five faults at random moments, some while another is being dealt with."""
    chance = Random(seed)
    trial = Trial(bench, ranks=ranks, steps=STEPS, mode=mode, every=every).start()
    bench.trial = trial
    told: list[str] = []
    at = 1
    nodes = 0
    under_way: set[FaultKind] = set()
    for _ in range(chance.randint(3, 5)):
        what = chance.choice(FAULTS)
        if what == FaultKind.NODE and (nodes or chance.random() < 0.5):
            what = FaultKind.KILL  # two nodes at once are more than one peer can hold
        if what == FaultKind.CORRUPT and mode == "fsdp":
            what = FaultKind.KILL  # parts that only one rank has: nothing tells that one is wrong
        nodes += what == FaultKind.NODE
        rank = chance.randrange(ranks)
        at += chance.randint(1, 9)
        if chance.random() < 0.7 or not told:
            trial.reach(min(at, STEPS - 5))
            under_way.clear()
        if {*under_way, what} >= {FaultKind.NODE, FaultKind.REPLICA_SERVER}:
            what = FaultKind.KILL  # a node and its peer's copy at once: two losses, and one peer
        under_way.add(what)
        told.append(f"{what.value}@{trial.step()}:{rank}")
        trial.harm(what, rank)
    done = trial.finish(within_s=120)
    if done.state != State.SUCCEEDED:
        why = f"{bench.logs.text()[-1000:]} {done.state} {done.status}"
        return Outcome(seed, tuple(told), trial.receipts(), same=False, why=why)
    same = trial.losses() == want[0] and trial.weights() == want[1]
    return Outcome(seed, tuple(told), trial.receipts(), same=same)


def check(outcome: Outcome) -> None:
    """Raises AssertionError with the schedule in it."""
    told = f"seed {outcome.seed}, {', '.join(outcome.faults)}"
    assert outcome.same, f"{told}: {outcome.why or 'another result'}"
    for receipt in outcome.receipts:
        faults = receipt.cause.count("; then ") + 1
        each = receipt.snapshot_every * (2 if "differ" in receipt.cause else 1)
        assert receipt.steps_lost <= max(1, faults * each), f"{told}: {receipt}"


def ground(folder: Path, held: DeviceKind = HELD) -> Ground:
    """A bench whose fork servers have imported what the chaos workload needs."""
    made = Ground(folder, ["a", "b", "c"], held=held)
    made.store.pool.record_nodes(made.fabric.nodes(), now=1.0)
    return made


def settle(bench: Ground) -> None:
    """Between two schedules: nothing of the one before runs."""
    until(lambda: not any(s.processes() for s in bench.fabric.stewards.values()))
