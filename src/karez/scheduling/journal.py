"""What a desk was told and what it decided, line by line: anyone can redo the decisions from it.

The live cloud and a replay keep the same journal. A line that starts with `{` is what was told,
one step of time; any other is a decision.
"""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace

from karez.core.codec import to_brief_text
from karez.core.identity import Project
from karez.core.resources import Grant, Node
from karez.core.units import MILLI
from karez.core.workloads import WorkloadId
from karez.scheduling.desk import Act, Desk, Preempt, Start
from karez.scheduling.fair import FairShare
from karez.scheduling.finder import Finder
from karez.scheduling.floor import Floor, Run
from karez.scheduling.line import Rules, Waiting
from karez.scheduling.moves import Move
from karez.scheduling.plan import DRAIN_S, drains
from karez.scheduling.pool import free_pool


@dataclass(frozen=True, slots=True, kw_only=True)
class Shift:
    """New places for something that runs."""

    id: WorkloadId
    to: tuple[Grant, ...]


@dataclass(frozen=True, slots=True, kw_only=True)
class Step:
    """What has changed since the step before. Absent nodes, projects and rules stay as they are."""

    at: float
    fresh: bool = False
    """The desk is new and knows nothing."""
    nodes: tuple[Node, ...] | None = None
    projects: tuple[Project, ...] | None = None
    rules: Rules | None = None
    had: Mapping[str, float] | None = None
    """What each project had so far; see karez.scheduling.fair."""
    given: tuple[Grant, ...] = ()
    """Back from those who took devices without standing in line: replacements of lost ranks."""
    ended: tuple[WorkloadId, ...] = ()
    left: tuple[WorkloadId, ...] = ()
    """Gone from the line without having started."""
    taken: tuple[Grant, ...] = ()
    holds: tuple[Run, ...] = ()
    """Found running."""
    came: tuple[Waiting, ...] = ()
    moves: tuple[Shift, ...] = ()
    """Running work that is to go elsewhere."""


def said(at: float, act: Act) -> str:
    """A decision as its line."""
    match act:
        case Start(id=ident, grants=grants):
            return f"{at!r} start {ident} on {_places(grants)}"
        case Preempt(id=ident, by=by):
            return f"{at!r} stop {ident} for {by or 'its node'}"
        case _:
            reason = f" for {act.by}" if act.by else ""
            return f"{at!r} resize {act.id} to {_places(act.grants)}{reason}"


def _places(grants: Sequence[Grant]) -> str:
    return " ".join(_place(grant) for grant in grants)


def _place(grant: Grant) -> str:
    words = [_numbers(grant.kind, grant.devices)] if grant.devices else []
    words += [_numbers("cpu", grant.cores)] if grant.cores else []
    for name, amount in (
        ("dpu", grant.dpu_milli), ("memory", grant.memory_bytes), ("storage", grant.storage_bytes),
    ):  # fmt: skip
        words += [f"{name}={amount}"] if amount else []
    role = f"({grant.role})" if grant.role else ""
    return f"{grant.node}{role}/{'+'.join(words)}"


def _numbers(kind: str, devices: Sequence[tuple[int, int]]) -> str:
    numbers = (f"{i}" if milli == MILLI else f"{i}*{milli}" for i, milli in devices)
    return f"{kind}:{','.join(numbers)}"


@dataclass(slots=True, kw_only=True)
class Recorder:
    """A desk that is told step by step, and writes down what it was told and what it decided."""

    write: Callable[[str], object] | None = None
    finder: Callable[[Desk], Finder] | None = None
    """How single workers find their node; None: as live."""
    desk: Desk = field(default_factory=lambda: _empty())
    _nodes: tuple[Node, ...] = ()
    _taken: list[Grant] = field(default_factory=list)
    _early: list[Grant] = field(default_factory=list)
    """Of these, what the next step has to tell of."""
    _shut_until: float = float("inf")
    """When a maintenance window next begins to matter, or ends."""

    def advance(self, step: Step) -> list[Act]:
        """Bring the desk up to a step, and have it decide."""
        if self.write is not None:
            self.write(to_brief_text(replace(step, taken=(*self._early, *step.taken))))
        self._early.clear()
        self._tell(step)
        acts = self.desk.move({one.id: one.to for one in step.moves}, step.at)
        acts += self.desk.decide(step.at)
        if self.write is not None:
            for act in acts:
                self.write(said(step.at, act))
        return acts

    def move(self, moves: Sequence[Move], at: float) -> list[Act]:
        """Have running work go elsewhere because an operator says so."""
        step = Step(at=at, moves=tuple(Shift(id=move.id, to=move.takes) for move in moves))
        return self.advance(step)

    def took(self, grants: Sequence[Grant]) -> None:
        """Note what was taken out of the desk's pool between two steps."""
        self._taken += grants
        self._early += grants

    def _tell(self, step: Step) -> None:
        if step.fresh:
            self.desk, self._nodes, self._taken = _empty(), (), []
        self._tell_limits(step)
        desk = self.desk
        if step.given:
            for grant in step.given:
                self._taken.remove(grant)
            desk.floor.pool.give_back(step.given)
            desk.look_again()
        for ident in step.ended:
            desk.finish(ident)
        for ident in step.left:
            desk.remove(ident)
        if step.nodes is not None or step.at >= self._shut_until:
            self._nodes = self._nodes if step.nodes is None else step.nodes
            self._rebuild(step.at)
        self._hold(step)
        for waiting in step.came:
            self.desk.add(waiting)

    def _tell_limits(self, step: Step) -> None:
        desk = self.desk
        if step.rules is not None and step.rules != desk.rules:
            desk.rules = step.rules
            desk.look_again()
        if step.projects is not None:
            desk.floor.projects = {project.name: project for project in step.projects}
            desk.look_again()

    def _hold(self, step: Step) -> None:
        floor = self.desk.floor
        if step.had is not None:
            floor.fair.had, floor.fair.at = dict(step.had), step.at
        floor.pool.hold(step.taken)
        self._taken += step.taken
        for run in step.holds:
            floor.pool.hold(run.grants)
            floor.carry(run)

    def _rebuild(self, now: float) -> None:
        """The same line and the same work on other nodes."""
        before = self.desk
        held = [grant for run in before.floor.running.values() for grant in run.grants]
        floor = Floor(
            pool=free_pool(self._nodes, [*held, *self._taken], now=now),
            projects=before.floor.projects,
            draining=frozenset(node.id for node in self._nodes if drains(node, now)),
        )
        floor.fair = FairShare(
            capacity=floor.fair.capacity, had=before.floor.fair.had, at=before.floor.fair.at
        )
        self.desk = Desk(floor=floor, rules=before.rules)
        if self.finder is not None:
            floor.pool.finder = self.finder(self.desk)
        for run in before.floor.running.values():
            floor.carry(run)
        for waiting in before.line.values():
            self.desk.add(waiting)
        edges = [edge for node in self._nodes for w in node.windows
                 for edge in (w.starts_at - DRAIN_S, w.starts_at, w.ends_at)]  # fmt: skip
        self._shut_until = min((edge for edge in edges if edge > now), default=float("inf"))


def _empty() -> Desk:
    return Desk(floor=Floor(pool=free_pool((), ())))
