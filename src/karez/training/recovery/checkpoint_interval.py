"""Interval between stored checkpoints: Young's optimum of checkpoint and failure cost. Pure.

Source: J. W. Young, "A first order approximation to the optimum checkpoint interval", CACM 17(9),
1974; Daly (FGCS 22, 2006) refines it where the interval comes near the time between failures.
"""

import math
from dataclasses import dataclass, field

PRIOR_PER_NODE_DAY = 4e-3
"""Prior rate of interrupting failures per node-day: Llama-3 405B's 419 in 54
days on 16,384 GPUs of 8 to a node are 3.79e-3, and Meta's RSC clusters have 2.3e-3 to 6.5e-3, as in
the design notes on resilience."""
PRIOR_DAYS = 10.0
"""Weight of the prior, in node-days."""
SHORTEST_S, LONGEST_S = 10.0, 1800.0
"""Limits of the interval. Half an hour is the longest that the notes found in use where storage is
the last resort."""


@dataclass(slots=True, kw_only=True)
class CheckpointCadence:
    """Measured checkpoint cost and faults of one job, from which its interval follows."""

    fixed_s: float = 0.0
    """The interval that the user set; 0: it follows from the measurements."""
    costs: list[float] = field(default_factory=list)
    """Seconds that a checkpoint held up its rank, newest last."""
    faults: int = 0
    """Recoveries of the job so far."""
    began_at: float = 0.0

    def note(self, cost_s: float) -> None:
        """Record what a rank's part of a checkpoint cost."""
        self.costs = [*self.costs[-19:], cost_s]

    def every_s(self, nodes: int, now: float) -> float:
        """The interval to use from now on, for a job on so many nodes."""
        if self.fixed_s:
            return self.fixed_s
        cost_s = max(self.costs, default=0.5)
        return best_interval(
            cost_s, mean_time_between_failures(self.faults, nodes, now - self.began_at)
        )


def mean_time_between_failures(faults: int, nodes: int, elapsed_s: float) -> float:
    """Expected seconds between failures, from the prior and the job's own node-days and failures.

    Args:
        faults: Failures of the job so far.
        nodes: Nodes that the job runs on.
        elapsed_s: Seconds since the job began.
    """
    days = max(1, nodes) * max(0.0, elapsed_s) / 86_400.0
    rate = (PRIOR_PER_NODE_DAY * PRIOR_DAYS + faults) / (PRIOR_DAYS + days)
    return 86_400.0 / (rate * max(1, nodes))


def best_interval(cost_s: float, between_s: float) -> float:
    """Daly's refinement of Young's interval, from SHORTEST_S to LONGEST_S."""
    if cost_s >= 2 * between_s:
        return max(SHORTEST_S, between_s)
    ratio = math.sqrt(cost_s / (2 * between_s))
    young = math.sqrt(2 * cost_s * between_s)
    return min(LONGEST_S, max(SHORTEST_S, young * (1 + ratio / 3 + ratio**2 / 9) - cost_s))
