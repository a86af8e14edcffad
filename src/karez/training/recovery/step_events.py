"""Transitions of a gang whose ranks resume, complete steps and finish. Pure."""

from dataclasses import replace

from karez.training.recovery.commands import Decision, DropReplicas, ExitRanks, WriteReceipt
from karez.training.recovery.events import CollectiveFailed, Committed, Finished, Resumed
from karez.training.recovery.state import Gang, Phase, RankPhase, with_phase, with_rank


def on_step_event(
    gang: Gang, event: Resumed | Committed | CollectiveFailed | Finished, now: float
) -> Decision:
    """Note the progress of a rank in the present generation."""
    match event:
        case Resumed():
            return _on_resumed(gang, event, now), ()
        case Committed():
            return _on_committed(gang, event, now)
        case CollectiveFailed():
            return _on_collective_failed(gang, event, now), ()
        case Finished(rank=number) if gang.ranks[number].phase == RankPhase.EXITED:
            return gang, ()
        case Finished(rank=number):
            return _on_finished(with_phase(gang, number, RankPhase.FINISHED), now)


def _on_resumed(gang: Gang, event: Resumed, now: float) -> Gang:
    is_known = event.rank < len(gang.ranks)
    if is_known and gang.ranks[event.rank].phase == RankPhase.RESTORING:
        gang = with_phase(gang, event.rank, RankPhase.TRAINING)
    start_s = max(gang.slowest_start_s, now - gang.since)
    gang = replace(gang, is_rigid=gang.is_rigid or event.rigid, slowest_start_s=start_s)
    if gang.fault is None:
        return gang
    return replace(gang, fault=replace(gang.fault, restored_at=now))


def _on_committed(gang: Gang, event: Committed, now: float) -> Decision:
    committed = max(event.step, gang.ranks[event.rank].committed)
    gang = with_rank(gang, event.rank, committed=committed, joining=False)
    everywhere = min(rank.committed for _, rank in gang.active)
    if everywhere > gang.max_committed_step:
        gang = replace(gang, max_committed_step=everywhere, faults=0)
    gang, drops = _drop_old_replicas(gang, everywhere)
    restored = 0 if gang.fault is None else gang.fault.step_restored
    if gang.phase == Phase.RESUMING and everywhere > max(restored, gang.restore_step):
        gang, receipts = _complete_recovery(gang, Phase.RUNNING, now)
        return gang, (*receipts, *drops)
    return gang, drops


def _drop_old_replicas(gang: Gang, everywhere: int) -> tuple[Gang, tuple[DropReplicas, ...]]:
    """Two steps after a change of size no rank goes back beyond it: see Rule R."""
    unneeded = tuple(n for n, rank in enumerate(gang.ranks) if rank.phase == RankPhase.RETIRED)
    if not unneeded or (gang.shard_layouts and everywhere < gang.shard_layouts[-1].after + 2):
        return gang, ()
    for number in unneeded:
        gang = with_phase(gang, number, RankPhase.FORGOTTEN)
    return gang, (DropReplicas(departed=unneeded),)


def _complete_recovery(
    gang: Gang, phase: Phase, now: float
) -> tuple[Gang, tuple[WriteReceipt, ...]]:
    """Enter a phase without a fault; a recovery that ends here gets its receipt."""
    fault = gang.fault
    gang = replace(gang, phase=phase, since=now, fault=None)
    if fault is None:
        return gang, ()
    return gang, (WriteReceipt(fault=fault, generation=gang.generation, resumed_at=now),)


def _on_finished(gang: Gang, now: float) -> Decision:
    if gang.phase == Phase.DRAINING or not gang.all_in(RankPhase.FINISHED):
        return gang, ()
    gang, receipts = _complete_recovery(gang, Phase.DRAINING, now)
    return gang, (*receipts, ExitRanks())


def _on_collective_failed(gang: Gang, event: CollectiveFailed, now: float) -> Gang:
    if gang.suspect is not None or gang.phase not in (Phase.RUNNING, Phase.RESUMING):
        return gang
    return replace(gang, suspect=event, suspect_at=now)
