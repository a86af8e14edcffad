"""Records behind recoveries: checkpoint parts, transitions of the protocol, fault reports."""

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
    """Number of ranks that were to store this step; 0: the others had nothing left to store."""
    whole: bool = False
    """Whether the part holds everything the ranks have in common, so that any rank can load it."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Transition:
    """A change of a gang's phase, stored before it is carried out."""

    at: float
    generation: int
    phase: str
    body: str = ""
    """State for the next job controller, as JSON."""


class Severity(StrEnum):
    """Severity of a reported fault."""

    MINOR = "minor"
    """Recorded; enough minor faults in a short time count as a major one."""
    MAJOR = "major"
    """Counts against the node like a lost process."""
    FATAL = "fatal"
    """The node is unusable: jobs leave it, and nothing new is placed on it."""


class FaultPhase(StrEnum):
    """Phase of a reported fault: begun, over, or momentary."""

    OCCUR = "occur"
    RECOVER = "recover"
    ONCE = "once"


@dataclass(frozen=True, slots=True, kw_only=True)
class FaultReport:
    """A report by monitoring about a node or one of its devices.

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
    """Index of the device on the node; None: the node itself."""
    detail: str = ""
    at: float = 0.0
    """Time of the fault, UTC epoch seconds; 0: now."""

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
