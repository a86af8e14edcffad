"""Decides which nodes to evict for their faults, and which evicted nodes to release. Pure."""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field

from karez.core.nodes import Node, NodeId, NodeState
from karez.core.recovery import FaultPhase, FaultReport, Severity

POINTS: Mapping[Severity, float] = {Severity.MINOR: 0.34, Severity.MAJOR: 1.0, Severity.FATAL: 3.0}
"""Severity -> points of one report."""
EVICTION_POINTS = 3.0
"""Points within the window that evict a node: one fatal report, or three major ones."""
WINDOW_S = 3600.0
"""Seconds for which a report without an end counts."""
MOST_SHARE = 0.1
"""Largest share of the nodes that is evicted at once: a rule that fires everywhere is wrong."""
FIRST_REST_S = 1800.0
"""Seconds that an evicted node rests before it is probed; twice as long each further time."""
EVICTED = "evicted"
"""Code of the incident that records an eviction."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Judgement:
    """Nodes to evict and nodes to release."""

    evict: Mapping[NodeId, str] = field(default_factory=dict)
    """Node -> reason."""
    release: tuple[NodeId, ...] = ()
    """Evicted nodes that have rested, answer, and may take work again."""


def judge_nodes(
    nodes: Sequence[Node], incidents: Sequence[FaultReport], here: frozenset[NodeId], now: float
) -> Judgement:
    """Evict repeat offenders up to the cap; release evicted nodes that have rested and answer.

    Args:
        nodes: All nodes with their states.
        incidents: Fault reports, oldest first; as far back as evictions are recorded.
        here: Nodes that have just answered a probe with healthy devices.
        now: UTC epoch seconds.
    """
    by_node: dict[str, list[FaultReport]] = {}
    for report in incidents:
        by_node.setdefault(report.node, []).append(report)
    out = [node.id for node in nodes if node.state == NodeState.EVICTED]
    ready = [node.id for node in nodes if node.state == NodeState.READY]
    room = max(1, int(MOST_SHARE * len(nodes))) - len(out)
    evict: dict[NodeId, str] = {}
    scored = [(_points(by_node.get(node, []), now), node) for node in ready]
    for points, node in sorted(scored, key=lambda pair: (-pair[0], pair[1])):
        left = len(ready) - len(evict)
        if points >= EVICTION_POINTS and room > len(evict) and left > 1:
            evict[node] = _why(by_node[node], now)
    rested = tuple(node for node in out if node in here and _has_rested(by_node.get(node, []), now))
    return Judgement(evict=evict, release=rested)


def open_reports(reports: Iterable[FaultReport]) -> list[FaultReport]:
    """Reports that no later report of the same sender, code and device ended."""
    open_by_key: dict[tuple[str, str, int | None, int], FaultReport] = {}
    for number, report in enumerate(reports):
        subject = (report.sender, report.code, report.device)
        if report.occasion == FaultPhase.RECOVER:
            open_by_key = {k: old for k, old in open_by_key.items() if k[:3] != subject}
        elif report.code != EVICTED:
            open_by_key[*subject, number] = report
    return list(open_by_key.values())


def _recent(reports: Sequence[FaultReport], now: float) -> list[FaultReport]:
    """Reports since the last eviction that are in the window or not ended yet."""
    since = max((r.at for r in reports if r.code == EVICTED), default=0.0)
    return [
        report
        for report in open_reports(reports)
        if report.at > since and (now - report.at < WINDOW_S or report.occasion == FaultPhase.OCCUR)
    ]


def _points(reports: Sequence[FaultReport], now: float) -> float:
    return sum(POINTS[report.level] for report in _recent(reports, now))


def _why(reports: Sequence[FaultReport], now: float) -> str:
    recent = _recent(reports, now)
    worst = max(recent, key=lambda report: POINTS[report.level])
    more = f" and {len(recent) - 1} more within the hour" if len(recent) > 1 else ""
    return f"{worst.sender} reported {worst.code} of {worst.node}{more}"


def _has_rested(reports: Sequence[FaultReport], now: float) -> bool:
    evictions = [report.at for report in reports if report.code == EVICTED]
    if not evictions:
        return True
    open_faults = [r for r in open_reports(reports) if r.occasion == FaultPhase.OCCUR]
    rest_s = FIRST_REST_S * 2 ** (len(evictions) - 1)
    return not open_faults and now - evictions[-1] > rest_s
