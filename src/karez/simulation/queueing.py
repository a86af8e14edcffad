"""How long jobs wait: a trace's jobs on an inventory, under one way of standing in line."""

import hashlib
from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np

from karez.core.errors import BadRequest
from karez.core.resources import Node
from karez.scheduling.line import AGE_S, Order, Rules
from karez.simulation.philly import TraceJob
from karez.simulation.replay import Logged, Outcome, partitions, replay_of


@dataclass(frozen=True, slots=True, kw_only=True)
class Times:
    """A time over many jobs, in seconds."""

    jobs: int
    mean: float
    p50: float
    p90: float
    p99: float
    max: float


@dataclass(frozen=True, slots=True, kw_only=True)
class ProjectTimes:
    """One project's jobs."""

    project: str
    jct_s: Times
    queued_s: Times


@dataclass(frozen=True, slots=True, kw_only=True)
class QueueReport:
    """What one policy made of a trace."""

    policy: str
    durations: str
    nodes: int
    devices: int
    jobs: int
    left_out: int
    """Jobs larger than all nodes they may use."""
    jct_s: Times
    queued_s: Times
    preemptions: int
    utilisation_pct: float
    """Device-seconds of work done, of all there were until the last job ended."""
    log_sha256: str
    """Digest of the decision log: the same inputs give the same."""
    projects: tuple[ProjectTimes, ...]
    use: tuple[tuple[float, float], ...]
    """(day, devices in use on average) pairs, over the whole replay."""


def rules_of(policy: str, *, known: bool) -> Rules:
    """A policy by name.

    Raises:
        BadRequest: It needs to know how long jobs run and is not told.
    """
    order = Order(policy)
    if order in (Order.SJF, Order.BACKFILL) and not known:
        raise BadRequest(
            problem=f"policy {policy} orders by how long jobs run",
            fix="Say --durations known, or take --policy karez, which needs none.",
        )
    if order == Order.KAREZ:
        return Rules(order=order, preempts=True, patience_s=AGE_S)
    return Rules(order=order, patience_s=0.0)


def queueing(
    nodes: Sequence[Node],
    jobs: Sequence[TraceJob],
    *,
    policy: str,
    known: bool,
    progress: Callable[[int], object] = id,
) -> QueueReport:
    """Replay all jobs. `progress` hears how many have ended.

    Raises:
        BadRequest: No job fits any node, or the policy cannot do without durations.
    """
    rules = rules_of(policy, known=known)
    outcomes: list[Outcome] = []
    log: list[tuple[str, Logged]] = []
    done = left_out = 0

    def count() -> None:
        nonlocal done
        done += 1
        if done % 100 == 0:
            progress(done)

    for name, (own, theirs) in sorted(partitions(nodes, jobs).items()):
        replay, too_large = replay_of(own, theirs, rules, known=known, on_end=count)
        outcomes += replay.run()
        log += [(name, entry) for entry in replay.log]
        left_out += too_large
    if not outcomes:
        raise BadRequest(problem="no job of the trace fits the nodes of the inventory")
    devices = sum(device.kind in ("gpu", "npu") for node in nodes for device in node.devices)
    work = sum(outcome.job.runs_s * outcome.job.devices for outcome in outcomes)
    last = max(outcome.ended_s for outcome in outcomes)
    names = sorted({outcome.job.project for outcome in outcomes})
    return QueueReport(
        policy=policy,
        durations="known" if known else "unknown",
        nodes=len(nodes),
        devices=devices,
        jobs=len(outcomes),
        left_out=left_out,
        jct_s=_times([outcome.jct_s for outcome in outcomes]),
        queued_s=_times([outcome.queued_s for outcome in outcomes]),
        preemptions=sum(outcome.preemptions for outcome in outcomes),
        utilisation_pct=100 * work / (devices * last) if last else 0.0,
        log_sha256=hashlib.sha256(repr(log).encode()).hexdigest(),
        projects=tuple(_project(name, outcomes) for name in names),
        use=_use([entry for _, entry in log], outcomes, last),
    )


BINS = 120
"""Points of the plot of use."""


def _use(
    log: Sequence[Logged], outcomes: Sequence[Outcome], last_s: float
) -> tuple[tuple[float, float], ...]:
    """Devices in use, averaged over equal spans: from the starts, stops and ends."""
    changes = [(e.at_s, e.devices if e.what == "start" else -e.devices) for e in log]
    changes += [(outcome.ended_s, -outcome.job.devices) for outcome in outcomes]
    if not last_s:
        return ()
    at = np.array([when for when, _ in changes])
    order = np.argsort(at, kind="stable")
    held = np.cumsum(np.array([change for _, change in changes])[order])
    at = at[order]
    spans = np.diff(at, append=last_s)
    done = np.concatenate([[0.0], np.cumsum(held * spans)])  # device-seconds before each change
    edges = np.linspace(0.0, last_s, BINS + 1)
    work = np.interp(edges, np.append(at, last_s), done)
    mean = np.diff(work) / np.maximum(np.diff(edges), 1e-9)
    middles = (edges[1:] + edges[:-1]) / 2 / 86_400
    return tuple(zip(middles.round(3).tolist(), mean.round(2).tolist(), strict=True))


def _project(name: str, outcomes: Sequence[Outcome]) -> ProjectTimes:
    mine = [outcome for outcome in outcomes if outcome.job.project == name]
    return ProjectTimes(
        project=name,
        jct_s=_times([outcome.jct_s for outcome in mine]),
        queued_s=_times([outcome.queued_s for outcome in mine]),
    )


def _times(values: Sequence[float]) -> Times:
    p50, p90, p99 = (float(value) for value in np.percentile(values, (50, 90, 99)))
    return Times(
        jobs=len(values),
        mean=float(np.mean(values)),
        p50=p50,
        p90=p90,
        p99=p99,
        max=float(np.max(values)),
    )
