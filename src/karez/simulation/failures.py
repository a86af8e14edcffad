"""When nodes fail, and for how long: drawn from a seed, so that a run can be repeated."""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from karez.core.errors import BadRequest
from karez.core.nodes import Node
from karez.core.units import parse_seconds

MOST_OUTAGES = 1_000_000


@dataclass(frozen=True, slots=True, kw_only=True)
class Failures:
    """Failures of single nodes, each at a constant rate by itself."""

    mtbf_s: float
    """Mean time of one node between two failures."""
    repair_s: float
    seed: int = 0


@dataclass(frozen=True, slots=True, kw_only=True)
class Outage:
    """A node is gone for a while."""

    node: str
    starts_s: float
    ends_s: float

    @property
    def edges(self) -> tuple[tuple[float, bool, str], ...]:
        """(when, whether it ends, node): both ends."""
        return ((self.starts_s, False, self.node), (self.ends_s, True, self.node))


def parse_failures(text: str, seed: int) -> Failures | None:
    """`30d:4h`: each node fails every 30 days on average and is back after 4 hours; "" is none.

    Raises:
        BadRequest: It does not read like that.
    """
    if not text:
        return None
    mtbf, colon, repair = text.partition(":")
    try:
        found = Failures(mtbf_s=parse_seconds(mtbf), repair_s=parse_seconds(repair), seed=seed)
    except ValueError as error:
        raise BadRequest(problem=f"--failures {text!r}: {error}", fix="Write 30d:4h.") from error
    if not colon or found.mtbf_s < 60 or found.repair_s <= 0:
        raise BadRequest(
            problem=f"--failures {text!r} is not a time between failures and a time to repair",
            fix="Write 30d:4h; a node fails at most every minute.",
        )
    return found


def outages(nodes: Sequence[Node], failures: Failures, until_s: float) -> list[Outage]:
    """All outages that begin before an instant.

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
    found = []
    for node in nodes:
        at = 0.0
        while True:
            at += float(chance.exponential(failures.mtbf_s))
            if at >= until_s:
                break
            found.append(Outage(node=node.id, starts_s=at, ends_s=at + failures.repair_s))
            at += failures.repair_s
    return found
