"""Decides who starts, who waits and who must stop: the same for the live cloud and a replay.

A desk knows the pool, the line and what runs. It is told what happens, asked to decide, and never
acts. Workloads of one kind (same project, gang and priority) form a class: what holds for its
first holds for all, so a long line costs no more than its classes.
"""

import heapq
from bisect import insort
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from operator import itemgetter

from karez.core.identity import Project
from karez.core.resources import DeviceKind, Grant
from karez.core.units import MILLI
from karez.core.workloads import GangSpec, WorkloadId
from karez.scheduling.line import AGE_S, RESTART_S, Rules, Waiting
from karez.scheduling.place import fits, refuse, seat
from karez.scheduling.pool import SLOTS, Pool
from karez.scheduling.quota import within_quota

DEPTH = 100
"""How many of a class may be passed over for the sake of a reservation before the rest of it is
left for later; Slurm's bf_max_job_test is 500 for all jobs together."""


LOOK_S = 600.0
"""Seconds between two looks at what has fallen back in line by running on: the time in which one
device does the work below which all counts alike."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Start:
    """Give a workload its devices now."""

    id: WorkloadId
    grants: tuple[Grant, ...]


@dataclass(frozen=True, slots=True, kw_only=True)
class Preempt:
    """Stop a workload and put it back in line, for another that starts now."""

    id: WorkloadId
    by: WorkloadId
    lost_device_s: float
    """What the stop costs."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Wait:
    """Leave a workload in the queue, with the reason."""

    id: WorkloadId
    reason: str


Decision = Start | Preempt | Wait
Class = tuple[str, GangSpec, int]
Rank = tuple[int, float, float, int]


@dataclass(frozen=True, slots=True, kw_only=True)
class Run:
    """A workload that holds devices."""

    id: WorkloadId
    project: str
    grants: tuple[Grant, ...]
    ends_by: float | None = None
    started_at: float = 0.0
    waiting: Waiting | None = None
    """As it stood in line; None if it must not be stopped."""

    def done_s(self, now: float) -> float:
        """How long it has run in all."""
        before = self.waiting.done_s if self.waiting else 0.0
        return before + now - self.started_at


@dataclass(slots=True, kw_only=True)
class _Reservation:
    """Kept for the first in line: nobody passes who would delay it."""

    holder: Waiting
    opens_at: float | None
    then: Pool | None
    """The pool as it will be, the holder placed."""


@dataclass(slots=True, kw_only=True)
class Desk:
    """One partition of the pool."""

    pool: Pool
    rules: Rules = field(default_factory=Rules)
    projects: Mapping[str, Project] = field(default_factory=dict)
    running: dict[WorkloadId, Run] = field(default_factory=dict)
    _line: dict[Class, list[tuple[Rank, Waiting]]] = field(default_factory=dict)
    _stuck: dict[Class, str] = field(default_factory=dict)
    """Classes that have no room until something is given back; the text is for a full quota."""
    used: dict[tuple[str, DeviceKind], int] = field(default_factory=dict)
    _reserved: _Reservation | None = None
    _looked_at: float = 0.0

    def add(self, waiting: Waiting) -> None:
        """One more stands in line."""
        line = self._line.setdefault(class_of(waiting), [])
        rank = waiting.rank(self.rules)
        insort(line, (rank, waiting), key=itemgetter(0))
        if self._reserved is not None and rank < self._reserved.holder.rank(self.rules):
            self._reserved = None  # it is no longer the first

    def carry(self, run: Run) -> None:
        """Count what runs; the pool holds its grants already."""
        self.running[run.id] = run
        self._use(run.project, run.grants, 1)

    def finish(self, ident: WorkloadId) -> Run:
        """A workload has ended: its devices are free."""
        run = self.running.pop(ident)
        self.pool.give_back(run.grants)
        self._use(run.project, run.grants, -1)
        self._stuck.clear()
        self._reserved = None
        return run

    @property
    def waiting(self) -> int:
        """How many stand in line."""
        return sum(map(len, self._line.values()))

    def decide(self, now: float) -> list[Start | Preempt]:
        """Start what fits, in order; under rules that preempt, stop what is far behind."""
        decisions: list[Start | Preempt] = []
        if self.rules.preempts and now - self._looked_at >= LOOK_S:
            self._looked_at = now
            self._stuck.clear()
            self._reserved = None
        heads: list[tuple[Rank, int, Class, int]] = [
            (line[0][0], number, key, 0)
            for number, (key, line) in enumerate(self._line.items())
            if line
        ]
        heapq.heapify(heads)
        stopped: list[Waiting] = []
        while heads:
            _, number, key, at = heapq.heappop(heads)
            line = self._line[key]
            made = self._serve(line[at][1], now)
            if made:
                decisions += made
                del line[at]
                for decision in made:
                    if isinstance(decision, Preempt):
                        stopped += self._stop(decision.id, now)
            elif self.rules.is_strict:
                break
            elif key in self._stuck or at >= DEPTH:
                continue
            else:
                at += 1  # only this one may not pass
            if at < len(line):
                heapq.heappush(heads, (line[at][0], number, key, at))
        for waiting in stopped:
            self.add(waiting)
        return decisions

    def reasons(self) -> Mapping[WorkloadId, str]:
        """Why each of those in line waits, as of the last decision."""
        behind = "it is its turn after others of its kind"
        if self._reserved is not None:
            holder = self._reserved.holder.id
            behind = (
                f"{holder} is first in line and has waited long; set max_duration to pass it safely"
            )
        found: dict[WorkloadId, str] = {}
        for key, line in self._line.items():
            why = self._stuck.get(key, behind)
            if not why and line:
                gang, _ = within_quota(line[0][1], self.projects, self.used)
                why = refuse(gang, self.pool)
            found.update((waiting.id, why) for _, waiting in line)
        return found

    def _serve(self, waiting: Waiting, now: float) -> list[Start | Preempt]:
        """What starts one workload now; nothing if it must wait."""
        key = class_of(waiting)
        if self._stuck.get(key):
            return []  # its project's quota is full
        gang, reason = within_quota(waiting, self.projects, self.used)
        if reason:
            self._stuck[key] = reason
            return []
        if key in self._stuck:
            self._reserve(waiting, gang, now)
            return []
        grants = seat(gang, self.pool)
        if grants is not None:
            if not self._may_pass(waiting, grants, now):
                self.pool.give_back(grants)
                return []
            return [self._begin(waiting, grants, now)]
        made = self._make_room(waiting, gang, now) if self.rules.preempts else []
        if not made:
            self._stuck[key] = ""
            self._reserve(waiting, gang, now)
        return made

    def _begin(self, waiting: Waiting, grants: tuple[Grant, ...], now: float) -> Start:
        if self._reserved is not None and self._reserved.holder.id == waiting.id:
            self._reserved = None
        self.carry(
            Run(
                id=waiting.id,
                project=waiting.project,
                grants=grants,
                ends_by=waiting.ends_by(now),
                started_at=now,
                waiting=waiting if waiting.preemptible else None,
            )
        )
        return Start(id=waiting.id, grants=grants)

    def _stop(self, ident: WorkloadId, now: float) -> list[Waiting]:
        """Take a preempted workload off; its devices were given back when room was made."""
        run = self.running.pop(ident)
        self._use(run.project, run.grants, -1)
        return [replace(run.waiting, done_s=run.done_s(now))] if run.waiting else []

    def _use(self, project: str, grants: Sequence[Grant], sign: int) -> None:
        for grant in grants:
            key = (project, grant.kind)
            self.used[key] = self.used.get(key, 0) + sign * grant.milli

    # reservations

    def _reserve(self, waiting: Waiting, gang: GangSpec, now: float) -> None:
        """The first that finds no room holds a reservation once its patience is over."""
        late = now - waiting.since > self.rules.patience_s
        if self._reserved is not None or not late or self.rules.is_strict:
            return
        ends = sorted({run.ends_by for run in self.running.values() if run.ends_by is not None})
        low, high = 0, len(ends)
        best: Pool | None = None
        while low < high:  # the first end after which it fits: more room never fits less
            middle = (low + high) // 2
            then = self._pool_at(ends[middle])
            if fits(gang, then):
                high, best = middle, then
            else:
                low = middle + 1
        if best is not None:
            seat(gang, best)
        opens_at = max(now, ends[high]) if best is not None else None
        self._reserved = _Reservation(holder=waiting, opens_at=opens_at, then=best)

    def _pool_at(self, at: float) -> Pool:
        pool = self.pool.fork()
        for run in self.running.values():
            if run.ends_by is not None and run.ends_by <= at:
                pool.give_back(run.grants)
        return pool

    def _may_pass(self, waiting: Waiting, grants: Sequence[Grant], now: float) -> bool:
        """Whether a workload, placed like this, lets the reservation's holder start in time."""
        held = self._reserved
        if held is None:
            return True
        if held.opens_at is None or held.then is None:
            return False
        ends_by = waiting.ends_by(now)
        if ends_by is not None and ends_by <= held.opens_at:
            return True
        if not held.then.has(grants):
            return False
        held.then.hold(grants)  # it uses only what the holder leaves
        return True

    # preemption

    def _make_room(self, waiting: Waiting, gang: GangSpec, now: float) -> list[Start | Preempt]:
        """Stop what is far behind in line, if that starts this one and gains more than it costs."""
        victims = self._victims(waiting, now)
        freed: list[Run] = []
        grants: tuple[Grant, ...] | None = None
        for run in victims:
            self.pool.give_back(run.grants)
            freed.append(run)
            if fits(gang, self.pool) and (grants := seat(gang, self.pool)) is not None:
                break
        if grants is None:
            for run in freed:
                self.pool.hold(run.grants)
            return []
        spared = []
        for run in freed:  # whose devices are not needed after all goes on
            if self.pool.has(run.grants):
                self.pool.hold(run.grants)
                spared.append(run.id)
        stops = [run for run in freed if run.id not in spared]
        return [
            *(
                Preempt(id=run.id, by=waiting.id, lost_device_s=RESTART_S * _devices(run.grants))
                for run in stops
            ),
            self._begin(waiting, grants, now),
        ]

    def _victims(self, waiting: Waiting, now: float) -> list[Run]:
        """Furthest back in line first. Each would come later than this one by a whole doubling."""
        priority, place_in_line, _, _ = waiting.rank(self.rules)
        found: list[tuple[Rank, Run]] = []
        for run in self.running.values():
            if run.waiting is None:
                continue
            rank = run.waiting.rank(self.rules, run.done_s(now))
            is_behind = rank[0] > priority or rank[1] > place_in_line + AGE_S
            gain_s = run.waiting.left_s(run.done_s(now)) - waiting.left_s(waiting.done_s)
            if rank[0] >= priority and is_behind and (gain_s > RESTART_S or rank[0] > priority):
                found.append((rank, run))
        least = min(need.milli for need in waiting.gang.each) * waiting.gang.min
        held = sum(grant.milli for _, run in found for grant in run.grants)
        in_slots = all(need.kind in SLOTS for need in waiting.gang.each)
        if in_slots and self.pool.inventory.free_milli + held < least:
            return []
        return [run for _, run in sorted(found, key=lambda pair: pair[0], reverse=True)]


def class_of(waiting: Waiting) -> Class:
    """What it shares with others in line: what holds for one holds for all."""
    return (waiting.project, waiting.gang, waiting.priority)


def _devices(grants: Iterable[Grant]) -> float:
    return sum(grant.milli for grant in grants) / MILLI
