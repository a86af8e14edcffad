"""The session: what user code sees of training that does not stop.

    with training.session() as run:
        run.track(model=model, optimizer=optimizer)
        for batch in run.steps(loader, total=1000):
            loss = ...; loss.backward(); optimizer.step(); optimizer.zero_grad()
            run.commit(loss=loss)

Gradients are averaged over the ranks at the end of each backward. When a peer is lost, the
averaging gives up quietly, the step's result is thrown away, and `commit` puts the state of the
last step back that every rank can restore; the loop then simply yields that batch again. Code with
collectives of its own, such as FSDP2's, stands in `with run.trying():`, which ends such a step.
"""

import math
import os
import random
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from pathlib import Path
from statistics import fmean, pstdev
from typing import Any

import numpy as np
import torch

from karez.core.errors import BadRequest
from karez.runtime.agent_client import RankEnvironment, rank_environment
from karez.runtime.collective_backends import collective_backend
from karez.runtime.loader import Listed, Replay, StepLoader
from karez.runtime.process_group import ProcessGroup
from karez.runtime.rank_runtime import RankRuntime
from karez.runtime.training_state import History, Stateful, Tracked
from karez.transport.rank_status import Activity

SPIKE_AFTER = 20
"""Losses that must be known before one can be called a spike."""
Make = Callable[["Run"], tuple[torch.nn.Module, torch.optim.Optimizer]]


class Run:
    """One rank's part in a job."""

    def __init__(
        self,
        environment: RankEnvironment,
        *,
        seed: int,
        replays: int,
        spike: float,
        group: ProcessGroup,
    ) -> None:
        """Connect to the steward, if there is one."""
        self._place = environment
        self._seed = seed
        self._spike = spike
        self._history = History()
        self._is_committed = True
        self.device = torch.device("cuda" if environment.device == "gpu" else "cpu")
        self._member = RankRuntime(environment, self._history, seed, group)
        self._member.replays = replays

    # for user code

    @property
    def rank(self) -> int:
        """This rank's number in the group as it is now."""
        return self._member.rank

    @property
    def world(self) -> int:
        """How many ranks there are now."""
        return self._member.world

    @property
    def step(self) -> int:
        """Steps that are complete."""
        return self._member.step

    @property
    def model(self) -> torch.nn.Module:
        """The model, as it is in this generation. Raises BadRequest before `track` or `build`."""
        return self._member.need_tracked().model

    @property
    def optimizer(self) -> torch.optim.Optimizer:
        """The optimizer, as it is in this generation. Raises BadRequest as `model`."""
        return self._member.need_tracked().optimizer

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
        how many steps are done. Call it once, after building them, before `steps`. Gradients are
        averaged by the session; do not wrap the model for that.
        """
        kept = {**others, "karez": self._history}
        self._member.average_grads_of(model)
        self._member.join(Tracked(model=model, optimizer=optimizer, others=kept))

    def build(self, make: Make, **others: Stateful) -> None:
        """As `track`, for models that are bound to their process group, such as FSDP2's.

        `make(run)` is called once the group is there, and again in every generation; it returns
        the model and its optimizer, which `run.model` and `run.optimizer` then are. They average
        their gradients themselves. The step's code belongs in `with run.trying():`.
        """
        kept = {**others, "karez": self._history}
        self._member.join_by(lambda: make(self), kept)

    def steps(self, loader: StepLoader | Iterable[Any], *, total: int) -> Iterator[Any]:
        """Yield the batch of each step until `total` steps are complete on every rank.

        The loader is a StepLoader, or anything that can be iterated, such as a DataLoader with
        workers: it is started anew after a loss and read up to where it was.
        """
        member = self._member
        member.need_tracked()
        source: StepLoader
        if isinstance(loader, StepLoader):
            source = loader
        elif isinstance(loader, (list, tuple, range)):
            source = Listed(batches=loader)
        else:
            source = Replay(loader, seed=self._seed)
            member.also_keep("karez-loader", source)
        member.say("total", steps=total)
        while True:
            while member.step < total:
                before = (member.step, member.generation)
                member.post(Activity.LOADING)
                batch = source.at(member.batch, member.rank, member.world)
                member.post(Activity.COMPUTING)
                if not member.may_enter():
                    continue
                self._is_committed = False
                yield batch
                if not self._is_committed and before == (member.step, member.generation):
                    raise BadRequest(
                        problem="a step ended without run.commit(loss=...)",
                        fix="Call it once at the end of the loop's body.",
                    )
            if member.all_here() or member.step >= total:
                return

    @contextmanager
    def trying(self) -> Iterator[None]:
        """The step's code, where it has collectives of its own: a broken one ends the step."""
        try:
            yield
        except RuntimeError as error:
            if not self._member.is_broken_by(error):
                raise
            self._is_committed = True
            self._member.report_collective_failure(error)
            self._member.heal_if_needed()

    def commit(self, *, loss: torch.Tensor | float) -> None:
        """End a step: snapshot it, or, if a peer was lost during it, go back to the last one."""
        self._is_committed = True
        member = self._member
        if not member.is_spoiled:
            value = float(loss.detach() if isinstance(loss, torch.Tensor) else loss)
            wrong = self._wrong_with(value)
            if wrong:
                member.report_bad_loss(wrong)
            else:
                self._history.add(member.step + 1, value)
                member.complete(value)
        member.heal_if_needed()

    def _wrong_with(self, loss: float) -> str:
        if not self._member.is_kept:
            return ""
        if not math.isfinite(loss):
            return f"the loss was {loss}"
        known = [value for _, value in self._history.losses]
        if not self._spike or len(known) < SPIKE_AFTER:
            return ""
        mean, spread = fmean(known), pstdev(known)
        if loss > mean + self._spike * max(spread, 1e-12):
            return f"the loss leapt to {loss:.4g} from {mean:.4g} on average"
        return ""

    def _finish(self) -> None:
        self._member.finish()


@contextmanager
def session(
    *,
    seed: int = 0,
    replays: int = 1,
    spike: float = 0.0,
    hide_world: bool = False,
    collectives: str = "gloo",
) -> Iterator[Run]:
    """Join the gang. Outside a cloud it is a gang of one, and nothing is kept.

    Args:
        seed: For the random generators of Python, NumPy and torch, the same on all ranks;
            reseed by `run.rank` afterwards where ranks should differ.
        replays: How often a step whose loss is not finite is done again with the same batch,
            before that batch is left out.
        spike: Treat a loss so many standard deviations above the mean of the last 64 like one
            that is not finite. 0: never.
        hide_world: Let libraries that would form a group of their own, such as Accelerate and
            the Hugging Face Trainer, see a single process; the session does what is between
            ranks.
        collectives: The session's own: `gloo`, by way of the host's memory, or, where the device
            has them, `nccl` or `hccl`, which follow their documentation but were never run.

    Raises:
        BadRequest: These collectives cannot be had here.
    """
    environment = rank_environment()
    if hide_world:
        for name in ("RANK", "LOCAL_RANK", "WORLD_SIZE", "MASTER_ADDR", "MASTER_PORT"):
            os.environ.pop(name, None)  # noqa: TID251 - what libraries read
    torch.set_num_threads(max(1, len(os.sched_getaffinity(0)) if environment.steward else 1))
    random.seed(seed)
    np.random.seed(seed)
    torch.manual_seed(seed)
    group = ProcessGroup(collective_backend(collectives))
    run = Run(environment, seed=seed, replays=replays, spike=spike, group=group)
    yield run
    run._finish()
