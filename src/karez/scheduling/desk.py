"""Decides who starts, who waits and who must make room: the same for the live cloud and a replay.

A desk knows the pool, the line and what runs. It is told what happens, asked to decide, and never
acts. Workloads of one kind (same project, gang and priority) form a class: what holds for its
first holds for all, so a long line costs no more than its classes.
"""

import heapq
from bisect import insort
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from operator import itemgetter

from karez.core.resources import Grant
from karez.core.workloads import GangSpec, WorkloadId
from karez.scheduling.concede import Room, borrowers, make_room, options, owed, undo
from karez.scheduling.floor import Floor, Run
from karez.scheduling.growth import grow
from karez.scheduling.line import Order, Rank, Rules, Waiting
from karez.scheduling.moves import Regrouping, regroup_for
from karez.scheduling.place import refuse, seat
from karez.scheduling.pool import SLOTS
from karez.scheduling.quota import within_quota
from karez.scheduling.reserve import Reservation, is_better_later, reservation

DEPTH = 100
"""How many of a class may be passed over for the sake of a reservation before the rest of it is
left for later; Slurm's bf_max_job_test is 500 for all jobs together."""
LOOK_S = 600.0
"""Seconds between two looks at what has fallen back in line by running on: in that time one device
does the work below which all counts alike."""


ROUNDS = 3
"""How often the line is gone through in one decision: who was stopped may fit somewhere else."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Start:
    """Give a workload its devices now."""

    id: WorkloadId
    grants: tuple[Grant, ...]


@dataclass(frozen=True, slots=True, kw_only=True)
class Preempt:
    """Stop a workload and put it back in line."""

    id: WorkloadId
    by: WorkloadId | None
    """Who starts in its place; None: its node is needed for something else."""
    lost_device_s: float
    """What the stop costs."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Resize:
    """Go on with these grants: more workers, or fewer."""

    id: WorkloadId
    grants: tuple[Grant, ...]
    by: WorkloadId | None = None
    """Who needs what it gives up."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Wait:
    """Leave a workload in the queue, with the reason."""

    id: WorkloadId
    reason: str


Act = Start | Preempt | Resize
Decision = Act | Wait
Class = tuple[str, GangSpec, int, float | None]


@dataclass(slots=True, kw_only=True)
class Desk:
    """One partition of the pool."""

    floor: Floor
    rules: Rules = field(default_factory=Rules)
    _line: dict[Class, list[tuple[Rank, Waiting]]] = field(default_factory=dict)
    _stuck: dict[Class, str] = field(default_factory=dict)
    """Classes that have no room until something is given back; the text is for a full quota."""
    _later: dict[WorkloadId, str] = field(default_factory=dict)
    """Who could start and does better to wait."""
    _reserved: Reservation | None = None
    _looked_at: float = 0.0
    _moved_at: float = float("-inf")
    _now: float = 0.0

    @property
    def waiting(self) -> int:
        """How many stand in line."""
        return sum(map(len, self._line.values()))

    @property
    def line(self) -> Mapping[WorkloadId, Waiting]:
        """Those in line."""
        return {one.id: one for line in self._line.values() for _, one in line}

    def add(self, waiting: Waiting) -> None:
        """One more stands in line."""
        line = self._line.setdefault(self.class_of(waiting), [])
        rank = waiting.rank(self.rules)
        insort(line, (rank, waiting), key=itemgetter(0))
        if self._reserved is not None and rank < self._reserved.holder.rank(self.rules):
            self._reserved = None  # it is no longer the first

    def remove(self, ident: WorkloadId) -> None:
        """One leaves the line without having started."""
        for key, line in self._line.items():
            kept = [pair for pair in line if pair[1].id != ident]
            if len(kept) < len(line):
                self._line[key] = kept
                self.look_again()
                return

    def finish(self, ident: WorkloadId) -> Run:
        """A workload has ended: its devices are free."""
        run = self.floor.drop(ident)
        self.floor.pool.give_back(run.grants)
        self.look_again()
        return run

    def look_again(self) -> None:
        """Something is not as it was: who found no room may find some."""
        self._stuck.clear()
        self._later.clear()
        self._reserved = None

    def decide(self, now: float) -> list[Act]:
        """Start what fits, in order; make room for it where the rules let it."""
        self._look(now)
        decisions: list[Act] = self._drain(now)
        stopped = [self._stop(act.id, now) for act in decisions]
        for _ in range(ROUNDS):
            for waiting in stopped:
                self.add(waiting)
            made, stopped = self._serve_line(now)
            decisions += made
            if not stopped:
                break
        for waiting in stopped:
            self.add(waiting)
        barred = (self._stuck.get(key) for key, line in self._line.items() if line)
        if self.rules.elastic and all(barred):  # nobody waits for devices
            decisions += [Resize(id=ident, grants=more) for ident, more in grow(self.floor, now)]
        return decisions

    def _serve_line(self, now: float) -> tuple[list[Act], list[Waiting]]:
        """Everyone in line once, in order: what was decided, and who was stopped for others."""
        decisions: list[Act] = []
        stopped: list[Waiting] = []
        heads: list[tuple[Rank, int, Class, int]] = [
            (self._rank(line[0]), number, key, 0)
            for number, (key, line) in enumerate(self._line.items())
            if line
        ]
        heapq.heapify(heads)
        while heads:
            _, number, key, at = heapq.heappop(heads)
            line = self._line[key]
            made = self._serve(line[at][1], now)
            if made:
                decisions += made
                del line[at]
                moved = {d.id for d in made if isinstance(d, Start)}
                for decision in made:
                    if isinstance(decision, Preempt) and decision.id not in moved:
                        stopped.append(self._stop(decision.id, now))
            elif self.rules.is_strict:
                break
            elif key in self._stuck or at >= DEPTH:
                continue
            else:
                at += 1  # only this one may not pass
            if at < len(line):
                heapq.heappush(heads, (self._rank(line[at]), number, key, at))
        return decisions, stopped

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
            if not line:
                continue
            gang, barred = within_quota(line[0][1], self.floor.projects, self.floor.used)
            why = self._stuck.get(key, barred or behind)
            if not why:
                until = None if key[3] is None else self._now + key[3]
                why = refuse(gang, self.floor.pool, until)
            found.update((waiting.id, why) for _, waiting in line)
        found.update((ident, why) for ident, why in self._later.items() if ident in found)
        return found

    # inside

    def class_of(self, waiting: Waiting) -> Class:
        """What it shares with others in line: what holds for one holds for all."""
        runs_s = None if self.floor.pool.closes is None else waiting.needs_s
        return (waiting.project, waiting.gang, waiting.priority, runs_s)

    def _rank(self, pair: tuple[Rank, Waiting]) -> Rank:
        (priority, place, since, order), waiting = pair
        back = self.floor.setback_s.get(waiting.project, 0.0)
        return (priority, place + back, since, order)

    def _look(self, now: float) -> None:
        """What time alone has changed."""
        floor, self._now = self.floor, now
        floor.fresh.clear()
        if self.rules.fair and self.rules.order == Order.KAREZ:
            floor.fair.advance(now, floor.used)
            active = {key[0] for key, line in self._line.items() if line}
            active.update(run.project for run in floor.running.values())
            floor.setback_s = floor.fair.setback_s(floor.projects, active)
        if self.rules.preempts and now - self._looked_at >= LOOK_S:
            self._looked_at = now
            self.look_again()

    def _drain(self, now: float) -> list[Act]:
        """Stop what can be stopped on nodes that are needed for something else."""
        floor = self.floor
        if not floor.draining:
            return []
        leaving = [
            run
            for run in floor.running.values()
            if run.can_stop and any(grant.node in floor.draining for grant in run.grants)
        ]
        for run in leaving:
            floor.pool.give_back(run.grants)
        return [Preempt(id=r.id, by=None, lost_device_s=r.price(now)) for r in leaving]

    def _serve(self, waiting: Waiting, now: float) -> list[Act]:
        """What starts one workload now; nothing if it must wait."""
        key, floor = self.class_of(waiting), self.floor
        if self._stuck.get(key):
            return []  # its project's quota is full
        gang, reason = within_quota(waiting, floor.projects, floor.used)
        until = None if key[3] is None else now + key[3]
        if reason:
            made = self._make_room(waiting, until, now, is_barred=True)
            may_be_owed = self.rules.preempts and floor.fresh and owed(floor, waiting)
            if not made and not may_be_owed:
                self._stuck[key] = reason  # else it may have what it lent, a moment later
            return made
        if key in self._stuck:
            self._reserve(waiting, gang, now)
            return []
        grants = seat(gang, floor.pool, until)
        if grants is not None:
            return self._take(waiting, gang, grants, now)
        made = self._regroup(waiting, gang, until, now)  # nobody loses its place in line by it
        made = made or self._make_room(waiting, until, now, is_barred=False)
        if not made:
            self._stuck[key] = ""
            self._reserve(waiting, gang, now)
        return made

    def _take(
        self, waiting: Waiting, gang: GangSpec, grants: tuple[Grant, ...], now: float
    ) -> list[Act]:
        """Start it at places that are free, unless it may not pass or does better to wait."""
        if not self._may_pass(waiting, grants, now):
            self.floor.pool.give_back(grants)
            return []
        if self.rules.order == Order.KAREZ and is_better_later(
            self.floor, waiting, gang, grants, now
        ):
            self.floor.pool.give_back(grants)
            self._later[waiting.id] = "it ends sooner if it waits for a faster alternative"
            return []
        return [self._begin(waiting, grants, now)]

    def _may_pass(self, waiting: Waiting, grants: tuple[Grant, ...], now: float) -> bool:
        """Whether a start like this leaves the first in line its reservation."""
        held = self._reserved
        if held is None or held.holder.id == waiting.id:
            return True
        return held.lets_pass(grants, waiting.ends_by(now))

    def _begin(self, waiting: Waiting, grants: tuple[Grant, ...], now: float) -> Start:
        if self._reserved is not None and self._reserved.holder.id == waiting.id:
            self._reserved = None
        self._later.pop(waiting.id, None)
        run = Run(
            id=waiting.id, project=waiting.project, grants=grants, started_at=now, waiting=waiting
        )
        ends_by = waiting.ends_by(now)
        if waiting.expected_s is not None:
            ends_by = now + waiting.left_s(waiting.done_s) / run.pace
        self.floor.carry(replace(run, ends_by=ends_by))
        self.floor.fresh.add(run.id)
        return Start(id=waiting.id, grants=grants)

    def _stop(self, ident: WorkloadId, now: float) -> Waiting:
        """Take a preempted workload off; its devices were given back when room was made."""
        run = self.floor.drop(ident)
        waiting = run.as_waiting
        return replace(waiting, done_s=run.done_s(now) if waiting.resumes else 0.0)

    def _reserve(self, waiting: Waiting, gang: GangSpec, now: float) -> None:
        """The first that finds no room holds a reservation once its patience is over."""
        late = now - waiting.since > self.rules.patience_s
        if self._reserved is None and late and not self.rules.is_strict:
            self._reserved = reservation(self.floor, waiting, gang, now)

    def _make_room(
        self, waiting: Waiting, until: float | None, now: float, *, is_barred: bool
    ) -> list[Act]:
        """Have others give up what starts this one, if it is owed or worth it."""
        rules, floor = self.rules, self.floor
        if not rules.preempts and not rules.elastic:
            return []
        room: Room | None = None
        entitled = owed(floor, waiting) if rules.preempts else None
        if entitled is not None:
            room = make_room(floor, entitled, borrowers(floor, entitled, now), until, now)
        if room is None and not is_barred:
            room = make_room(floor, waiting, options(floor, waiting, rules, now), until, now)
            if room is not None and not self._may_pass(waiting, room.grants, now):
                undo(floor, room)
                return []
        if room is None:
            return []
        made: list[Act] = []
        for ident, keeps in room.keeps.items():
            run = floor.running[ident]
            if keeps:
                floor.resize(ident, keeps, now)
                made.append(Resize(id=ident, grants=keeps, by=waiting.id))
            else:
                lost = run.price(now)
                made.append(Preempt(id=ident, by=waiting.id, lost_device_s=lost))
        return [*made, self._begin(waiting, room.grants, now)]

    def _regroup(
        self, waiting: Waiting, gang: GangSpec, until: float | None, now: float
    ) -> list[Act]:
        """Move others together for one that has waited long, if it gains more than they lose."""
        late = now - waiting.since > self.rules.patience_s
        if not self.rules.moves or not late or now - self._moved_at < LOOK_S:
            return []
        if self._reserved is not None and self._reserved.holder.id != waiting.id:
            return []
        least = min(need.milli for need in gang.each) * gang.min
        in_slots = all(need.kind in SLOTS for need in gang.each)
        if in_slots and self.floor.pool.inventory.free_milli < least:
            return []  # moving makes no devices
        self._moved_at = now
        plan = regroup_for(self.floor, gang, until, now)
        if plan is None or plan.price > self._gain(waiting, gang, now):
            return []
        return self._carry_out(waiting, plan, now)

    def _gain(self, waiting: Waiting, gang: GangSpec, now: float) -> float:
        """Device-seconds of waiting that an immediate start saves, as far as ends are known."""
        opens_at = reservation(self.floor, waiting, gang, now).opens_at
        waits_s = now - waiting.since if opens_at is None else opens_at - now
        return waits_s * waiting.devices

    def _carry_out(self, waiting: Waiting, plan: Regrouping, now: float) -> list[Act]:
        made = self.move({move.id: move.takes for move in plan.moves}, now, by=waiting.id)
        self.floor.pool.hold(plan.grants)
        return [*made, self._begin(waiting, plan.grants, now)]

    def move(
        self,
        places: Mapping[WorkloadId, tuple[Grant, ...]],
        now: float,
        by: WorkloadId | None = None,
    ) -> list[Act]:
        """Running work goes to other places, which are free once all of it has left its own."""
        made: list[Act] = []
        floor = self.floor
        runs = [floor.drop(ident) for ident in places]
        for run in runs:
            floor.pool.give_back(run.grants)
        for run in runs:
            made.append(Preempt(id=run.id, by=by, lost_device_s=run.price(now)))
            floor.pool.hold(places[run.id])
            again = replace(run.as_waiting, done_s=run.done_s(now))
            made.append(self._begin(again, places[run.id], now))
        return made
