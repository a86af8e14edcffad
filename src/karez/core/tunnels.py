"""Tunnels: a way into a running job, for a shell, a port or files. Pure.

A tunnel is two streams of bytes whose ends count offsets, so that a request that was lost on its
way, or a control that restarts, costs no byte and doubles none.
"""

import json
from dataclasses import dataclass
from enum import StrEnum
from typing import Any, ClassVar, Protocol

from karez.core.nodes import NodeId
from karez.core.validation import FORBID
from karez.core.workloads import WorkloadId

MAX_TUNNELS = 16
"""Most tunnels that are open on one node."""
MAX_PIECE = 1 << 20
"""Most bytes in one request or answer."""
WAIT_S = 1.0
"""Longest time, in seconds, that an answer waits for output."""
IDLE_S = 60.0
"""Seconds after which a tunnel that nobody reads is closed."""


class TunnelKind(StrEnum):
    """What a tunnel leads to."""

    SHELL = "shell"
    """A command beside the job's process, with its environment, folder and cores."""
    PORT = "port"
    """A TCP port on which a process of the job listens."""
    COPY_OUT = "copy-out"
    """A file or folder of the job, as a tar archive."""
    COPY_IN = "copy-in"
    """A tar archive that is laid out in a folder of the job."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Terminal:
    """The terminal of whoever opens a shell."""

    __pydantic_config__: ClassVar[Any] = FORBID

    rows: int = 24
    columns: int = 80
    name: str = "xterm-256color"
    """What the program finds in TERM."""

    def __post_init__(self) -> None:
        if not (0 < self.rows < 1 << 16 and 0 < self.columns < 1 << 16):
            raise ValueError(f"a terminal of {self.rows} x {self.columns} is none")


@dataclass(frozen=True, slots=True, kw_only=True)
class TunnelSpec:
    """What is asked for."""

    __pydantic_config__: ClassVar[Any] = FORBID

    kind: TunnelKind
    rank: int = 0
    command: tuple[str, ...] = ()
    """Of a shell: the command; empty is an interactive shell."""
    terminal: Terminal | None = None
    """Of a shell; None: its streams are plain."""
    port: int = 0
    path: str = ""
    """Of copies: relative to the folder that the job runs in, or absolute."""

    def __post_init__(self) -> None:
        if self.kind == TunnelKind.PORT and not 0 < self.port < 1 << 16:
            raise ValueError(f"{self.port} is no port; name one from 1 to 65535")

    def show(self) -> str:
        """Describe the tunnel, for the audit log."""
        of = {
            TunnelKind.SHELL: " ".join(self.command) or "interactive",
            TunnelKind.PORT: str(self.port),
        }
        return f"{self.kind} of rank {self.rank}: {of.get(self.kind, self.path)}"


@dataclass(frozen=True, slots=True, kw_only=True)
class Tunnel:
    """A tunnel that was opened."""

    id: str
    job: WorkloadId
    rank: int
    node: NodeId


@dataclass(frozen=True, slots=True, kw_only=True)
class TunnelPiece:
    """A piece of a tunnel's output."""

    data: bytes = b""
    next: int = 0
    """Offset to ask for next; the bytes before it are then dropped."""
    has_ended: bool = False
    """Whether nothing comes any more."""
    exit_code: int | None = None
    """Of a shell that has ended."""
    problem: str = ""
    """Why a copy failed."""

    def pack(self) -> bytes:
        """The piece as bytes: a line of JSON, then the data."""
        head = {
            "next": self.next,
            "has_ended": self.has_ended,
            "exit_code": self.exit_code,
            "problem": self.problem,
        }
        return json.dumps(head).encode() + b"\n" + self.data


def unpack_piece(packed: bytes) -> TunnelPiece:
    """Read what `pack` has made. Raises ValueError."""
    head, _, data = packed.partition(b"\n")
    return TunnelPiece(data=data, **json.loads(head))


class Tunnels(Protocol):
    """Tunnels on nodes. Each call may raise NodeLost, and NotFound where the tunnel is closed."""

    def open_tunnel(self, node: NodeId, workload: WorkloadId, ident: str, spec: TunnelSpec) -> None:
        """Open a tunnel to a process of a workload, under an id. Repeatable.

        Raises:
            NotFound: No such process runs there.
            BadRequest: It has no such port or file, or too many tunnels are open.
        """
        ...

    def write_tunnel(
        self, node: NodeId, workload: WorkloadId, ident: str, offset: int, data: bytes, end: bool
    ) -> int:
        """Take input that begins at an offset; `end`: it is the last.

        Returns the offset of the first byte that was not taken, as the other end was slow.
        """
        ...

    def read_tunnel(
        self, node: NodeId, workload: WorkloadId, ident: str, offset: int
    ) -> TunnelPiece:
        """Return output from an offset on, waiting up to WAIT_S for some."""
        ...

    def resize_tunnel(
        self, node: NodeId, workload: WorkloadId, ident: str, terminal: Terminal
    ) -> None:
        """Tell a shell of another size of its terminal."""
        ...

    def close_tunnel(self, node: NodeId, workload: WorkloadId, ident: str) -> None:
        """Close a tunnel; a shell that still runs is ended. Repeatable."""
        ...
