"""The environment variables that the node agent (the steward) sets for a rank."""

import json
import os
from collections.abc import Mapping
from dataclasses import dataclass, field

from karez.core import environment


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
    env = os.environ  # noqa: TID251 - the one place where a rank reads it
    return RankEnvironment(
        key=env.get(environment.KEY_NAME, ""),
        job=env.get(environment.JOB, ""),
        rank=int(env.get("RANK", "0")),
        world=int(env.get("WORLD_SIZE", "1")),
        steward=env.get(environment.STEWARD, ""),
        replica_server=env.get(environment.REPLICA_SERVER, ""),
        replica_token=env.get(environment.REPLICA_TOKEN, ""),
        replica_servers=tuple(filter(None, env.get(environment.REPLICA_SERVERS, "").split(","))),
        snapshot_file=env.get(environment.SNAPSHOT_FILE, ""),
        inputs=env.get(environment.INPUTS, "inputs"),
        out=env.get(environment.OUT, "out"),
        restore=env.get(environment.RESTORE, ""),
        address=env.get(environment.ADDRESS, "127.0.0.1"),
        epoch=int(env.get(environment.EPOCH, "0")),
        memory={
            m["keeper"]: int(m["bytes"])
            for m in json.loads(env.get(environment.POOLED_MEMORY, "[]"))
        },
    )
