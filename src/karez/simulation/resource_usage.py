"""How much of each kind of resource the jobs of a replay used."""

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from karez.core.devices import DeviceKind
from karez.core.nodes import Node
from karez.core.units import MILLI
from karez.scheduling.cluster_state import capacity_of
from karez.scheduling.explain.explain import in_units
from karez.scheduling.explain.feasibility import empty_pool
from karez.simulation.queue_report import KindUse
from karez.simulation.replay import Replay

Floats = NDArray[np.float64]
BINS = 120
"""Points of the plot of devices in use."""


def kinds_used(
    replays: Sequence[Replay], nodes: Sequence[Node], last_s: float
) -> tuple[KindUse, ...]:
    """The share of each kind in use, on average and at most."""
    kinds = []
    for kind, size in sorted(capacity_of(empty_pool(nodes)).items()):
        at, held = _changes(replays, (kind,))
        if not len(at) or not last_s:
            continue
        spans = np.diff(at, append=max(last_s, at[-1]))
        kinds.append(
            KindUse(
                kind=kind,
                size=in_units(kind, size),
                mean_pct=100 * float((held * spans).sum()) / (size * last_s),
                peak_pct=100 * float(held.max()) / size,
            )
        )
    return tuple(kinds)


def usage_curve(
    replays: Sequence[Replay], last_s: float, kinds: Sequence[DeviceKind]
) -> tuple[tuple[float, float], ...]:
    """(day, devices in use) pairs, averaged over equal spans."""
    at, held = _changes(replays, kinds)
    if not last_s or not len(at):
        return ()
    spans = np.diff(at, append=max(last_s, at[-1]))
    done = np.concatenate([[0.0], np.cumsum(held * spans)])  # device-seconds before each change
    edges = np.linspace(0.0, last_s, BINS + 1)
    work = np.interp(edges, np.append(at, max(last_s, at[-1])), done)
    mean = np.diff(work) / np.maximum(np.diff(edges), 1e-9) / MILLI
    middles = (edges[1:] + edges[:-1]) / 2 / 86_400
    return tuple(zip(middles.round(3).tolist(), mean.round(2).tolist(), strict=True))


def _changes(replays: Sequence[Replay], kinds: Sequence[DeviceKind]) -> tuple[Floats, Floats]:
    """When the amount in use of some kinds changes over all partitions, and the amount then."""
    at: list[float] = []
    by: list[float] = []
    for replay in replays:
        before = 0.0
        for usage in replay.use:
            held = sum(usage.amounts.get(kind, 0) for kind in kinds)
            if held != before:
                at.append(usage.at_s)
                by.append(held - before)
                before = held
    order = np.argsort(np.array(at), kind="stable")
    return np.array(at)[order], np.cumsum(np.array(by)[order])
