"""Days of a cloud under seeded faults."""

from collections.abc import Callable
from dataclasses import dataclass, field
from random import Random
from typing import Any

from karez.core.jobs import Retry
from karez.core.workloads import ENDED, State
from tests.sim.fake_cloud import DAY_S, HOUR_S, FakeCloud
from tests.sim.fake_ranks import Rank

FAULTS = (
    ("kill a rank", 8),
    ("kill two ranks", 3),
    ("cut the power", 2),
    ("restart a node's agent", 2),
    ("hang a rank", 2),
    ("break a link", 3),
    ("bad loss", 2),
    ("wrong bits", 1),
    ("lose a controller", 3),
    ("a controller fails", 2),
    ("nonsense reports", 3),
    ("kill control", 2),
    ("kill a replica", 2),
)
"""What happens, and how often beside the others."""


NONSENSE: tuple[tuple[str, dict[str, Any]], ...] = (
    ("stood", {"steps": {"3": "shm"}}),
    ("commit", {}),
    ("commit", {"generation": "one", "step": -1, "loss": None}),
    ("ready", {"generation": 1, "steps": [1, 2]}),
    ("exit", {"code": "nine"}),
    ("checkpoint", {"step": 1}),
    ("x" * 5000, {"a": [[[]]]}),
)
"""Reports that cannot be read: of an old release, missing, wrong and unknown."""


@dataclass
class Days:
    """Submits jobs and causes faults, all from one seed."""

    cloud: FakeCloud
    seed: int
    jobs: list[str] = field(default_factory=list)
    active: list[str] = field(default_factory=list)
    """Jobs that had not ended when last looked at."""
    caused: list[str] = field(default_factory=list)

    def __post_init__(self) -> None:
        self.random = Random(self.seed)
        self.service = self.cloud.deploy(replicas=2)

    def run(self, days: float, faults: int) -> None:
        """Spread faults over these days; checks what must hold after each."""
        cloud, end = self.cloud, self.cloud.timeline.now() + days * DAY_S
        cloud.look_every(6 * HOUR_S)
        moments = sorted(self.random.uniform(0, days * DAY_S) for _ in range(faults))
        began = cloud.timeline.now()
        for moment in moments:
            self.fill()
            cloud.run(max(0.0, began + moment - cloud.timeline.now()))
            self.cause()
            cloud.manager.settle()
            cloud.check()
        cloud.run(max(0.0, end - cloud.timeline.now()))

    def finish(self) -> None:
        """No more faults: all comes to an end."""
        cloud = self.cloud
        cloud.run_until_ended(*self.jobs)
        service = cloud.store.workloads.service(self.service)
        assert service is not None
        assert [view.state for view in service.status.ranks] == ["ready", "ready"]
        cloud.stop(self.service)
        cloud.run(2 * HOUR_S)
        assert cloud.state(self.service) == State.CANCELLED
        for name in self.jobs:
            job = cloud.job(name)
            assert job.state == State.SUCCEEDED, (name, job.status)
            assert cloud.gang(name).completed == cloud.totals[name]
        cloud.check_empty()
        self.check_metrics()

    def check_metrics(self) -> None:
        """No time is longer than all of it: an instant that is missing would make it so."""
        for family in self.cloud.metrics.registry.collect():
            sums = {tuple(s.labels.items()): s.value for s in family.samples if "_sum" in s.name}
            counts = {
                tuple(s.labels.items()): s.value for s in family.samples if "_count" in s.name
            }
            for labels, seconds in sums.items():
                assert 0 <= seconds <= counts[labels] * 60 * DAY_S, (family.name, labels)

    def fill(self) -> None:
        """Keep a few more jobs than fit."""
        random, cloud = self.random, self.cloud
        states = cloud.states()
        self.active = [name for name in self.active if states[name] not in ENDED]
        while len(self.active) < 7:
            ranks = random.choice((1, 2, 2, 3, 4, 6))
            name = cloud.submit(
                ranks=ranks,
                min=random.choice((ranks, max(1, ranks // 2))),
                steps=random.randint(20, 90),
                priority=random.choice((0, 0, 5)),
                preemptible=random.random() < 0.5,
                retry=Retry(limit=1000),
            )
            self.jobs.append(name)
            self.active.append(name)

    def cause(self) -> None:
        names, weights = zip(*FAULTS, strict=True)
        what = self.random.choices(names, weights)[0]
        if self.fault(what):
            self.caused.append(what)

    def fault(self, what: str) -> bool:
        """Cause a fault. False: there is nothing that it could hit."""
        by_name = {
            "cut the power": self.cut_power,
            "restart a node's agent": self.restart_agent,
            "kill control": self.kill_control,
            "kill a replica": self.kill_replica,
        }
        if what in by_name:
            return by_name[what]()
        running = [name for name in self.active if self.cloud.living(name)]
        return bool(running) and self.hit(what, self.random.choice(running))

    def cut_power(self) -> bool:
        up = self.nodes_up()
        if len(up) > 2:
            self.cloud.power_cut(self.random.choice(up), for_s=self.random.uniform(60, 8 * HOUR_S))
        return len(up) > 2

    def restart_agent(self) -> bool:
        up = self.nodes_up()
        self.cloud.restart_agent(self.random.choice(up))
        return True

    def kill_control(self) -> bool:
        self.cloud.kill_control()
        return True

    def kill_replica(self) -> bool:
        found = [p for n in self.cloud.fabric.all.values() for p in n.processes.values()]
        mine = [p for p in found if p.spec.workload.startswith(self.service) and p.is_alive]
        if mine:
            self.cloud.fabric.end(self.random.choice(mine), -9)
        return bool(mine)

    def nodes_up(self) -> list[str]:
        return [node.node.id for node in self.cloud.fabric.all.values() if node.is_up]

    def hit(self, what: str, name: str) -> bool:
        """Cause a fault in a job that runs. False: it needs more ranks."""
        cloud, ranks = self.cloud, self.cloud.living(name)
        rank = self.random.choice(ranks)
        match what:
            case "kill two ranks":
                self.kill_two(name, rank)
            case "wrong bits":
                if len(ranks) > 2:
                    cloud.gang(name).report_mismatch(rank, ranks.index(rank))
                return len(ranks) > 2
            case "nonsense reports":
                for kind, data in NONSENSE:
                    cloud.fabric.tell(rank.process, kind, data)
            case "lose a controller":
                cloud.manager.drop_controller(cloud.job(name).id)
            case "a controller fails":
                return cloud.fail_controller(name)
            case _:
                self.simple(what, name, rank)
        return True

    def simple(self, what: str, name: str, rank: Rank) -> None:
        gang = self.cloud.gang(name)
        causes: dict[str, Callable[[], None]] = {
            "kill a rank": lambda: self.cloud.kill(rank),
            "hang a rank": lambda: self.cloud.hang(rank),
            "break a link": lambda: gang.fail_group(rank.generation),
            "bad loss": lambda: gang.report_bad_loss(rank),
        }
        causes[what]()

    def kill_two(self, name: str, rank: Rank) -> None:
        self.cloud.kill(rank)
        self.cloud.run(self.random.uniform(0.0, 3.0))
        if others := self.cloud.living(name):
            self.cloud.kill(self.random.choice(others))
