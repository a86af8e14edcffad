"""Replicas of a job's snapshots at its replica servers, as one rank finds them."""

import threading
from collections.abc import Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass

from karez.runtime.rank_environment import RankEnvironment
from karez.runtime.replica_client import drop_replicas, fetch_replica, replicas_at_peers
from karez.runtime.training_state import split


@dataclass(frozen=True, slots=True, kw_only=True)
class PeerReplicas:
    """Finds, fetches and drops replicas of any rank of the own job."""

    environment: RankEnvironment

    def whole_replicas(
        self, indices: Sequence[int], replica_servers: Sequence[str]
    ) -> dict[int, Mapping[int, int]]:
        """Find whole replicas of these ranks: the generation of each, by rank and step."""
        generations: dict[int, Mapping[int, int]] = {}
        for index in indices:
            replicas = replicas_at_peers(
                self.environment, index=index, replica_servers=replica_servers
            )
            generations[index] = {n: info.generation for n, info in replicas.items() if info.whole}
        return generations

    def shard(
        self, step: int, index: int, replica_servers: Sequence[str], since_generation: int
    ) -> tuple[bytes, bytes]:
        """Fetch a rank's shard of a step, written in that generation or later.

        Returns:
            The per-rank and the shared part.

        Raises:
            RuntimeError: No replica server has it, or the one that has it does not answer.
        """
        replica = replicas_at_peers(
            self.environment, index=index, replica_servers=replica_servers
        ).get(step)
        body = None
        if replica is not None and replica.generation >= since_generation:
            with suppress(OSError, EOFError):
                body = fetch_replica(self.environment, replica.address, step, index=index)
        if not body:
            raise RuntimeError(f"no replica server has rank {index}'s shard of step {step}")
        return split(body)

    def drop(self, indices: Sequence[int], replica_servers: Sequence[str]) -> None:
        """Have all replica servers delete the snapshots of these ranks, on another thread."""
        threading.Thread(
            target=drop_replicas, args=(self.environment, indices, replica_servers), daemon=True
        ).start()
