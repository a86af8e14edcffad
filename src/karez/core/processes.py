"""Processes on nodes: how they are started, and what nodes report of them."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from enum import IntEnum
from typing import Any, TypeVar

from karez.core.artifacts import FileEntry
from karez.core.grants import Grant
from karez.core.identity import DEFAULT_PROJECT
from karez.core.messages.reports import REPORTS, Report
from karez.core.messages.wire import Malformed, Message, decode
from karez.core.python_environments import PythonEnvironment
from karez.core.workloads import WorkloadId

M = TypeVar("M", bound=Message)


@dataclass(frozen=True, slots=True, kw_only=True)
class Staged:
    """An artifact that a process finds in a folder."""

    artifact: str
    folder: str
    """Name below the process's `inputs/`."""
    files: tuple[FileEntry, ...]


@dataclass(frozen=True, slots=True, kw_only=True)
class ProcessSpec:
    """A process to start on a node. `key` names it; starting the same key twice is harmless."""

    key: str
    workload: WorkloadId
    rank: int
    epoch: int
    command: tuple[str, ...]
    """`("module:function",)` runs in a warm fork; anything else is executed."""
    project: str = DEFAULT_PROJECT
    """The project whose user it runs as."""
    warm: bool = False
    grant: Grant | None = None
    env: Mapping[str, str] = field(default_factory=dict)
    inputs: tuple[Staged, ...] = ()
    code: tuple[FileEntry, ...] = ()
    restore: Mapping[str, str] = field(default_factory=dict)
    """File name -> blob digest, put into the folder named by KAREZ_RESTORE."""
    checkpoints: tuple[FileEntry, ...] = ()
    """Files of KAREZ_CHECKPOINT_DIR, which all of a workload's processes on a node share."""
    image: str = ""
    """Container image that it runs in; empty: none."""
    environment: PythonEnvironment | None = None
    """Its Python packages; None: those of the node."""
    start_id: str = ""
    """Id of this start of the workload, in each of which that folder is filled once; empty: it is
    not filled for this process."""


@dataclass(frozen=True, slots=True, kw_only=True)
class ProcessInfo:
    """A process as its node reports it."""

    key: str
    workload: WorkloadId
    rank: int
    epoch: int
    pid: int
    alive: bool
    exit_code: int | None = None
    """Exit code; negative: ended by that signal."""
    error: str = ""
    grant: Grant | None = None
    """Grant that the process was started with."""
    last_messages: Mapping[str, Mapping[str, Any]] = field(default_factory=dict)
    """Message type -> the fields of the newest message of that type from the process."""

    def last(self, kind: type[M]) -> M | None:
        """The newest report of a kind; None: there is none, or it cannot be read."""
        name = kind.TYPE
        if name not in self.last_messages:
            return None
        report = decode({name: kind}, {"type": name, **self.last_messages[name]})
        return report if isinstance(report, kind) else None


@dataclass(frozen=True, slots=True, kw_only=True)
class Event:
    """An event of a process on a node."""

    seq: int
    at: float
    workload: WorkloadId
    key: str
    type: str
    """Type of the report, one of those in core.messages.reports."""
    data: Mapping[str, Any] = field(default_factory=dict)
    """The fields of the report, not checked."""

    def report(self) -> Report | Malformed:
        """The report; Malformed if it cannot be read."""
        return decode(REPORTS, {"type": self.type, **self.data})


Cursors = Mapping[WorkloadId, int]
"""Workload -> number of its last event that is known; 0: none."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Poll:
    """Answer to a poll of a node's events."""

    cursors: Cursors
    """What was asked: the events are all that came after these."""
    events: tuple[Event, ...]
    """In order of their numbers."""
    boot_ids: Mapping[WorkloadId, str]
    """Workload that was asked for -> id of the node agent's start: it changes when the agent was
    started again, without state."""


@dataclass(frozen=True, slots=True, kw_only=True)
class LogChunk:
    """Bytes of a process's output."""

    start: int
    """Offset of the first byte; behind the one that was asked for where older output is gone."""
    data: bytes


class Activity(IntEnum):
    """The current activity of a rank."""

    QUIESCED = 0
    """The rank has no group and waits for the job controller."""
    LOADING = 1
    """The rank waits for its batch."""
    COMPUTING = 2
    """The rank runs the user's code."""
    COLLECTIVE = 3
    """The rank is in a collective, or waits for its peers."""

    @property
    def word(self) -> str:
        """Its name in samples."""
        return self.name.lower()


@dataclass(frozen=True, slots=True, kw_only=True)
class ProcessSample:
    """State of one process, sampled from outside: the process need not answer."""

    key: str
    state: str
    """State by the kernel: `running`, `sleeping`, `stopped`, `disk-sleep`, ..."""
    cpu_s: float
    """Processor time that the process has used."""
    activity: str = ""
    """The word of the Activity in the process's rank status; empty if it has no rank status."""
    step: int = 0
    generation: int = 0
    activity_s: float = 0.0
    """Seconds since that activity began."""
