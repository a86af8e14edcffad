"""Handles what the nodes of a gang report: events of its processes, and lost nodes."""

from karez.core.nodes import NodeId, NodeState
from karez.core.processes import Event
from karez.core.workloads import EndReason
from karez.training.controller.event_parser import parse_event, view_changes
from karez.training.controller.gang_run import GangRun
from karez.training.controller.process_specs import parse_key
from karez.training.recovery.events import NodeGone


def handle_next_report(run: GangRun, *, within_s: float) -> None:
    """Wait for the next report of a node, at most this long, and handle it."""
    report = run.events.next(within_s=within_s)
    if report is None:
        return
    node, event = report
    if event is None:
        _on_node_lost(run, node)
        return
    key = parse_key(event.key)
    if key is None:
        _on_other_event(run, event)
    else:
        _on_rank_event(run, event, *key)


def _on_rank_event(run: GangRun, event: Event, index: int, attempt: int) -> None:
    is_current = index < len(run.gang.ranks) and run.gang.ranks[index].attempt == attempt
    if is_current and (changes := view_changes(event)):
        run.status.view(index, **changes)
    run.status.note(index, event, run.gang.generation)
    if event.type == "stored":
        run.cadence.note(float(event.data["held_s"]))
        run.saver.save(index, run.allocation.workers[index].node, event.data)
    if (parsed := parse_event(event, index, attempt)) is not None:
        busy_s = float(event.data.get("busy_s", 0.0))
        run.apply(parsed)
        run.hang_monitor.on_event(run.gang, parsed, busy_s, run.deps.clock.now())
    if event.type == "started":
        run.status.show_started(run.gang)


def _on_other_event(run: GangRun, event: Event) -> None:
    """Handle an event of a sidecar or of the rendezvous store."""
    failure = run.sidecars.on_event(event, run.allocation.of_role)
    if failure and run.end is None:
        run.fail(EndReason.USER_ERROR, failure)
    run.starter.on_event(event, run.gang)


def _on_node_lost(run: GangRun, node: NodeId) -> None:
    """Replace the ranks of a lost node; a gang that loses a role's worker starts over instead."""
    _mark_node_lost(run, node)
    roles = run.allocation.drop_node(node)
    run.apply(NodeGone(node=node))
    if roles and run.end is None:
        detail = f"node {node} was lost, and with it {', '.join(sorted(roles))}"
        run.fail(EndReason.NODE_LOST, detail, code="node")


def _mark_node_lost(run: GangRun, node: NodeId) -> None:
    """Mark a node in the pool, so that nothing is placed there until it answers."""
    pool = run.deps.store.pool
    for member in pool.nodes():
        if member.id == node and member.state == NodeState.READY:
            pool.set_node(node, NodeState.LOST)
