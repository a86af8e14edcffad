"""One rank of a gang against its node agent, in this process: the test says what control would."""

import os
import socket
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from types import SimpleNamespace
from typing import TypeVar

import pytest
import torch

from karez import training
from karez.core import environment
from karez.core.errors import BadRequest
from karez.core.messages.orders import (
    CutLinkOrder,
    DropReplicasOrder,
    EmergencyCheckpointOrder,
    ExitOrder,
    FlipBitOrder,
    Order,
    QueryShardsOrder,
    QuiesceOrder,
    StartGenerationOrder,
    StoreCheckpointOrder,
)
from karez.core.messages.reports import (
    REPORTS,
    BadLossReport,
    CheckpointReport,
    CommitReport,
    FinishedReport,
    ReadyReport,
    Report,
    ResumedReport,
    TotalStepsReport,
)
from karez.core.messages.wire import Malformed, decode, encode
from karez.core.processes import ProcessSpec
from karez.core.workloads import WorkloadId
from karez.drivers.steward.process_table import ProcessTable
from karez.drivers.steward.rank_listener import RankListener
from karez.runtime import agent_client, restore
from tests.contracts.gang import until

JOB, STEPS = WorkloadId("job-1"), 6
R = TypeVar("R", bound=Report)
ROWS = [torch.full((2, 4), float(n)) for n in range(STEPS)]


class Restarted(Exception):
    """The rank has killed its process: its state is lost."""


def restarted(*_: int) -> None:
    raise Restarted


def as_process(table: ProcessTable, key: str) -> None:
    """Let this process be taken for one of the agent's."""
    process = table.get(key)
    assert process is not None
    os.environ[environment.KEY_NAME] = key
    os.environ[environment.PROCESS_TOKEN] = process.token


class Agent:
    """A node agent with one rank, which trains in a thread and stops before each step."""

    def __init__(self, folder: Path) -> None:
        self.table, self.folder = ProcessTable(), folder
        self.permits = threading.Semaphore(0)
        self.attempts = 0
        self.seen = 0
        self.listener = RankListener(self.table, str(folder / "agent.sock"))
        self.model = torch.nn.Linear(4, 1)
        self.losses: dict[int, float] = {}
        self.ended: BaseException | None = None

    def start(self, loss_of: Callable[[int, torch.Tensor], torch.Tensor] | None = None) -> None:
        """A process of the rank."""
        self.attempts += 1
        key = f"job-1.0.{self.attempts}"
        spec = ProcessSpec(key=key, workload=JOB, rank=0, epoch=1, command=("true",))
        self.table.add(spec, self.folder)
        as_process(self.table, key)
        self.permits = threading.Semaphore(0)  # an earlier process of the rank gets none any more
        words = (self.permits, loss_of)
        self.thread = threading.Thread(target=self.train, args=words, daemon=True)
        self.thread.start()

    def start_first(
        self, loss_of: Callable[[int, torch.Tensor], torch.Tensor] | None = None
    ) -> None:
        """A process of the rank, in its first generation."""
        self.start(loss_of)
        self.told(ReadyReport)
        self.begin(1, 0)

    def train(
        self,
        permits: threading.Semaphore,
        loss_of: Callable[[int, torch.Tensor], torch.Tensor] | None,
    ) -> None:
        try:
            with training.session(seed=1, snapshot_every=1) as run:
                self.state = run._runtime.state
                model = self.model = torch.nn.Linear(4, 1)
                optimizer = torch.optim.AdamW(model.parameters(), lr=0.1)
                run.track(model=model, optimizer=optimizer)
                for rows in run.steps(ROWS, total=STEPS):
                    permits.acquire()
                    loss = (model(rows) - 1).pow(2).mean()
                    loss = loss_of(run.step, loss) if loss_of else loss
                    loss.backward()
                    optimizer.step()
                    optimizer.zero_grad()
                    self.losses[run.step + 1] = float(loss.detach())
                    run.commit(loss=loss)
        except (SystemExit, Restarted) as end:
            self.ended = end

    def allow(self, steps: int) -> None:
        self.permits.release(steps)

    def order(self, order: Order) -> None:
        process = self.table.get(f"job-1.0.{self.attempts}")
        assert process is not None
        process.stream.send(encode(order))

    def begin(self, generation: int, step: int, **more: object) -> None:
        """Start a generation, and wait until the rank is in it."""
        self.order(
            StartGenerationOrder(
                generation=generation,
                step=step,
                rank=0,
                world=1,
                epoch=1,
                rendezvous="",
                **more,  # type: ignore[arg-type]  # its fields
            )
        )
        resumed = self.told(ResumedReport)
        assert (resumed.generation, resumed.step) == (generation, step)

    def told(self, kind: type[R], *, within_s: float = 20.0) -> R:
        """The next report of a kind; others before it are passed over."""
        deadline = time.monotonic() + within_s
        while time.monotonic() < deadline:
            for event in self.table.wait({JOB: self.seen}, 0.5):
                self.seen = event.seq
                if event.type == kind.TYPE:
                    report = decode(REPORTS, {"type": event.type, **event.data})
                    assert not isinstance(report, Malformed), report
                    assert isinstance(report, kind)
                    return report
        raise AssertionError(f"no {kind.TYPE} was told; the rank: {self.ended!r}")

    def told_step(self, step: int) -> CommitReport:
        while (report := self.told(CommitReport)).step != step:
            continue
        return report

    def told_ready(self, generation: int) -> ReadyReport:
        """It has left its group for this generation; it may have said so of earlier ones before."""
        while (report := self.told(ReadyReport)).generation != generation:
            continue
        return report

    def weights(self) -> list[float]:
        return [float(x) for p in self.model.parameters() for x in p.detach().flatten()]

    def finish(self) -> list[float]:
        self.told(FinishedReport)
        weights = self.weights()
        self.order(ExitOrder())
        self.thread.join(20)
        assert not self.thread.is_alive()
        return weights


@pytest.fixture
def agent(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Agent]:
    exits: list[int] = []
    monkeypatch.setattr(agent_client, "os", SimpleNamespace(_exit=exits.append))
    monkeypatch.setattr(restore, "os", SimpleNamespace(kill=restarted, getpid=os.getpid))
    made = Agent(tmp_path)
    for name, value in {
        environment.STEWARD: str(tmp_path / "agent.sock"),
        environment.SNAPSHOT_FILE: str(tmp_path / "snapshot"),
        environment.OUT: str(tmp_path / "out"),
        environment.RESTORE: str(tmp_path / "restore"),
        environment.JOB: JOB,
        environment.KEY_NAME: "",
        environment.PROCESS_TOKEN: "",
        "RANK": "0",
        "WORLD_SIZE": "1",
    }.items():
        monkeypatch.setenv(name, value)
    threads = torch.get_num_threads()
    yield made
    torch.set_num_threads(threads)
    streams = [process.stream._socket for process in made.table.tracked()]
    for stream in streams:
        assert stream is not None
        stream.shutdown(socket.SHUT_RDWR)
    # a rank without its node agent ends its process, which is this one once nothing is patched
    until(lambda: len(exits) == len(streams), within_s=20, what="the ends of the connections")


def calm(agent: Agent) -> list[float]:
    """The weights after a run that nothing disturbs."""
    agent.start()
    assert agent.told(ReadyReport).steps == {0: "start"}
    agent.begin(1, 0)
    assert agent.told(TotalStepsReport).steps == STEPS
    agent.allow(STEPS)
    return agent.finish()


def test_a_rank_goes_back_a_step_and_ends_as_if_nothing_had_happened(agent: Agent) -> None:
    expected = calm(agent)
    (agent.folder / "snapshot").unlink()
    agent.start_first()
    agent.allow(3)
    agent.told_step(3)
    before = agent.losses[3]
    agent.order(QuiesceOrder(generation=2))
    until(lambda: agent.state.is_generation_over, within_s=20)
    agent.allow(1)  # it was in its fourth step when the generation ended
    assert {2, 3} & agent.told_ready(2).steps.keys()
    agent.order(QueryShardsOrder(generation=2, departed=(1,), replica_servers=()))
    while (found := agent.told(ReadyReport).shards_found) is None:
        continue  # the order to leave is answered too, though it has left
    assert found == {1: {}}
    agent.begin(2, 3)
    agent.allow(STEPS)
    assert agent.finish() == expected
    assert agent.losses[3] == before


def test_another_process_of_the_rank_continues_from_shared_memory(agent: Agent) -> None:
    expected = calm(agent)
    (agent.folder / "snapshot").unlink()
    agent.start_first()
    agent.allow(4)
    agent.told_step(4)
    agent.start()  # as if the first had been killed: it waits for a permit and does nothing
    ready = agent.told(ReadyReport)
    assert ready.generation == 0
    assert ready.steps[4] == "shm"
    agent.begin(2, 4)
    agent.allow(2)
    assert agent.finish() == expected


def test_a_step_with_a_bad_loss_is_done_again_without_its_batch(agent: Agent) -> None:
    def poisoned(step: int, loss: torch.Tensor) -> torch.Tensor:
        return loss * float("nan") if step == 2 and agent.losses.get(3) is None else loss

    agent.start_first(poisoned)
    agent.allow(3)
    bad = agent.told(BadLossReport)
    assert (bad.step, bad.batch) == (3, 2)
    agent.order(QuiesceOrder(generation=2))
    agent.told_ready(2)
    agent.begin(2, 2, skipped_batches=(2,))
    agent.allow(STEPS)
    assert all(w == w for w in agent.finish())  # no NaN


def test_checkpoints_are_stored_when_asked_for_and_in_an_emergency(agent: Agent) -> None:
    agent.start_first()
    agent.allow(1)
    agent.told_step(1)
    agent.order(DropReplicasOrder(departed=(1,), replica_servers=()))
    agent.order(StoreCheckpointOrder(step=2))
    snapshots = agent.state.snapshots
    assert snapshots is not None
    until(lambda: snapshots.is_store_wanted, within_s=20)
    agent.allow(1)
    stored = agent.told(CheckpointReport)
    assert stored.step == 2
    agent.order(EmergencyCheckpointOrder())
    saved = agent.told(CheckpointReport)
    assert saved.step == 2
    before = agent.weights()
    agent.order(FlipBitOrder())
    deadline = time.monotonic() + 10
    while agent.weights() == before and time.monotonic() < deadline:
        time.sleep(0.001)
    assert sum(a != b for a, b in zip(agent.weights(), before, strict=True)) == 1
    agent.order(CutLinkOrder())
    agent.allow(STEPS)
    agent.finish()


def test_a_rank_that_is_not_needed_any_more_ends(agent: Agent) -> None:
    agent.start()
    agent.told(ReadyReport)
    agent.order(ExitOrder())
    agent.thread.join(20)
    assert isinstance(agent.ended, SystemExit)


def test_outside_a_cloud_a_session_is_a_gang_of_one(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delenv(environment.STEWARD, raising=False)
    monkeypatch.setenv(environment.OUT, str(tmp_path))
    monkeypatch.setenv(environment.INPUTS, str(tmp_path))
    threads = torch.get_num_threads()
    model = torch.nn.Linear(4, 1)
    optimizer = torch.optim.SGD(model.parameters(), lr=0.1)
    with training.session() as run:
        with pytest.raises(BadRequest):
            run.model.eval()
        run.track(model=model, optimizer=optimizer)
        assert (run.rank, run.world, run.step, run.device.type) == (0, 1, 0, "cpu")
        for rows in run.steps(ROWS, total=2):
            with run.trying():
                with run.accumulating():
                    run.model(rows).sum().backward()
                run.optimizer.step()
            run.commit(loss=1.0)
        assert run.step == 2
        assert run.output("result") == tmp_path / "result"
        assert run.input("result") == tmp_path / "result"
        with pytest.raises(BadRequest, match="no input 'none'"):
            run.input("none")
        with pytest.raises(BadRequest, match=r"without run\.commit"):
            list(run.steps(ROWS, total=4))
    torch.set_num_threads(threads)


def test_a_session_that_tracks_nothing_ends_like_a_plain_script(agent: Agent) -> None:
    agent.table.add(
        ProcessSpec(key="job-1.0.1", workload=JOB, rank=0, epoch=1, command=("true",)),
        agent.folder,
    )
    as_process(agent.table, "job-1.0.1")
    done = threading.Event()

    def evaluate() -> None:
        with training.session() as run:
            run.progress("evaluating", 1, 2)
        done.set()

    threading.Thread(target=evaluate, daemon=True).start()
    assert done.wait(20)
    assert not any(event.type == FinishedReport.TYPE for event in agent.table.wait({JOB: 0}, 0.1))
