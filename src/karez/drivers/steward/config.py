"""Configuration of a node agent."""

import hashlib
from collections.abc import Mapping
from dataclasses import dataclass, field

from karez.core import environment
from karez.core.settings import FIRST_USER, LOG_BYTES, MOST_PROCESSES
from karez.drivers.probes import interface_of
from karez.drivers.steward.staging import BlobSource


@dataclass(frozen=True, slots=True, kw_only=True)
class StewardConfig:
    """Configuration with which a steward starts."""

    node: str
    address: str
    home: str
    token: str
    blobs: BlobSource
    preload: str = ""
    cpus: int = 0
    npus: int = 0
    """Number of NPUs that the node emulates."""
    fence_s: float = 600.0
    log_bytes: int = LOG_BYTES
    """Output of a process that is kept."""
    shared_user: bool = False
    """Whether jobs run as the user of the node agent."""
    most_processes: int = MOST_PROCESSES
    """Processes and threads that a project may have here."""
    bind_paths: str = ""
    """Folders that jobs see besides; see the setting."""
    first_user: int = FIRST_USER
    """Number of the first of the users that projects get."""
    labels: Mapping[str, str] = field(default_factory=dict)

    @property
    def tag(self) -> str:
        """A short name for this node of this cloud, among those on the same host."""
        return hashlib.sha256(f"{self.home}|{self.node}".encode()).hexdigest()[:12]

    def environment(self) -> dict[str, str]:
        """Environment variables of every process of the node."""
        return {
            environment.NODE: self.node,
            environment.ADDRESS: self.address,
            environment.CACHE: f"{self.home}/cache",
            "GLOO_SOCKET_IFNAME": interface_of(self.address),
        }
