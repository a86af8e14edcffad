"""Answers of the API that are not nouns of `core` themselves."""

from collections.abc import Mapping
from dataclasses import dataclass

from karez.core.call_limits import NO_CALL_LIMITS, CallLimits
from karez.core.identity import Role
from karez.core.messages.wire import PROTOCOL


@dataclass(frozen=True, slots=True, kw_only=True)
class Summary:
    """Summary of the cloud: nodes, devices, jobs, services, addresses."""

    version: str
    nodes: Mapping[str, int]
    devices: Mapping[str, int]
    held: Mapping[str, float]
    jobs: Mapping[str, int]
    services: Mapping[str, int]
    gateway_url: str
    home: str


@dataclass(frozen=True, slots=True, kw_only=True)
class LogPiece:
    """A piece of one log file."""

    name: str
    text: str
    next: int
    """Offset of the next piece."""
    size: int


@dataclass(frozen=True, slots=True, kw_only=True)
class KeyView:
    """A key without its secret and digest."""

    id: str
    name: str
    project: str
    role: Role
    created_at: float
    revoked_at: float | None = None
    expires_at: float | None = None
    calls: CallLimits = NO_CALL_LIMITS


@dataclass(frozen=True, slots=True, kw_only=True)
class NewKey:
    """A new key. `key` is shown only this once."""

    id: str
    key: str
    name: str
    project: str
    role: Role


@dataclass(frozen=True, slots=True, kw_only=True)
class ReceiptView:
    """A receipt with `steps_lost` and `recovery_s` computed."""

    id: str
    job: str
    generation: int
    cause: str
    ranks: tuple[int, ...]
    rung: str
    source: str
    detected_at: float
    decided_at: float
    restored_at: float
    resumed_at: float
    step_before: int
    step_restored: int
    epoch: int = 0
    code: str = "exit"
    confirmed_at: float = 0.0
    nodes: tuple[str, ...] = ()
    skipped: tuple[int, ...] = ()
    snapshot_every: int = 1
    emulated: bool = False
    before: str = ""
    key: str = ""
    signature: str = ""
    steps_lost: int = 0
    recovery_s: float = 0.0


@dataclass(frozen=True, slots=True, kw_only=True)
class PublicKey:
    """Public key that receipts are verified with."""

    public: str
    """Ed25519, 32 bytes in hexadecimal digits."""
    fingerprint: str


@dataclass(frozen=True, slots=True, kw_only=True)
class JoinConfig:
    """Configuration that a host needs to join the cloud."""

    ray_address: str
    ray_token: str
    node_key: str = ""
    """Key of this host, in exchange for a token to join."""
    protocol: int = PROTOCOL
