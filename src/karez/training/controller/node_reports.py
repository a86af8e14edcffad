"""Handles what the nodes of a gang report: events of its processes, and lost nodes."""

import structlog

from karez.core.messages.greetings import Refusal
from karez.core.messages.reports import (
    CheckpointReport,
    CommitReport,
    ExitReport,
    Report,
    StartedReport,
)
from karez.core.messages.wire import Malformed
from karez.core.metrics import REFUSED
from karez.core.nodes import NodeId, NodeState
from karez.core.processes import Event
from karez.core.workloads import EndReason
from karez.training.controller.event_parser import parse_report, view_changes
from karez.training.controller.gang_run import GangRun
from karez.training.controller.process_specs import parse_key
from karez.training.recovery.events import NodeGone

log = structlog.get_logger()


def handle_next_report(run: GangRun) -> bool:
    """Handle the next report of a node. False: none has come."""
    report = run.events.next()
    if report is not None:
        _handle(run, *report)
    return report is not None


def _handle(run: GangRun, node: NodeId, event: Event | None) -> None:
    if event is None:
        _on_node_lost(run, node)
        return
    content = event.report()
    if isinstance(content, Malformed):
        refusal = Refusal(refused=content.type, why=content.why)
        log.warning("report.refused", process=event.key, node=node, **_words(refusal))
        run.deps.metrics.count(REFUSED, direction="to-control")
        run.executor.send_to(node, event.key, refusal)
    elif isinstance(content, Refusal):
        log.warning("order.refused", process=event.key, node=node, **_words(content))
        run.deps.metrics.count(REFUSED, direction="to-rank")
    else:
        _on_report(run, event, content)


def _words(refusal: Refusal) -> dict[str, str]:
    return {"type": refusal.refused, "why": refusal.why}


def _on_report(run: GangRun, event: Event, report: Report) -> None:
    key = parse_key(event.key)
    if key is None:
        _on_other_report(run, event.key, report)
    else:
        _on_rank_report(run, event.at, report, *key)


def _on_rank_report(run: GangRun, at: float, report: Report, index: int, attempt: int) -> None:
    is_current = index < len(run.gang.ranks) and run.gang.ranks[index].attempt == attempt
    if is_current and (changes := view_changes(report)):
        run.status.view(index, **changes)
    run.status.note(index, report, run.gang.generation, at=at)
    if isinstance(report, CheckpointReport):
        run.cadence.note(report.held_s)
        if (grant := run.allocation.workers.get(index)) is not None:
            run.saver.save(index, grant.node, report)
    if (parsed := parse_report(report, index, attempt)) is not None:
        busy_s = report.busy_s if isinstance(report, CommitReport) else 0.0
        run.apply(parsed)
        run.hang_monitor.on_event(run.gang, parsed, busy_s, run.deps.clock.now())
    if isinstance(report, StartedReport):
        run.status.show_started(run.gang)


def _on_other_report(run: GangRun, key: str, report: Report) -> None:
    """Handle a report of a sidecar or of the rendezvous store."""
    failure = ""
    if isinstance(report, ExitReport):
        failure = run.sidecars.on_exit(key, report, run.allocation.of_role)
    if failure and run.end is None:
        run.fail(EndReason.USER_ERROR, failure)
    run.starter.on_report(key, report, run.gang)


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
    for member in pool.nodes([node]):
        if member.state == NodeState.READY:
            pool.set_node(node, NodeState.LOST)
