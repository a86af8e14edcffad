"""Runs many controllers on few threads: each has a step when it is woken, or when one is due."""

import heapq
import itertools
import math
import threading
from collections.abc import Callable
from dataclasses import dataclass, field
from enum import StrEnum
from typing import Protocol

import structlog

from karez.core.metrics import CONTROLLER_FAILURES, CONTROLLER_STEP, Metrics
from karez.core.ports import Clock
from karez.core.workloads import WorkloadId

log = structlog.get_logger()
WORKERS = 16
"""Threads for steps that answer reports and deadlines."""
SLOW_WORKERS = 32
"""Threads for steps that start or end a workload, which may wait for nodes and transfers."""
LOOK_S = 1.0
"""Longest wait of an idle worker, in seconds of the host: the clock of the steps may be slewed."""


class Controller(Protocol):
    """Controls one workload, a step at a time."""

    @property
    def is_slow(self) -> bool:
        """Whether the next step may take long."""
        ...

    def step(self) -> float | None:
        """Do what is due. Returns when the next step is due; None: there is none."""
        ...

    def note_request(self) -> None:
        """Look in the store, at the next step, for what is asked of the workload. Any thread."""
        ...

    def stand_down(self) -> None:
        """Do no more than to end the step under way; any thread may call it."""
        ...

    def close(self) -> None:
        """Let go of what it follows. Called once, after its last step, even if that failed."""
        ...


class Pace(StrEnum):
    """Which workers take a step."""

    QUICK = "quick"
    SLOW = "slow"


def _pace_of(controller: Controller) -> Pace:
    return Pace.SLOW if controller.is_slow else Pace.QUICK


@dataclass(slots=True, kw_only=True)
class _Entry:
    id: WorkloadId
    controller: Controller
    due_at: float
    is_in_step: bool = False
    is_woken: bool = False
    """Woken in the step under way."""


@dataclass(slots=True, kw_only=True)
class ControllerPool:
    """Controllers by workload, and whose step is due. Its threads are optional."""

    clock: Clock
    metrics: Metrics
    on_ended: Callable[[WorkloadId, Controller, Exception | None], None]
    """(workload, controller, the error of its last step): called after the last step."""
    _entries: dict[WorkloadId, _Entry] = field(default_factory=dict)
    _due: dict[Pace, list[tuple[float, int, _Entry]]] = field(
        default_factory=lambda: {pace: [] for pace in Pace}
    )
    """Heaps by due time; an entry counts only with its present due time."""
    _numbers: "itertools.count[int]" = field(default_factory=itertools.count)
    _lock: threading.RLock = field(default_factory=threading.RLock)
    _scheduled: dict[Pace, threading.Condition] = field(init=False)
    """Wakes a worker of a pace: its next step is due sooner."""
    _ended: threading.Condition = field(init=False)
    """Wakes those who wait for a controller to end."""
    _is_started: bool = False
    _is_stopped: bool = False

    def __post_init__(self) -> None:
        self._scheduled = {pace: threading.Condition(self._lock) for pace in Pace}
        self._ended = threading.Condition(self._lock)

    def add(self, ident: WorkloadId, controller: Controller) -> None:
        """Run a controller from now on."""
        with self._lock:
            entry = _Entry(id=ident, controller=controller, due_at=math.inf)
            self._entries[ident] = entry
            self._schedule(entry, self.clock.now())

    def wake(self, ident: WorkloadId) -> None:
        """Have a controller make a step soon."""
        with self._lock:
            entry = self._entries.get(ident)
            if entry is None:
                return
            if entry.is_in_step:
                entry.is_woken = True
            else:
                self._schedule(entry, self.clock.now())

    def __len__(self) -> int:
        """How many controllers there are."""
        return len(self._entries)

    def drop(self, ident: WorkloadId, *, within_s: float) -> None:
        """Stand a controller down, and wait this long until it has."""
        with self._lock:
            entry = self._entries.get(ident)
            if entry is not None:
                entry.controller.stand_down()
                self.wake(ident)
                if self._is_started:
                    self._ended.wait_for(lambda: self._entries.get(ident) is not entry, within_s)
        while ident in self._entries and not self._is_started:
            for pace in Pace:
                self.run_due(pace)

    def stand_down(self) -> None:
        """Stand all controllers down, and end the threads."""
        with self._lock:
            self._is_stopped = True
            for entry in self._entries.values():
                entry.controller.stand_down()
            for workers in self._scheduled.values():
                workers.notify_all()

    def start(self) -> None:
        """Start the threads."""
        self._is_started = True
        for pace, count in ((Pace.QUICK, WORKERS), (Pace.SLOW, SLOW_WORKERS)):
            for number in range(count):
                threading.Thread(
                    target=self._work, args=(pace,), name=f"{pace}-{number}", daemon=True
                ).start()

    def next_due_at(self) -> float:
        """When the next step is due; infinite: never."""
        with self._lock:
            return min((self._head(pace) for pace in Pace), default=math.inf)

    def run_due(self, pace: Pace) -> bool:
        """Make one step that is due. False: none is."""
        with self._lock:
            if self._head(pace) > self.clock.now():
                return False
            entry = heapq.heappop(self._due[pace])[2]
            entry.is_in_step, entry.due_at = True, math.inf
        self._step(entry)
        return True

    def _work(self, pace: Pace) -> None:
        while not self._is_stopped:
            if self.run_due(pace):
                continue
            with self._lock:
                wait_s = min(LOOK_S, self._head(pace) - self.clock.now())
                if wait_s > 0 and not self._is_stopped:
                    self._scheduled[pace].wait(wait_s)

    def _step(self, entry: _Entry) -> None:
        due_at, failure = None, None
        pace, began_at = _pace_of(entry.controller), self.clock.now()
        try:
            due_at = entry.controller.step()
        except Exception as error:
            failure = error
            log.exception("workload.dropped", workload=entry.id)
            self.metrics.count(CONTROLLER_FAILURES, error=type(error).__name__)
        self.metrics.observe(CONTROLLER_STEP, self.clock.now() - began_at, pace=pace)
        if due_at is None:
            entry.controller.close()
        with self._lock:
            if due_at is None:
                if self._entries.get(entry.id) is entry:  # else its successor has begun
                    del self._entries[entry.id]
                self._ended.notify_all()
            else:
                entry.is_in_step = False
                self._schedule(entry, self.clock.now() if entry.is_woken else due_at)
                entry.is_woken = False
        if due_at is None:
            self.on_ended(entry.id, entry.controller, failure)

    def _schedule(self, entry: _Entry, due_at: float) -> None:
        if due_at >= entry.due_at:
            return
        entry.due_at = due_at
        pace = _pace_of(entry.controller)
        heapq.heappush(self._due[pace], (due_at, next(self._numbers), entry))
        self._scheduled[pace].notify()

    def _head(self, pace: Pace) -> float:
        """When the next step of this pace is due; stale entries are dropped."""
        due = self._due[pace]
        while due and (due[0][2].due_at != due[0][0] or due[0][2].is_in_step):
            heapq.heappop(due)
        return due[0][0] if due else math.inf
