"""The record of one recovery: what was noticed, decided and restored, and what it cost.

A receipt is signed with the cloud's key when it is written and names the one before it, so that
anyone who has the public key can check, offline, that none was altered and none is missing.
"""

import base64
import hashlib
import json
from collections.abc import Iterable, Sequence
from dataclasses import asdict, dataclass, replace
from itertools import pairwise
from statistics import fmean, median

CODES = {
    "exit": "a process ended by itself or by a signal",
    "node": "a node was lost",
    "frozen": "a process was stopped and did not run",
    "hang": "a rank did not get on, or a collective did not end",
    "link": "a collective broke although every process lived",
    "nan": "a loss was not finite, or leapt",
    "corrupt": "replicas that must be alike differed",
    "straggler": "a rank was much slower than the others",
    "report": "monitoring reported a fault",
    "control": "control was lost or started anew",
}
"""Kinds of faults, as receipts name them."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Receipt:
    """One recovery of one job. Instants are UTC epoch seconds of the control's host."""

    id: str
    job: str
    generation: int
    cause: str
    ranks: tuple[int, ...]
    rung: str
    source: str
    """Where the lost state came from: `shm`, `peer`, `replica`, `storage` or `start`."""
    detected_at: float
    decided_at: float
    restored_at: float
    resumed_at: float
    step_before: int
    """Highest step any rank had committed when the fault was noticed."""
    step_restored: int
    epoch: int = 0
    code: str = "exit"
    """The kind of fault; one of CODES."""
    confirmed_at: float = 0.0
    """When it was sure: at once for an exit, after a second look for a hang."""
    nodes: tuple[str, ...] = ()
    skipped: tuple[int, ...] = ()
    """Batches that were left out."""
    before: str = ""
    """SHA-256 of the job's receipt before this one; empty for the first."""
    key: str = ""
    """Fingerprint of the key that signed it."""
    signature: str = ""
    """Ed25519 (RFC 8032) over `message`, base64."""

    @property
    def steps_lost(self) -> int:
        """Committed steps that had to be done again."""
        return max(0, self.step_before - self.step_restored)

    @property
    def recovery_s(self) -> float:
        """From the detection to the first step complete on all ranks."""
        return self.resumed_at - self.detected_at

    @property
    def message(self) -> bytes:
        """What is signed: its fields as JSON, sorted by name, without the signature."""
        return _text({**asdict(self), "signature": ""})

    @property
    def digest(self) -> str:
        """What the next receipt names."""
        return hashlib.sha256(self.message + self.signature.encode()).hexdigest()


def _text(fields: dict[str, object]) -> bytes:
    return json.dumps(fields, sort_keys=True, separators=(",", ":")).encode()


def fingerprint(public: bytes) -> str:
    """The short name of a public key."""
    return hashlib.sha256(public).hexdigest()[:16]


def check(receipts: Sequence[Receipt], public: bytes) -> list[str]:
    """What is wrong with a job's receipts, oldest first; nothing: they are whole and true.

    Args:
        receipts: All of one job.
        public: The cloud's public key, 32 bytes.
    """
    from cryptography.exceptions import InvalidSignature  # noqa: PLC0415 - 20 ms, rarely needed
    from cryptography.hazmat.primitives.asymmetric.ed25519 import (  # noqa: PLC0415 - as above
        Ed25519PublicKey,
    )

    key = Ed25519PublicKey.from_public_bytes(public)
    wrong: list[str] = []
    before = ""
    for receipt in receipts:
        if receipt.key != fingerprint(public):
            wrong.append(f"{receipt.id}: signed by another key, {receipt.key or 'none'}")
        try:
            key.verify(base64.b64decode(receipt.signature), receipt.message)
        except (InvalidSignature, ValueError):
            wrong.append(f"{receipt.id}: the signature does not fit what it says")
        if receipt.before != before:
            wrong.append(f"{receipt.id}: the receipt before it is missing or altered")
        before = receipt.digest
    return wrong


@dataclass(frozen=True, slots=True, kw_only=True)
class RungFigures:
    """The recoveries by one rung."""

    rung: str
    count: int
    mean_s: float
    median_s: float
    longest_s: float


@dataclass(frozen=True, slots=True, kw_only=True)
class Goodput:
    """How much of a job's time went into steps that count.

    Goodput is the share of the time from its first start to its end (or now) that was neither
    spent recovering, nor on steps done again, nor waiting after a restart of the whole job. A job
    is uninterrupted as long as no fault ended all of its processes: `restarts` counts when one did.
    """

    elapsed_s: float
    lost_s: float
    goodput: float
    interruptions: int
    restarts: int
    steps_lost: int
    mean_recovery_s: float
    longest_run_s: float
    """The longest time without a restart of the whole job."""
    rungs: tuple[RungFigures, ...] = ()


def goodput(
    receipts: Iterable[Receipt],
    *,
    began_at: float,
    until: float,
    step_s: float,
    waited: Sequence[tuple[float, float]] = (),
) -> Goodput:
    """Reckon it up.

    Args:
        receipts: Of one job, or of many whose `elapsed` is summed elsewhere.
        began_at: When the job first ran, UTC epoch seconds.
        until: Its end, or now.
        step_s: Median time of one step.
        waited: From when to when it held nothing, or was not at work, after a restart. What a
            receipt covers counts once.
    """
    found = sorted(receipts, key=lambda receipt: receipt.detected_at)
    steps = sum(receipt.steps_lost for receipt in found)
    bare = [(start, end) for start, end in waited if not _is_told(start, end, found)]
    idle_s = sum(max(0.0, end - start) for start, end in bare)
    lost_s = sum(receipt.recovery_s for receipt in found) + steps * step_s + idle_s
    elapsed_s = max(0.0, until - began_at)
    over = [one.detected_at for one in found if one.rung == "restart"]
    cuts = [began_at, *sorted([*over, *(start for start, _ in bare)]), until]
    runs = [late - early for early, late in pairwise(cuts)]
    by_rung: dict[str, list[float]] = {}
    for receipt in found:
        by_rung.setdefault(receipt.rung, []).append(receipt.recovery_s)
    return Goodput(
        elapsed_s=elapsed_s,
        lost_s=min(lost_s, elapsed_s),
        goodput=max(0.0, 1.0 - lost_s / elapsed_s) if elapsed_s else 1.0,
        interruptions=len(found) + len(bare),
        restarts=len(over) + len(bare),
        steps_lost=steps,
        mean_recovery_s=fmean([r.recovery_s for r in found]) if found else 0.0,
        longest_run_s=max(runs, default=0.0),
        rungs=tuple(
            RungFigures(
                rung=rung,
                count=len(seconds),
                mean_s=fmean(seconds),
                median_s=median(seconds),
                longest_s=max(seconds),
            )
            for rung, seconds in sorted(by_rung.items())
        ),
    )


def _is_told(start: float, end: float, receipts: Iterable[Receipt]) -> bool:
    return any(
        one.rung == "restart" and one.detected_at <= end and one.resumed_at >= start
        for one in receipts
    )


def chained(receipt: Receipt, before: Receipt | None) -> Receipt:
    """A receipt that names the one before it."""
    return replace(receipt, before=before.digest if before else "")
