"""Starts a gang, or adopts the running processes of a previous controller."""

import signal
import threading
from dataclasses import dataclass, replace

from karez.core.containers import PULL_S
from karez.core.jobs import Job
from karez.core.python_environments import MAKE_S
from karez.core.workloads import Allocation, State
from karez.node_events.stream import NodeEventStream
from karez.training.controller.checkpoint_saver import CheckpointSaver
from karez.training.controller.controller_deps import ControllerDeps
from karez.training.controller.event_parser import (
    NewestProcesses,
    gang_from,
    in_same_generation,
    newest_by_rank,
)
from karez.training.controller.gang_allocation import GangAllocation, allocation_from
from karez.training.controller.gang_executor import GangExecutor, find_processes
from karez.training.controller.gang_placer import GangPlacer
from karez.training.controller.gang_run import GangRun
from karez.training.controller.generation_starter import GenerationStarter
from karez.training.controller.hang_monitor import HangMonitor
from karez.training.controller.launch_context import StartRefused, devices_of, gather_launch_context
from karez.training.controller.own_checkpoints import OwnCheckpoints
from karez.training.controller.process_specs import LaunchContext
from karez.training.controller.rendezvous import Rendezvous
from karez.training.controller.sidecars import Sidecars
from karez.training.controller.status_writer import StatusWriter
from karez.training.recovery.checkpoint_interval import CheckpointCadence
from karez.training.recovery.commands import EndGang
from karez.training.recovery.controller_state import (
    ControllerState,
    indices_used,
    inherited_fault,
    restore,
)
from karez.training.recovery.events import Exited
from karez.training.recovery.hang_detector import HangDetector
from karez.training.recovery.ladder import expected_costs
from karez.training.recovery.limits import Limits
from karez.training.recovery.state import Phase
from karez.training.recovery.takeover import adopt, begin


@dataclass(frozen=True, slots=True, kw_only=True)
class Lease:
    """A job under a lease: the job, its allocation and the lease's token."""

    job: Job
    allocation: Allocation
    token: str


def open_run(
    lease: Lease,
    status: StatusWriter,
    deps: ControllerDeps,
    stopped: threading.Event,
    events: NodeEventStream,
) -> GangRun:
    """Start or adopt the gang of a leased job. A job that cannot start has an `end` at once."""
    job, epoch = lease.job, lease.allocation.epoch
    allocation = _allocation(lease, deps)
    refusal = None
    try:
        context = gather_launch_context(job, epoch, allocation, deps)
    except StartRefused as refused:
        context = LaunchContext(job=job, epoch=epoch)
        refusal = EndGang(reason=refused.reason, detail=str(refused))
    executor = GangExecutor(job=job, deps=deps, allocation=allocation, context=context)
    run = _make_run(lease, executor, events, status, stopped)
    run.end = refusal
    if refusal is None:
        _begin_or_adopt(run)
    return run


def _allocation(lease: Lease, deps: ControllerDeps) -> GangAllocation:
    """The granted devices by rank; ranks that have a process keep their numbers."""
    granted = lease.allocation
    nodes = {grant.node for grant in granted.grants}
    processes = find_processes(deps.fabric, nodes, lease.job.id, granted.epoch)
    return allocation_from(granted.grants, processes)


def _make_run(
    lease: Lease,
    executor: GangExecutor,
    events: NodeEventStream,
    status: StatusWriter,
    stopped: threading.Event,
) -> GangRun:
    job, deps = lease.job, executor.deps
    starter = GenerationStarter(executor=executor, rendezvous=Rendezvous(executor=executor))
    began_at = job.started_at or deps.clock.now()
    detector = HangDetector(floor_s=deps.settings.hang_s)
    return GangRun(
        job=job,
        deps=deps,
        status=status,
        executor=executor,
        events=events,
        placer=GangPlacer(executor=executor, starter=starter, events=events, token=lease.token),
        starter=starter,
        saver=CheckpointSaver(job=job.id, deps=deps, on_saved=events.wake),
        own_checkpoints=OwnCheckpoints(executor=executor, stopped=stopped),
        sidecars=Sidecars(context=executor.context, start=executor.start),
        hang_monitor=HangMonitor(job=job, deps=deps, detector=detector),
        cadence=CheckpointCadence(fixed_s=deps.settings.checkpoint_s, began_at=began_at),
        stopped=stopped,
    )


def _begin_or_adopt(run: GangRun) -> None:
    now, workers = run.deps.clock.now(), run.allocation.workers
    known = newest_by_rank(run.executor.processes())
    present = {n: process for n, process in known.items() if n in workers}  # without departed ranks
    saved = run.status.load_state()
    _describe_gang(run, known, present, saved, now)
    for index, grant in workers.items():
        run.status.view(index, node=grant.node, state="starting", devices=devices_of(grant))
    if present:
        _adopt(run, present, saved, now)
    else:
        run.status.log(run.gang)
        run.status.write(State.STARTING)
        run.execute(begin(run.gang))
    known_now = run.executor.processes() if present else []
    run.sidecars.adopt(known_now, run.job.spec.gang.roles, run.allocation.of_role)
    for node in run.allocation.nodes:
        run.events.follow(node)


def _describe_gang(
    run: GangRun,
    known: NewestProcesses,
    present: NewestProcesses,
    saved: ControllerState | None,
    now: float,
) -> None:
    """Set the run's gang from its processes, the stored state and the job's receipts."""
    receipts = run.deps.store.history.receipts(run.job.id)
    run.cadence.faults = len(receipts)
    newest = max(run.status.status.generation, saved.generation if saved else 0)
    gang = gang_from(
        run.allocation.workers,
        present,
        generation=newest if present else newest + 1,
        limits=_limits(run.job, run.deps),
        now=now,
        used={*known, *indices_used(saved)},
    )
    spec = run.job.spec
    run.gang = replace(
        restore(gang, saved),
        ladder=spec.ladder,
        ladder_fixed=spec.ladder_fixed,
        costs=expected_costs(receipts),
        fault=None if present else inherited_fault(saved, now, *run.status.last_step()),
    )


def _limits(job: Job, deps: ControllerDeps) -> Limits:
    settings = deps.settings
    return Limits(
        quiesce_s=settings.quiesce_s,
        start_s=settings.start_s,
        prepare_s=max(MAKE_S, PULL_S) if job.spec.environment or job.spec.image else 0.0,
        faults=settings.fault_limit,
    )


def _adopt(
    run: GangRun, present: NewestProcesses, saved: ControllerState | None, now: float
) -> None:
    """Continue with the processes of a controller that was lost."""
    for index, (_, info) in present.items():
        run.status.view(index, pid=info.pid, state="running" if info.alive else "lost")
    together = in_same_generation(run.gang, present)
    run.starter.rendezvous.adopt()
    run.gang, commands = adopt(run.gang, together=together, now=now, saved=saved)
    run.status.log(run.gang)
    run.execute(commands)
    for index, (attempt, info) in present.items():
        if not info.alive and run.gang.phase != Phase.DRAINING:
            code = -int(signal.SIGKILL) if info.exit_code is None else info.exit_code
            run.apply(Exited(rank=index, attempt=attempt, code=code, error=info.error))
