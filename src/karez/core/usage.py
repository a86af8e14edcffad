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


@dataclass(frozen=True, slots=True, kw_only=True)
class UsageRow:
    """Usage of one project and service or job, summed."""

    project: str
    what: str
    kind: str
    requests: int = 0
    prompt_tokens: int = 0
    completion_tokens: int = 0
    device_seconds: float = 0.0
    device_kind: str = ""


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
