"""Turns reports of processes into events of the recovery protocol. Pure."""

from collections.abc import Iterable, Mapping
from typing import Any, Final, Protocol

from karez.core.grants import Grant
from karez.core.messages.reports import (
    BadLossReport,
    CollectiveFailedReport,
    CommitReport,
    ExitReport,
    FinishedReport,
    ReadyReport,
    RendezvousReport,
    ReplicaMismatchReport,
    Report,
    ResumedReport,
    StartedReport,
)
from karez.core.messages.wire import Message
from karez.core.nodes import NodeId
from karez.core.processes import ProcessInfo
from karez.training.controller.process_specs import parse_key
from karez.training.recovery.events import (
    BadLoss,
    CollectiveFailed,
    Committed,
    Exited,
    Finished,
    ReadyToRestore,
    RecoveryEvent,
    ReplicaMismatch,
    Resumed,
    Started,
)
from karez.training.recovery.limits import Limits
from karez.training.recovery.state import Gang, Rank, RankPhase


class _GenerationReport(Message, Protocol):
    @property
    def generation(self) -> int: ...


_OF_GENERATION: Final[tuple[type[_GenerationReport], ...]] = (
    ReadyReport,
    ResumedReport,
    CommitReport,
    CollectiveFailedReport,
    BadLossReport,
    ReplicaMismatchReport,
    FinishedReport,
    RendezvousReport,
)
NewestProcesses = Mapping[int, tuple[int, ProcessInfo]]
"""Rank -> (attempt, process) of its newest process."""


def parse_report(report: Report, index: int, attempt: int) -> RecoveryEvent | None:
    """The protocol's event for a rank's report; None: it does not concern the protocol."""
    match report:
        case StartedReport():
            return Started(rank=index, attempt=attempt)
        case ExitReport(code=code, error=error):
            return Exited(rank=index, attempt=attempt, code=code, error=error)
        case ReadyReport():
            return _ready_to_restore(report, index, attempt)
        case FinishedReport(generation=generation):
            return Finished(rank=index, attempt=attempt, generation=generation)
        case ResumedReport(generation=generation, rigid=rigid):
            return Resumed(rank=index, generation=generation, rigid=rigid)
        case CommitReport(generation=generation, step=step):
            return Committed(rank=index, generation=generation, step=step)
        case CollectiveFailedReport(generation=generation, error=error):
            return CollectiveFailed(rank=index, generation=generation, error=error)
        case BadLossReport() | ReplicaMismatchReport():
            return _health_event(report, index)
        case _:
            return None


def _ready_to_restore(report: ReadyReport, index: int, attempt: int) -> ReadyToRestore:
    return ReadyToRestore(
        rank=index,
        attempt=attempt,
        generation=report.generation,
        steps=report.steps,
        sharded=report.sharded,
        created_generation=report.created_generation,
        snapshot_every=report.snapshot_every,
        shards_found=report.shards_found,
    )


def _health_event(
    report: BadLossReport | ReplicaMismatchReport, index: int
) -> BadLoss | ReplicaMismatch:
    if isinstance(report, ReplicaMismatchReport):
        return ReplicaMismatch(generation=report.generation, step=report.step, ranks=report.ranks)
    return BadLoss(
        rank=index,
        generation=report.generation,
        step=report.step,
        batch=report.batch,
        error=report.error,
        replays=report.replays,
    )


def view_changes(report: Report) -> dict[str, Any]:
    """Fields of its rank's RankView that a report changes."""
    match report:
        case StartedReport(pid=pid):
            return {"pid": pid, "state": "starting"}
        case ResumedReport(step=step) | CommitReport(step=step):
            return {"state": "running", "step": step}
        case ReadyReport():
            return {"state": "standing"}
        case FinishedReport():
            return {"state": "done"}
        case ExitReport():
            return {"state": "ended"}
        case _:
            return {}


def newest_by_rank(processes: Iterable[ProcessInfo]) -> NewestProcesses:
    """The newest process of each rank."""
    newest: dict[int, tuple[int, ProcessInfo]] = {}
    for info in processes:
        key = parse_key(info.key)
        if key and (key[0] not in newest or newest[key[0]][0] < key[1]):
            newest[key[0]] = (key[1], info)
    return newest


def gang_from(
    grants: Mapping[int, Grant],
    processes: NewestProcesses,
    *,
    generation: int,
    limits: Limits,
    now: float,
    used: Iterable[int] = (),
) -> Gang:
    """The gang as its processes last described themselves.

    Numbers in `used` belong to ranks that have left: none is used again.
    """
    present = {n: _rank(grant, *processes.get(n, (1, None))) for n, grant in grants.items()}
    departed = Rank(node=NodeId(""), phase=RankPhase.RETIRED)
    numbers = range(max([*present, *used], default=-1) + 1)
    infos = [info for _, info in processes.values()]
    return Gang(
        ranks=tuple(present.get(number, departed) for number in numbers),
        generation=max([generation, 1, *(_generation(info) for info in infos)]),
        since=now,
        limits=limits,
        is_session=any(info.last(ReadyReport) is not None for info in infos),
        is_sharded=any(ready.sharded for info in infos if (ready := info.last(ReadyReport))),
        is_rigid=any(resumed.rigid for info in infos if (resumed := info.last(ResumedReport))),
    )


def in_same_generation(gang: Gang, processes: NewestProcesses) -> bool:
    """Whether every rank has resumed in the gang's generation."""
    resumed = [info.last(ResumedReport) for _, info in processes.values()]
    return all(report is not None and report.generation == gang.generation for report in resumed)


def _rank(grant: Grant, attempt: int, info: ProcessInfo | None) -> Rank:
    if info is None:
        return Rank(node=grant.node, attempt=attempt)
    committed = info.last(CommitReport) or info.last(ResumedReport)
    return Rank(
        node=grant.node,
        attempt=attempt,
        phase=_phase(info),
        committed=0 if committed is None else committed.step,
    )


def _phase(info: ProcessInfo) -> RankPhase:
    if not info.alive:
        return RankPhase.ABSENT
    return RankPhase.STARTED if info.last(ReadyReport) is None else RankPhase.LEAVING


def _generation(info: ProcessInfo) -> int:
    """The newest generation that a process has reported of."""
    reports = [info.last(kind) for kind in _OF_GENERATION]
    return max((report.generation for report in reports if report is not None), default=0)
