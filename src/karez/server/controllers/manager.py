"""Background controllers of control: the pool monitor, the scheduler, and workload controllers.

The tick of each loop catches every exception once, logs it and goes on: the next tick repeats it.
"""

import threading
from collections.abc import Callable

import structlog

from karez.core.metrics import SCHEDULING_TIME
from karez.core.ports import Fabric
from karez.core.workloads import WorkloadId
from karez.server.controllers.alerts import Alerter
from karez.server.controllers.control_context import ControlContext, Edges
from karez.server.controllers.controller_pool import ControllerPool, Pace
from karez.server.controllers.expired_artifacts import remove_expired
from karez.server.controllers.held_jobs import settle_held
from karez.server.controllers.job_keys import end_job_keys
from karez.server.controllers.late_batches import end_late_batches
from karez.server.controllers.pool_monitor import PoolMonitor
from karez.server.controllers.scheduler import Scheduler
from karez.server.controllers.service_keeper import keep_replicas
from karez.server.controllers.workload_controllers import STOP_S, WorkloadControllers

log = structlog.get_logger()
WORK_S = 1.0
"""Longest pause, in seconds, between two claims of workloads; a placed workload ends it."""
EVENTS_S = 0.05
"""Longest wait for events, in seconds; then workloads that are new to a node are asked for."""
ALERTS_S = 2.0
"""Seconds between two looks for what people are to be told of."""
BILL_S = 5.0
"""Seconds between two looks for devices that were given back and are not in the ledger."""
EXPIRE_S = 600.0
"""Seconds between two looks for artifacts whose time is over."""
UPLOAD_S = 86_400.0
"""Seconds after which what an upload left is removed; a slow one touches its file all the time."""
POOL_S = 2.0
"""Seconds between two checks of the nodes. A running gang notices the loss of a node sooner, by
its own polling."""


class ControllerManager:
    """Runs seven loops, and the workers that controllers share."""

    def __init__(
        self,
        context: ControlContext,
        connect: Callable[[], Edges],
        owner: str,
        scheduler: Scheduler,
        alerter: Alerter | None = None,
    ) -> None:
        """Prepare the loops; `start` runs them."""
        self._context = context
        self._connect = connect
        self._scheduler = scheduler
        self._alerter = alerter
        self._edges: Edges | None = None
        self._halt = threading.Event()
        self._wake = threading.Event()
        self._placed = threading.Event()
        self._threads: list[threading.Thread] = []
        self._pool = PoolMonitor(context, self.wake)
        self._workloads = WorkloadControllers(context, owner, on_ended=self._placed.set)

    def start(self) -> None:
        """Start the loops."""
        self._workloads.drop_leases()
        self._workloads.pool.start()
        for name, tick, pause_s in (
            ("pool", self.check_pool, POOL_S),
            ("schedule", self.schedule, self._context.settings.tick_s),
            ("work", self.check_workloads, WORK_S),
            ("events", self._pump_events, 0.0),
            ("expire", self.remove_expired, EXPIRE_S),
            ("alerts", self.alert, ALERTS_S),
            ("bill", self.bill, BILL_S),
        ):
            thread = threading.Thread(
                target=self._loop, args=(name, tick, pause_s), name=name, daemon=True
            )
            thread.start()
            self._threads.append(thread)

    def settle(self) -> None:
        """Do on this thread what the loops and workers would do now, until nothing is left to do.

        For a clock that jumps: then `start` is not called, and no thread runs.
        """
        is_done = False
        while not is_done:
            if self._edges is not None:
                self._edges.deps.hub.pump(within_s=0.0)
            is_done = not any([self._run_woken(), *map(self._run_due, Pace)])

    def _run_due(self, pace: Pace) -> bool:
        """Make all steps that are due. False: none was."""
        count = 0
        while self.controllers.run_due(pace):
            count += 1
        return count > 0

    def _run_woken(self) -> bool:
        """Run each loop that was woken. False: none was."""
        woken = [
            (event, act)
            for event, act in ((self._wake, self.schedule), (self._placed, self.check_workloads))
            if event.is_set()
        ]
        for event, act in woken:
            event.clear()
            act()
        return bool(woken)

    def wake(self) -> None:
        """Run the scheduler at once, and pass on what users ask of running workloads."""
        self._wake.set()
        self._placed.set()

    @property
    def fabric(self) -> Fabric | None:
        """The nodes, once they are connected."""
        return None if self._edges is None else self._edges.fabric

    def drop_controller(self, ident: WorkloadId) -> None:
        """End a workload's controller as if its thread had died; another one takes over."""
        self._workloads.drop(ident)

    def alive(self) -> bool:
        """Whether every loop runs and the fabric is connected."""
        return self._edges is not None and all(thread.is_alive() for thread in self._threads)

    def failing(self) -> int:
        """How many workloads have a controller that failed a short while ago."""
        return self._workloads.failing()

    def stop(self) -> None:
        """Stop all controllers and close the fabric. Nodes end with Ray where Ray is our own."""
        for event in (self._halt, self._wake, self._placed):
            event.set()
        for thread in self._threads:
            thread.join(STOP_S)
        self._workloads.stand_down()
        if self._edges is not None:
            if self._context.settings.ray_address:  # a cluster that outlives this cloud
                self._edges.fabric.stop_nodes()
            self._edges.fabric.close()
            self._edges.deps.transfers.stop()
            self._edges.deps.tracer.close()

    def _loop(self, name: str, tick: Callable[[], None], pause_s: float) -> None:
        while not self._halt.is_set():
            try:
                tick()
            except Exception:
                log.exception("loop.failed", loop=name)
                self._halt.wait(1.0)
            wake = {"schedule": self._wake, "work": self._placed}.get(name, self._halt)
            if wake.wait(pause_s) and wake is not self._halt:
                wake.clear()

    @property
    def controllers(self) -> ControllerPool:
        """The controllers of workloads."""
        return self._workloads.pool

    def _pump_events(self) -> None:
        if self._edges is None:
            self._halt.wait(EVENTS_S)
        else:
            self._edges.deps.hub.pump(within_s=EVENTS_S)

    def check_pool(self) -> None:
        """Look at the nodes, which are connected first."""
        if self._edges is None:
            self._edges = self._connect()
            log.info("fabric.connected")
        self._pool.check(self._edges)

    def remove_expired(self) -> None:
        """Remove what is kept for some time only, and whose time is over."""
        now = self._context.clock.now()
        remove_expired(self._context.store, now)
        end_late_batches(self._context.store.workloads, now)
        if self._edges is not None:
            self._edges.uploads.sweep(before=now - UPLOAD_S)

    def alert(self) -> None:
        """Tell people of what they asked for."""
        if self._alerter is not None:
            self._alerter.tick()

    def bill(self) -> None:
        """Write what devices have cost into the ledger, and end the keys of jobs that ended."""
        store, now = self._context.store, self._context.clock.now()
        store.usage.bill_devices(now)
        end_job_keys(store.access, store.workloads, now)

    def schedule(self) -> None:
        """Run a scheduling pass."""
        clock = self._context.clock
        began_at = clock.now()
        settle_held(self._context.store.workloads, began_at)
        edges = self._edges
        if edges and keep_replicas(self._context.store, edges.serving.loads, began_at):
            self._placed.set()
        started = self._scheduler.tick()
        self._context.metrics.observe(SCHEDULING_TIME, clock.now() - began_at)
        if started:
            self._placed.set()
            log.info("jobs.placed", count=started)

    def check_workloads(self) -> None:
        """Claim placed workloads, and renew leases."""
        if self._edges is not None and self._workloads.check(self._edges):
            self.wake()  # the devices of what has ended are free
