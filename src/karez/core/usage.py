"""Usage records: gateway calls, device time, audit log, metrics."""

from dataclasses import dataclass
from typing import Any, ClassVar

from karez.core.validation import FORBID


@dataclass(frozen=True, slots=True, kw_only=True)
class Call:
    """One request through the gateway. A call with the same id is recorded once."""

    __pydantic_config__: ClassVar[Any] = FORBID

    id: str
    at: float
    project: str
    key_id: str
    service: str
    prompt_tokens: int
    completion_tokens: int
    status: int
    duration_s: float
    cached_tokens: int = 0
    """Tokens of the prompt that the engine had computed before."""


@dataclass(frozen=True, slots=True, kw_only=True)
class UsageRow:
    """Usage of one project and service or job, summed."""

    project: str
    what: str
    kind: str
    requests: int = 0
    prompt_tokens: int = 0
    completion_tokens: int = 0
    cached_tokens: int = 0
    cost_nano: int = 0
    """What its calls cost, and its device time that is in the ledger, in billionths."""
    device_seconds: float = 0.0
    device_kind: str = ""


@dataclass(frozen=True, slots=True, kw_only=True)
class MinuteUsage:
    """Usage of one project, key and service within a minute."""

    minute: int
    """When it began, in UTC epoch seconds."""
    project: str
    key_id: str
    service: str
    requests: int
    prompt_tokens: int
    cached_tokens: int
    completion_tokens: int
    cost_nano: int


@dataclass(frozen=True, slots=True, kw_only=True)
class AuditRow:
    """One change in the audit log: actor, action, subject and outcome."""

    id: int
    at: float
    actor: str
    action: str
    subject: str
    outcome: str
    detail: str = ""


@dataclass(frozen=True, slots=True, kw_only=True)
class MetricRow:
    """One step of one rank; the record of the newest generation counts."""

    step: int
    rank: int
    loss: float
    at: float
    generation: int = 1
