"""Transitions of a gang whose node is lost or evicted. Pure."""

from dataclasses import replace

from karez.core.nodes import NodeId
from karez.core.workloads import EndReason
from karez.training.recovery import ladder
from karez.training.recovery.commands import Decision, kill_rank
from karez.training.recovery.events import NodeEvicted, NodeGone
from karez.training.recovery.faults import fail_ranks
from karez.training.recovery.gang_failure import fail_gang
from karez.training.recovery.state import NOWHERE, Fault, Gang, RankPhase, with_rank


def on_node_event(gang: Gang, event: NodeGone | NodeEvicted, now: float) -> Decision:
    """Move the ranks of a node elsewhere, or end the gang where it cannot move."""
    if isinstance(event, NodeGone):
        return _on_node_lost(gang, event.node, now)
    return _on_node_evicted(gang, event, now)


def _on_node_lost(gang: Gang, node: NodeId, now: float) -> Decision:
    lost = tuple(number for number, rank in gang.active if rank.node == node)
    for number, rank in gang.active:
        if rank.home == node:
            gang = with_rank(gang, number, home=NOWHERE)
    if not lost:
        return gang, ()
    cause = f"node {node} was lost"
    if not gang.is_session:
        return fail_gang(gang, EndReason.NODE_LOST, cause, now, code="node")
    for number in lost:
        gang = with_rank(gang, number, node=NOWHERE, phase=RankPhase.ABSENT)
    return fail_ranks(gang, _node_fault(cause, lost, node, now, code="node"), now)


def _on_node_evicted(gang: Gang, event: NodeEvicted, now: float) -> Decision:
    """End the ranks of a node that still answers, and start them elsewhere."""
    lost = tuple(number for number, rank in gang.active if rank.node == event.node)
    may_move = {"replace", "shrink"} & set(gang.ladder)
    if not lost or not may_move or not gang.is_session or now < gang.no_move_until:
        return gang, ()
    kills = tuple(kill_rank(gang, number, event.why) for number in lost)
    failures = (*gang.recent_failures, *((event.node, now) for _ in range(ladder.CONDEMNED)))
    fault = _node_fault(event.why, lost, event.node, now, code="report")
    gang, commands = fail_ranks(replace(gang, recent_failures=failures), fault, now)
    return gang, (*kills, *commands)


def _node_fault(cause: str, lost: tuple[int, ...], node: NodeId, now: float, *, code: str) -> Fault:
    return Fault(
        cause=cause,
        ranks=lost,
        rung="replace",
        code=code,
        detected_at=now,
        step_before=0,
        nodes=(node,),
    )
