"""Findings of a scan, one for each construct bound to CUDA, with the edits that replace it."""

from collections.abc import Sequence
from dataclasses import dataclass, field
from enum import StrEnum


class Kind(StrEnum):
    """How much of the work for a finding is automatic."""

    AUTOMATIC = "automatic"
    """Rewritten, with the same result on CUDA and on a CPU."""
    ASSISTED = "assisted"
    """A question must be answered first; rewritten only on request, or not at all."""
    MANUAL = "manual"
    """A person has to replace it."""
    KEEP = "keep"
    """Works unchanged, or marked to be kept; listed so that reports are complete."""


class Target(StrEnum):
    """Interface that rewritten code uses."""

    AGNOSTIC = "agnostic"
    """torch.accelerator and a small generated module, without torch_npu."""
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
    """One construct at one place in a file."""

    rule: str
    kind: Kind
    path: str
    line: int
    """Counted from 1."""
    column: int
    """Counted from 1."""
    code: str
    """Source text of the construct, shortened."""
    reason: str
    question: str = ""
    """Question that a person must answer, for ASSISTED and MANUAL."""
    forms: tuple[tuple[Target, str], ...] = ()
    """Replacement for each target, for reports."""
    hours: float = 0.0
    """Estimated working hours of a person."""
    api: str = ""
    """Name to look up in the support tables."""
    edits: tuple[Edit, ...] = ()
    needs: frozenset[str] = frozenset()
    """Names of the generated module that the edits use, or `torch_npu` for its import."""


@dataclass(slots=True, kw_only=True)
class FileReport:
    """Findings and figures of one file."""

    path: str
    lines: int = 0
    findings: Sequence[Finding] = ()
    error: str = ""
    """Why the file cannot be read; such a file is not changed."""
    is_portable: bool = False
    """The file has branches for other accelerators already."""
    kernel_lines: int = 0
    """Lines of CUDA, Triton or C++ for a device."""
    shim: str = ""
    """Name of the generated module in the file."""
    apis: frozenset[str] = field(default_factory=frozenset)
    """Functions of torch in the file, for the support tables."""
