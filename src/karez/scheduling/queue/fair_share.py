"""Fair share: the decayed usage of each project, by its dominant resource.

A project's dominant share is the largest part it holds of any one kind (A. Ghodsi et al.,
"Dominant Resource Fairness", NSDI 2011); usage counts half after HALF_LIFE_S.
"""

import math
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from typing import Final

from karez.core.devices import DeviceKind
from karez.core.identity import Project
from karez.scheduling.queue.order import AGING_S_PER_DOUBLING

HALF_LIFE_S: Final = 7 * 86_400.0
"""Slurm's default for PriorityDecayHalfLife (slurm.conf)."""
MAX_DOUBLINGS: Final = 2.0
"""Most doublings of work, each worth AGING_S_PER_DOUBLING, by which a project's usage can move its
workloads in the queue; so the bound on waiting holds."""


@dataclass(slots=True, kw_only=True)
class FairShare:
    """Decayed usage of every project, in seconds of the whole pool."""

    capacity: Mapping[DeviceKind, int] = field(default_factory=dict)
    """Capacity of the pool, in each kind's unit."""
    usage_s: dict[str, float] = field(default_factory=dict)
    """Project -> decayed seconds of the whole pool, as of `at`."""
    at: float = 0.0

    def advance(self, now: float, used: Mapping[tuple[str, DeviceKind], int]) -> None:
        """Decay earlier usage, and add what has been held since the last call."""
        span = now - self.at
        if span <= 0:
            return
        kept = 0.5 ** (span / HALF_LIFE_S)
        counts = HALF_LIFE_S / math.log(2) * (1 - kept)
        for name in self.usage_s:
            self.usage_s[name] *= kept
        for name, share in dominant_shares(used, self.capacity).items():
            self.usage_s[name] = self.usage_s.get(name, 0.0) + share * counts
        self.at = now

    def penalty_s(self, projects: Mapping[str, Project], active: Iterable[str]) -> dict[str, float]:
        """Seconds by which each active project's workloads move back; negative: forward."""
        names = sorted(set(active))
        total = sum(self.usage_s.get(name, 0.0) for name in names)
        if len(names) < 2 or total <= 0:
            return {}
        weights = {name: projects[name].weight if name in projects else 1 for name in names}
        total_weight = sum(weights.values())
        penalties = {}
        for name in names:
            part, due = self.usage_s.get(name, 0.0) / total, weights[name] / total_weight
            doublings = math.log2(part / due) if part > 0 else -MAX_DOUBLINGS
            penalties[name] = AGING_S_PER_DOUBLING * min(
                MAX_DOUBLINGS, max(-MAX_DOUBLINGS, doublings)
            )
        return penalties


def dominant_shares(
    used: Mapping[tuple[str, DeviceKind], int], capacity: Mapping[DeviceKind, int]
) -> dict[str, float]:
    """Return each project's largest share of any kind."""
    best: dict[str, float] = {}
    for (name, kind), amount in used.items():
        size = capacity.get(kind, 0)
        best[name] = max(best.get(name, 0.0), amount / size if size else 0.0)
    return best
