"""What recoveries are made from and decided by: stored parts, the protocol's log, incidents."""

from dataclasses import dataclass
from enum import StrEnum
from typing import Any, ClassVar

from karez.core.validation import FORBID


@dataclass(frozen=True, slots=True, kw_only=True)
class CheckpointPart:
    """One rank's part of a stored checkpoint."""

    step: int
    rank: int
    digest: str
    world: int
    """How many ranks were to store this step; 0: the others had nothing left to store."""
    whole: bool = False
    """Whether it holds all that the ranks have in common, so that any rank can start from it."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Transition:
    """A change of a gang's phase, written before it is acted on."""

    at: float
    generation: int
    phase: str
    body: str = ""
    """What the next foreman must know, as JSON."""


class Severity(StrEnum):
    """How bad a reported fault is."""

    MINOR = "minor"
    """Kept; enough of them in a short time count as one that is major."""
    MAJOR = "major"
    """It counts against its node like a lost process."""
    FATAL = "fatal"
    """Nothing goes on there: jobs leave, and nothing new is placed."""


class FaultPhase(StrEnum):
    """Whether a fault has begun, is over, or came and went."""

    OCCUR = "occur"
    RECOVER = "recover"
    ONCE = "once"


@dataclass(frozen=True, slots=True, kw_only=True)
class FaultReport:
    """What monitoring says of a node or of one of its devices.

    The fields follow what MindCluster's public fault interface asks of its senders: who, where,
    which code, how bad, and whether it has begun or is over.
    """

    __pydantic_config__: ClassVar[Any] = FORBID

    sender: str
    node: str
    code: str
    level: Severity = Severity.MAJOR
    occasion: FaultPhase = FaultPhase.ONCE
    device: int | None = None
    """Index on the node; none: the node itself."""
    detail: str = ""
    at: float = 0.0
    """When, UTC epoch seconds; 0: now."""

    def __post_init__(self) -> None:
        for name in ("sender", "node", "code"):
            text = getattr(self, name)
            if not text or len(text) > 120 or not text.isprintable():
                raise ValueError(f"a report's {name} is 1 to 120 printable characters")
        if len(self.detail) > 2000:
            raise ValueError("a report's detail is up to 2,000 characters")
        if self.device is not None and not 0 <= self.device < 4096:
            raise ValueError(f"invalid device index {self.device}: write 0 to 4095")
        if not 0.0 <= self.at < 1e11:
            raise ValueError("`at` is in UTC epoch seconds")
