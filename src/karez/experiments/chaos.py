"""Chaos runs: a job once undisturbed and once with faults, compared step by step."""

import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from statistics import median
from typing import Any, TypeVar

from karez.client.sdk import Client
from karez.core.api_models import ReceiptView
from karez.core.chaos import HEALED, FaultSpec, InjectedFault
from karez.core.errors import Failed
from karez.core.jobs import Job, JobSpec
from karez.core.units import show_seconds
from karez.core.workloads import ENDED, State

T = TypeVar("T")
Say = Callable[[str], object]
HEAL_S = 120.0
"""How long one recovery may take before the run is called failed."""
MANY = 4
"""Ranks below which a gang pauses in each step, so that it does not end before the faults."""
STEPS_EACH = 40
"""Steps of the gang for each fault, so that it does not end before the last."""


@dataclass(slots=True)
class ChaosLog:
    """The faults of a run and what their recoveries took."""

    caused: list[tuple[InjectedFault, ReceiptView | None]] = field(default_factory=list)
    """Each fault with the receipt of its recovery, where it needs one."""
    seconds: list[float] = field(default_factory=list)


def compare_runs(
    client: Client, spec: JobSpec, groups: Sequence[Sequence[FaultSpec]], say: Say
) -> dict[str, Any]:
    """Run a job undisturbed and again with faults; the comparison and what recoveries cost.

    Args:
        client: The cloud to run on.
        spec: The job; it must allow chaos.
        groups: Faults that are injected together, group after group.
        say: Called with each line of progress.

    Returns:
        Figures as `karez chaos run --json` prints them; `passed` says whether both runs are equal.
    """
    say(f"{spec.gang.want} ranks, {spec.settings['steps']} steps, undisturbed")
    calm = client.wait(client.submit(spec).id)
    say(f"the same with {sum(map(len, groups))} faults")
    log = ChaosLog()
    job = client.submit(spec)
    try:
        _inject_groups(client, job, groups, log, say)
        return _figures(client, calm, client.wait(job.id), log)
    except BaseException:
        client.cancel(job.id)  # no job is left behind
        raise


def _inject_groups(
    client: Client, job: Job, groups: Sequence[Sequence[FaultSpec]], log: ChaosLog, say: Say
) -> None:
    """Cause one group of faults after another, each once the gang has got over the one before."""
    number = 0
    for group in groups:
        number += len(group)
        before = _wait_for_progress(client, job, after=client.job(job.id).status.step)
        if before.state in ENDED:
            return  # the job ended before the faults
        known = len(client.receipts(job.id))
        caused = client.inject_faults(job.id, list(group))
        receipt = None
        if any(spec.what in HEALED for spec in group):
            receipt = _wait_for_receipt(client, job, known)
            if receipt is None:
                return
            log.seconds.append(receipt.resumed_at - caused[0].at)
        log.caused += [(one, receipt) for one in caused]
        took = show_seconds(log.seconds[-1]) if receipt is not None else "not noticed"
        say(f"{number:4}  {', '.join(f'{c.what} rank {c.rank}' for c in caused)}: {took}")


def _wait_for_progress(client: Client, job: Job, *, after: int) -> Job:
    """Wait until the gang runs and has made another step."""

    def at_work() -> Job | None:
        now = client.job(job.id)
        if now.state in ENDED:
            return now
        is_going = now.state == State.RUNNING and now.status.step > after
        return now if is_going else None

    return _wait(at_work, f"{job.id} to get on")


def _wait_for_receipt(client: Client, job: Job, known: int) -> ReceiptView | None:
    """Wait for the receipt of the last faults; None if the job succeeded before."""

    def written() -> tuple[ReceiptView | None] | None:
        receipts = client.receipts(job.id)
        if len(receipts) > known:
            return (receipts[-1],)
        ended = client.job(job.id)
        if ended.state in ENDED - {State.SUCCEEDED}:
            reason = f"{ended.status.end}: {ended.status.reason}"
            raise Failed(noun="job", name=job.id, reason=f"it ended in a recovery: {reason}")
        return (None,) if ended.state == State.SUCCEEDED else None

    return _wait(written, "a receipt")[0]


def _wait(what: Callable[[], T | None], words: str) -> T:
    deadline = time.monotonic() + HEAL_S  # noqa: TID251 - a command's own clock
    while (found := what()) is None:
        if time.monotonic() > deadline:  # noqa: TID251 - as above
            raise Failed(noun="chaos", name="run", reason=f"waited {HEAL_S:.0f} s for {words}.")
        time.sleep(0.05)  # noqa: TID251 - as above
    return found


def _figures(client: Client, calm: Job, job: Job, log: ChaosLog) -> dict[str, Any]:
    """The comparison, and what recoveries cost."""
    losses = [
        {(row.step, row.rank): row.loss for row in client.metrics(one.id, -1)}
        for one in (calm, job)
    ]
    digests = [_digest(client, one) for one in (calm, job)]
    receipts = client.receipts(job.id)
    goodput = client.goodput(job.id)
    lost = [receipt.steps_lost for receipt in receipts]
    allowed = all(
        receipt.steps_lost <= max(1, receipt.cause.count("; then ") + 1) for receipt in receipts
    )
    same = losses[0] == losses[1] and bool(losses[0])
    wall = [((one.ended_at or 0.0) - (one.started_at or 0.0)) for one in (calm, job)]
    return {
        "recovery_s": _spread(log.seconds),
        "detected_to_step_s": _spread([receipt.recovery_s for receipt in receipts]),
        "by_fault": {
            what.value: _spread(
                [r.resumed_at - c.at for c, r in log.caused if r is not None and c.what == what]
            )
            for what in dict.fromkeys(c.what for c, _ in log.caused)
        },
        "by_rung": {rung.rung: rung.count for rung in goodput.rungs},
        "caused": len(log.caused),
        "receipts": len(receipts),
        "steps": len({step for step, _ in losses[0]}),
        "steps_lost_max": max(lost, default=0),
        "steps_lost_total": sum(lost),
        "losses_identical": same,
        "weights_identical": digests[0] == digests[1] and bool(digests[0]),
        "restarts": job.status.retries,
        "goodput": round(goodput.goodput, 5),
        "wall_s": {"calm": round(wall[0], 2), "faults": round(wall[1], 2)},
        "jobs": {"calm": calm.id, "faults": job.id},
        "passed": same and digests[0] == digests[1] and allowed,
    }


def _spread(seconds: Sequence[float]) -> dict[str, float | int | None]:
    if not seconds:
        return {"n": 0, "median": None, "p99": None, "max": None}
    ordered = sorted(seconds)
    p99 = ordered[min(len(ordered) - 1, -(-99 * len(ordered) // 100) - 1)]
    return {
        "n": len(ordered),
        "median": round(median(ordered), 4),
        "p99": round(p99, 4),
        "max": round(ordered[-1], 4),
    }


def _digest(client: Client, job: Job) -> str:
    ident = job.status.outputs.get("weights", "")
    if not ident:
        return ""
    artifact = client.artifact(ident)
    return str(artifact.spec.facts.get("weights_sha256", ""))
