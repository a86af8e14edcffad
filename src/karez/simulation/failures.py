"""Outages of single nodes, drawn from a seed, so that a run can be repeated."""

import math
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, field

import numpy as np

from karez.core.errors import BadRequest
from karez.core.nodes import Node, NodeId
from karez.core.units import parse_seconds

MOST_OUTAGES = 1_000_000


@dataclass(frozen=True, slots=True, kw_only=True)
class Failures:
    """Rate of failures of single nodes; each node fails on its own, at a constant rate."""

    mtbf_s: float
    """Mean time between two failures of one node."""
    repair_s: float
    seed: int = 0


@dataclass(frozen=True, slots=True, kw_only=True)
class Outage:
    """A span of time in which a node is down."""

    node: str
    starts_s: float
    ends_s: float

    @property
    def edges(self) -> tuple[tuple[float, bool, str], ...]:
        """The start and the end, as (when, whether the outage ends, node)."""
        return ((self.starts_s, False, self.node), (self.ends_s, True, self.node))


@dataclass(slots=True)
class OutageSchedule:
    """Outages in order of time, and the nodes that are down."""

    _edges: Sequence[tuple[float, bool, str]]
    _passed: int = 0
    _down: Counter[NodeId] = field(default_factory=Counter)

    @classmethod
    def of(cls, outages: Sequence[Outage]) -> "OutageSchedule":
        """A schedule of these outages."""
        return cls(sorted(edge for outage in outages for edge in outage.edges))

    @property
    def next_at(self) -> float:
        """When the next node fails or recovers; infinity if none does."""
        return self._edges[self._passed][0] if self._passed < len(self._edges) else math.inf

    @property
    def down(self) -> frozenset[NodeId]:
        """The nodes that are down."""
        return frozenset(node for node, count in self._down.items() if count > 0)

    def advance(self, now: float) -> bool:
        """Go on to an instant. Returns whether any node failed or recovered."""
        before = self._passed
        while self.next_at <= now:
            _, is_end, node = self._edges[self._passed]
            self._down[NodeId(node)] += -1 if is_end else 1
            self._passed += 1
        return self._passed > before


def parse_failures(text: str, seed: int) -> Failures | None:
    """Parse `30d:4h`: a node fails every 30 days on average, for 4 hours; "" means no failures.

    Raises:
        BadRequest: The text has another form, or a time is out of bounds.
    """
    if not text:
        return None
    mtbf, colon, repair = text.partition(":")
    try:
        failures = Failures(mtbf_s=parse_seconds(mtbf), repair_s=parse_seconds(repair), seed=seed)
    except ValueError as error:
        raise BadRequest(problem=f"--failures {text!r}: {error}", fix="Write 30d:4h.") from error
    if not colon or failures.mtbf_s < 60 or failures.repair_s <= 0:
        raise BadRequest(
            problem=f"--failures {text!r} is not a time between failures and a time to repair",
            fix="Write 30d:4h; a node fails at most every minute.",
        )
    return failures


def outages(nodes: Sequence[Node], failures: Failures, until_s: float) -> list[Outage]:
    """Draw all outages that begin before an instant.

    Raises:
        BadRequest: There would be more than a million.
    """
    expected = len(nodes) * until_s / failures.mtbf_s
    if expected > MOST_OUTAGES:
        raise BadRequest(
            problem=f"about {expected:.0f} failures would be drawn",
            fix="Give a longer time between failures.",
        )
    chance = np.random.default_rng(failures.seed)
    drawn = []
    for node in nodes:
        at = 0.0
        while True:
            at += float(chance.exponential(failures.mtbf_s))
            if at >= until_s:
                break
            drawn.append(Outage(node=node.id, starts_s=at, ends_s=at + failures.repair_s))
            at += failures.repair_s
    return drawn
