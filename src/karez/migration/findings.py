"""What a scan says: a finding for each construct bound to CUDA, and the edits it asks for."""

from collections.abc import Sequence
from dataclasses import dataclass, field
from enum import StrEnum


class Kind(StrEnum):
    """Who does the work of a finding."""

    AUTOMATIC = "automatic"
    """Rewritten, with the same result on CUDA and on a CPU."""
    ASSISTED = "assisted"
    """Rewritten only when asked for, or not at all: a question has to be answered."""
    MANUAL = "manual"
    """A person has to replace it."""
    KEEP = "keep"
    """Works as it is, or was marked to be left alone; listed so that nothing is hidden."""


class Target(StrEnum):
    """What rewritten code speaks to."""

    AGNOSTIC = "agnostic"
    """torch.accelerator and a small generated module; no import of torch_npu."""
    NPU = "npu"
    """torch.npu."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Edit:
    """A replacement of the characters [start, end) of a file."""

    start: int
    end: int
    text: str


@dataclass(frozen=True, slots=True, kw_only=True)
class Finding:
    """One construct at one place."""

    rule: str
    kind: Kind
    path: str
    line: int
    column: int
    """Both counted from 1."""
    code: str
    """The construct as it stands there, shortened."""
    reason: str
    question: str = ""
    """What has to be answered, for ASSISTED and MANUAL."""
    forms: tuple[tuple[Target, str], ...] = ()
    """What it becomes."""
    hours: float = 0.0
    """Of a person's time; an estimate."""
    api: str = ""
    """The name that is looked up in the support tables."""
    edits: tuple[Edit, ...] = ()
    needs: frozenset[str] = frozenset()
    """Names of the generated module that the edits use; `torch_npu`: its import."""


@dataclass(slots=True, kw_only=True)
class FileReport:
    """What was found in one file."""

    path: str
    lines: int = 0
    findings: Sequence[Finding] = ()
    error: str = ""
    """Why it could not be read; then it is left alone."""
    is_portable: bool = False
    """It has branches for other accelerators already."""
    kernel_lines: int = 0
    """Lines of CUDA, Triton or C++ for a device."""
    shim: str = ""
    """What the generated module is called in it."""
    apis: frozenset[str] = field(default_factory=frozenset)
    """torch operators that it names, for the support tables."""
