"""Receipts: signed records of recoveries, with cause, decision, restored step and cost.

A receipt is signed with the cloud's key when it is written and names the one before it, so that
anyone who has the public key can check, offline, that none was altered and none is missing.
"""

import base64
import hashlib
import itertools
import json
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, replace

CODES = {
    "exit": "a process ended by itself or by a signal",
    "node": "a node was lost",
    "device": "a device stopped working",
    "frozen": "a process was stopped and did not run",
    "hang": "a rank did not get on, or a collective did not end",
    "link": "a collective broke although every process lived",
    "nan": "a loss was not finite, or leapt",
    "corrupt": "replicas that must be alike differed",
    "straggler": "a rank was much slower than the others",
    "report": "monitoring reported a fault",
    "control": "control was lost or restarted",
}
"""Codes of the kinds of faults in receipts."""
PHASES = ("confirm", "decide", "restore", "resume")
"""What passes between the moments of a receipt."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Receipt:
    """Record of one recovery of one job. Instants are UTC epoch seconds of control's host."""

    id: str
    job: str
    generation: int
    cause: str
    ranks: tuple[int, ...]
    rung: str
    source: str
    """Source of the restored state: `shm`, `peer`, `replica`, `storage` or `start`."""
    detected_at: float
    decided_at: float
    restored_at: float
    resumed_at: float
    step_before: int
    """Highest step that any rank had committed when the fault was detected."""
    step_restored: int
    epoch: int = 0
    code: str = "exit"
    """The kind of fault; one of CODES."""
    confirmed_at: float = 0.0
    """When the fault was certain: at once for an exit, after a second check for a hang."""
    nodes: tuple[str, ...] = ()
    skipped: tuple[int, ...] = ()
    """Batches that were skipped."""
    snapshot_every: int = 1
    """Steps between two snapshots before the fault: so many steps could be lost at most, for each
    of its ranks' faults."""
    emulated: bool = False
    """Whether the gang's devices were emulated on CPUs."""
    before: str = ""
    """SHA-256 of the job's previous receipt; empty for the first."""
    key: str = ""
    """Fingerprint of the signing key."""
    signature: str = ""
    """Ed25519 (RFC 8032) over `message`, base64."""

    @property
    def steps_lost(self) -> int:
        """Number of committed steps that had to be done again."""
        return max(0, self.step_before - self.step_restored)

    @property
    def recovery_s(self) -> float:
        """Seconds from the detection to the first step complete on all ranks."""
        return self.resumed_at - self.detected_at

    @property
    def message(self) -> bytes:
        """The signed bytes: all fields as JSON, sorted by name, without the signature.

        Fields that karez 0.1 did not know are left out where they have their default.
        """
        fields = {**asdict(self), "signature": ""}
        return _text({k: v for k, v in fields.items() if _NEW.get(k, ...) != v})

    @property
    def phases(self) -> Mapping[str, tuple[float, float]]:
        """When each part of the recovery began and ended: confirm, decide, restore, resume."""
        moments = (
            self.detected_at,
            self.confirmed_at,
            self.decided_at,
            self.restored_at,
            self.resumed_at,
        )
        known = itertools.accumulate(moments, max)  # one that was not recorded is 0
        return dict(zip(PHASES, itertools.pairwise(known), strict=True))

    @property
    def digest(self) -> str:
        """SHA-256 that the next receipt refers to in `before`."""
        return hashlib.sha256(self.message + self.signature.encode()).hexdigest()


@dataclass(frozen=True, slots=True, kw_only=True)
class ReceiptsHead:
    """How many receipts a job has, and which is the last: without it, the end could be cut off."""

    job: str
    count: int
    last: str
    """Digest of the last receipt; empty: there is none."""
    state: str
    """State of the job: of one that has ended, there will be no more."""
    at: float
    """When this was said, in UTC epoch seconds."""
    key: str = ""
    signature: str = ""

    @property
    def message(self) -> bytes:
        """The signed bytes, as of a receipt."""
        return _text({**asdict(self), "signature": "", "kind": "receipts-head"})


@dataclass(frozen=True, slots=True, kw_only=True)
class SignedReceipts:
    """All receipts of a job, and their signed head."""

    head: ReceiptsHead
    receipts: tuple[Receipt, ...]


def head_of(job: str, state: str, receipts: Sequence[Receipt], at: float) -> ReceiptsHead:
    """The head of a job's receipts, not signed yet."""
    last = receipts[-1].digest if receipts else ""
    return ReceiptsHead(job=job, count=len(receipts), last=last, state=state, at=at)


_NEW: Mapping[str, object] = {"emulated": False, "snapshot_every": 1}
"""Fields that karez 0.1 did not know, with their defaults."""


def _text(fields: dict[str, object]) -> bytes:
    return json.dumps(fields, sort_keys=True, separators=(",", ":")).encode()


def fingerprint(public: bytes) -> str:
    """Short name of a public key: 16 hexadecimal digits of its SHA-256."""
    return hashlib.sha256(public).hexdigest()[:16]


def check(receipts: Sequence[Receipt], public: bytes) -> list[str]:
    """Verify a job's receipts, oldest first; return the problems, none if all are valid.

    Args:
        receipts: All of one job.
        public: The cloud's public key, 32 bytes.
    """
    problems: list[str] = []
    before = ""
    for receipt in receipts:
        if receipt.key != fingerprint(public):
            problems.append(f"{receipt.id}: signed by another key, {receipt.key or 'none'}")
        if not _is_signed(receipt.message, receipt.signature, public):
            problems.append(f"{receipt.id}: the signature does not fit what it says")
        if receipt.before != before:
            problems.append(f"{receipt.id}: the receipt before it is missing or altered")
        before = receipt.digest
    return problems


def check_head(head: ReceiptsHead, receipts: Sequence[Receipt], public: bytes) -> list[str]:
    """Verify that a job's receipts are all that it has; return the problems, as `check`."""
    problems = [f"{one.id}: it is of another job" for one in receipts if one.job != head.job]
    if not _is_signed(head.message, head.signature, public):
        problems.append(f"{head.job}: the signature of the head does not fit what it says")
    last = receipts[-1].digest if receipts else ""
    if (head.count, head.last) != (len(receipts), last):
        problems.append(f"{head.job}: {head.count} receipts were written, {len(receipts)} are here")
    return problems


def _is_signed(message: bytes, signature: str, public: bytes) -> bool:
    from cryptography.exceptions import InvalidSignature  # noqa: PLC0415 - 20 ms, rarely needed
    from cryptography.hazmat.primitives.asymmetric.ed25519 import (  # noqa: PLC0415 - 20 ms, rarely needed
        Ed25519PublicKey,
    )

    try:
        key = Ed25519PublicKey.from_public_bytes(public)
        key.verify(base64.b64decode(signature), message)
    except (InvalidSignature, ValueError):
        return False
    return True


def chained(receipt: Receipt, before: Receipt | None) -> Receipt:
    """Return a copy of a receipt that refers to the previous one."""
    return replace(receipt, before=before.digest if before else "")
