"""The environment variables that the node agent (the steward) sets for a rank."""

import json
from collections.abc import Mapping
from dataclasses import dataclass, field

from karez.core import environment
from karez.runtime.process_environment import read


@dataclass(frozen=True, slots=True, kw_only=True)
class RankEnvironment:
    """The environment of a rank, as its node agent has set it."""

    key: str
    """Key of this process at the node agent."""
    job: str
    rank: int
    world: int
    steward: str
    """Path of the node agent's socket; empty outside a cloud."""
    replica_server: str
    """host:port of this node's replica server."""
    replica_token: str
    process_token: str
    """What this process shows the node agent."""
    replica_servers: tuple[str, ...]
    """Replica servers of the job's other nodes."""
    snapshot_file: str
    """Path of this rank's snapshot file."""
    inputs: str
    out: str
    restore: str
    """Folder of the checkpoint files that the node agent fetched."""
    address: str
    """Address of this node."""
    epoch: int = 0
    memory: Mapping[str, int] = field(default_factory=dict)
    """Bytes that this job holds at each replica server."""


def rank_environment() -> RankEnvironment:
    """Read the environment; outside a cloud all fields are empty and the world is one rank."""
    return RankEnvironment(
        key=read(environment.KEY_NAME, ""),
        job=read(environment.JOB, ""),
        rank=int(read("RANK", "0")),
        world=int(read("WORLD_SIZE", "1")),
        steward=read(environment.STEWARD, ""),
        replica_server=read(environment.REPLICA_SERVER, ""),
        replica_token=read(environment.REPLICA_TOKEN, ""),
        process_token=read(environment.PROCESS_TOKEN, ""),
        replica_servers=tuple(filter(None, read(environment.REPLICA_SERVERS, "").split(","))),
        snapshot_file=read(environment.SNAPSHOT_FILE, ""),
        inputs=read(environment.INPUTS, "inputs"),
        out=read(environment.OUT, "out"),
        restore=read(environment.RESTORE, ""),
        address=read(environment.ADDRESS, "127.0.0.1"),
        epoch=int(read(environment.EPOCH, "0")),
        memory={
            m["keeper"]: int(m["bytes"]) for m in json.loads(read(environment.POOLED_MEMORY, "[]"))
        },
    )
