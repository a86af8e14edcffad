"""The trace of a job: submit, queue, start, steps, faults and recoveries as spans. Pure.

Spans follow from what the store has, so the trace of a job is the same whoever asks, and whenever.
Their ids are OpenTelemetry's: 16 bytes for the trace and 8 for a span, in hexadecimal.
"""

import hashlib
import itertools
import json
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Protocol

from typing_extensions import override

from karez.core.jobs import Job
from karez.core.nodes import NodeId
from karez.core.receipts import Receipt
from karez.core.recovery import Transition
from karez.core.workloads import ENDED, EndReason

Attribute = str | int | float | bool


@dataclass(frozen=True, slots=True, kw_only=True)
class Span:
    """One interval of a trace."""

    name: str
    id: str
    parent: str
    """Id of the span that it belongs to; empty: it is the root."""
    began_at: float
    """UTC epoch seconds."""
    ended_at: float | None
    """None: it goes on."""
    attributes: Mapping[str, Attribute] = field(default_factory=dict)
    error: str = ""
    """Why what it stands for failed; empty: it did not."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Trace:
    """The spans of one job, the root first, and each after its parent."""

    id: str
    job: str
    name: str
    at: float
    """When it was read, in UTC epoch seconds."""
    spans: tuple[Span, ...]


class JobTracer(Protocol):
    """Is told when a job's trace has grown."""

    def changed(self, job: str) -> None:
        """Note that what the store has of a job has changed. Never waits."""

    def close(self) -> None:
        """Send what is left."""
        ...


class NoTracer(JobTracer):
    """Sends traces nowhere."""

    @override
    def changed(self, job: str) -> None:
        return

    @override
    def close(self) -> None:
        return


@dataclass(frozen=True, slots=True, kw_only=True)
class HeldDevices:
    """An allocation that a workload has, or had."""

    epoch: int
    nodes: tuple[NodeId, ...]
    devices: int
    since: float
    until: float | None


@dataclass(frozen=True, slots=True, kw_only=True)
class _Run:
    """The time between a placement and the release of the devices."""

    since: float
    until: float | None
    held: Sequence[HeldDevices]

    def has(self, at: float) -> bool:
        return self.since <= at and (self.until is None or at <= self.until)


def trace_of(
    job: Job,
    held: Sequence[HeldDevices],
    transitions: Sequence[Transition],
    receipts: Sequence[Receipt],
    now: float,
) -> Trace:
    """The trace of a job, from all that it held and all that its controllers recorded.

    Args:
        job: The job, as it is.
        held: Its allocations, oldest first.
        transitions: The log of its recovery protocol, oldest first.
        receipts: Its recoveries, oldest first.
        now: UTC epoch seconds.
    """
    make = _Maker(hashlib.sha256(f"karez/{job.id}".encode()).hexdigest()[:32])
    reason = job.status.end
    root = make.span(
        "job",
        "",
        (job.created_at, job.ended_at),
        {
            "job": job.id,
            "name": job.spec.name,
            "project": job.spec.project,
            "kind": job.spec.kind.value,
            "state": job.state.value,
        },
        error=job.status.reason
        if job.state in ENDED and reason not in (EndReason.DONE, EndReason.CANCELLED)
        else "",
    )
    runs = _runs(held)
    spans = [root, *_queues(make, job, root, runs)]
    for run in runs:
        spans += _run_spans(make, job, root, run, transitions)
    placed = [span for span in spans if span.name == "run"]
    for receipt in receipts:
        spans += _recovery_spans(make, placed, root, receipt)
    return Trace(id=make.trace, job=job.id, name=job.spec.name, at=now, spans=tuple(spans))


@dataclass(frozen=True, slots=True)
class _Maker:
    trace: str

    def span(
        self,
        name: str,
        parent: str,
        times: tuple[float, float | None],
        attributes: Mapping[str, Attribute] | None = None,
        *,
        error: str = "",
    ) -> Span:
        began_at, ended_at = times
        text = f"{self.trace}/{parent}/{name}/{began_at!r}"
        ident = hashlib.sha256(text.encode()).hexdigest()[:16]
        return Span(
            name=name,
            id=ident,
            parent=parent,
            began_at=began_at,
            ended_at=ended_at,
            attributes=attributes or {},
            error=error,
        )


def _runs(held: Sequence[HeldDevices]) -> list[_Run]:
    """Allocations that follow each other without a gap are one run with other devices."""
    runs: list[_Run] = []
    for one in held:
        if runs and runs[-1].until == one.since:
            runs[-1] = _Run(since=runs[-1].since, until=one.until, held=[*runs[-1].held, one])
        else:
            runs.append(_Run(since=one.since, until=one.until, held=[one]))
    return runs


def _queues(make: _Maker, job: Job, root: Span, runs: Sequence[_Run]) -> Iterator[Span]:
    ends: list[float | None] = [job.created_at, *(run.until for run in runs)]
    begins = [*(run.since for run in runs), job.ended_at]
    for began_at, ended_at in zip(ends, begins, strict=True):
        if began_at is None or (began_at == ended_at == job.ended_at):
            continue  # it runs, or ended as its run did
        priority = {"priority": job.spec.priority}
        yield make.span("queue", root.id, (began_at, ended_at), priority)


def _run_spans(
    make: _Maker, job: Job, root: Span, run: _Run, transitions: Sequence[Transition]
) -> Iterator[Span]:
    nodes = sorted({node for one in run.held for node in one.nodes})
    about: dict[str, Attribute] = {"nodes": ",".join(nodes), "devices": run.held[-1].devices}
    parent = make.span("run", root.id, (run.since, run.until), about)
    yield parent
    own = [one for one in transitions if run.has(one.at)]
    began_at = next((one.at for one in own if one.phase == "running"), None)
    if began_at is None and job.started_at is not None and run.has(job.started_at):
        began_at = job.started_at  # a program without a session
    yield make.span("start", parent.id, (run.since, run.until if began_at is None else began_at))
    if began_at is not None and all(one.phase != "running" for one in own):
        yield make.span("work", parent.id, (began_at, run.until))
    for one, following in itertools.zip_longest(own, own[1:]):
        ended_at = run.until if following is None else following.at
        if one.phase == "running":
            steps: dict[str, Attribute] = {"generation": one.generation, "from_step": _step(one)}
            if following is not None:
                steps["to_step"] = _step(following)
            elif run.until is None:
                steps["to_step"] = job.status.step
            yield make.span("train", parent.id, (one.at, ended_at), steps)
        elif one.phase == "draining":
            yield make.span("drain", parent.id, (one.at, ended_at))


def _step(transition: Transition) -> int:
    """The last step that was complete on all ranks."""
    try:
        return int(json.loads(transition.body)["max_committed_step"])
    except (ValueError, KeyError, TypeError):
        return 0  # of an older release


def _recovery_spans(
    make: _Maker, placed: Sequence[Span], root: Span, receipt: Receipt
) -> Iterator[Span]:
    """A recovery and its parts; one that took several runs belongs to the job."""
    within = [
        span.id
        for span in placed
        if span.began_at <= receipt.detected_at
        and (span.ended_at is None or receipt.resumed_at <= span.ended_at)
    ]
    about: dict[str, Attribute] = {
        "receipt": receipt.id,
        "code": receipt.code,
        "rung": receipt.rung,
        "ranks": ",".join(map(str, receipt.ranks)),
        "state_from": receipt.source,
        "step_before": receipt.step_before,
        "step_restored": receipt.step_restored,
        "generation": receipt.generation,
    }
    times = (receipt.detected_at, receipt.resumed_at)
    parent = make.span("recovery", (within or [root.id])[0], times, about, error=receipt.cause)
    yield parent
    for name, part in receipt.phases.items():
        yield make.span(name, parent.id, part)
