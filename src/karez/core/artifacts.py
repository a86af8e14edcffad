"""Artifacts: datasets, models, code, checkpoints and reports, content-addressed, with lineage."""

import hashlib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from enum import StrEnum
from pathlib import PurePosixPath
from typing import Any, ClassVar, NewType

from karez.core.validation import FORBID

ArtifactId = NewType("ArtifactId", str)
"""`art-` and the first 20 hex digits of the manifest's SHA-256."""
ID_PREFIX = "art-"


KEPT_UNTIL = "kept_until"
"""Fact of an artifact that is removed by itself: when, in UTC epoch seconds."""


class ArtifactKind(StrEnum):
    """Kind of content of an artifact."""

    DATASET = "dataset"
    MODEL = "model"
    CODE = "code"
    CHECKPOINT = "checkpoint"
    REPORT = "report"
    ENVIRONMENT = "environment"
    """Python packages that a job brings."""


class FileMode(StrEnum):
    """What an entry of an artifact is, as in Git's trees."""

    FILE = "file"
    EXECUTABLE = "executable"
    LINK = "link"
    """A symbolic link; its bytes are the path of its target."""
    FOLDER = "folder"
    """An empty folder; it has no bytes."""


@dataclass(frozen=True, slots=True, kw_only=True)
class FileEntry:
    """One file of an artifact."""

    __pydantic_config__: ClassVar[Any] = FORBID

    path: str
    sha256: str
    size_bytes: int
    mode: FileMode = FileMode.FILE

    def __post_init__(self) -> None:
        parts = PurePosixPath(self.path).parts
        if not parts or self.path.startswith("/") or ".." in parts or "\\" in self.path:
            raise ValueError(f"invalid path {self.path!r}: it must stay inside the artifact")
        if len(self.sha256) != 64 or not set(self.sha256) <= set("0123456789abcdef"):
            raise ValueError(f"invalid SHA-256 {self.sha256!r}: write 64 lower-case hex digits")


@dataclass(frozen=True, slots=True, kw_only=True)
class Lineage:
    """Origin of an artifact: its job, inputs, receipts, source and licence."""

    __pydantic_config__: ClassVar[Any] = FORBID

    job: str = ""
    inputs: Mapping[str, str] = field(default_factory=dict)
    """Role (base, data, code, ...) -> artifact id."""
    receipts: tuple[str, ...] = ()
    source: str = ""
    licence: str = ""
    declared: bool = False
    """Whether whoever uploaded it says so, and this cloud has not seen it: the facts too."""


@dataclass(frozen=True, slots=True, kw_only=True)
class ArtifactSpec:
    """An artifact to be registered; its files are in the blob store already."""

    __pydantic_config__: ClassVar[Any] = FORBID

    name: str
    kind: ArtifactKind
    files: tuple[FileEntry, ...]
    project: str = "default"
    format: str = ""
    lineage: Lineage = Lineage()
    facts: Mapping[str, str | int | float | bool | None] = field(default_factory=dict)
    """Small facts worth showing: parameters, rows, accuracy."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Artifact:
    """A registered artifact."""

    id: ArtifactId
    spec: ArtifactSpec
    owner: str = ""
    created_at: float = 0.0

    @property
    def size_bytes(self) -> int:
        """Sum of the sizes of all files."""
        return sum(file.size_bytes for file in self.spec.files)


def problem_with_paths(files: Sequence[FileEntry]) -> str:
    """Why files cannot be laid out together; empty if they can."""
    paths = {file.path for file in files}
    if len(paths) != len(files):
        return "a path is there twice"
    for path in paths:
        above = next((str(p) for p in PurePosixPath(path).parents if str(p) in paths), "")
        if above:  # writing below a link would leave the artifact
            return f"{path!r} lies below {above!r}, which is no folder with files"
    return ""


def is_inside(path: str, target: str) -> bool:
    """Whether a link at `path` of an artifact stays in the artifact with this target."""
    depth = len(PurePosixPath(path).parts) - 1
    for part in PurePosixPath(target).parts:
        depth += -1 if part == ".." else 1
        if depth < 0 or part == "/":
            return False
    return True


def artifact_id(spec: ArtifactSpec) -> ArtifactId:
    """Derive the id from project, kind and content, so that the same files are registered once."""
    manifest = "\n".join(
        f"{file.sha256} {file.size_bytes} {file.path}"
        + (f" {file.mode}" if file.mode != FileMode.FILE else "")
        for file in sorted(spec.files, key=lambda file: file.path)
    )
    seed = f"{spec.project}\n{spec.kind}\n{spec.name}\n{manifest}"
    return ArtifactId(ID_PREFIX + hashlib.sha256(seed.encode()).hexdigest()[:20])
