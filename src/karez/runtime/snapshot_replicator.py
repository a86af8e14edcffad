"""Replication of the newest snapshot to peers, off the training thread."""

import threading
from dataclasses import dataclass

from karez.core.messages.replicas import Done, ShipSnapshot
from karez.runtime.rank_environment import RankEnvironment
from karez.runtime.replica_client import ReplicaClient

RETRY_S = 0.05
"""Pause before a snapshot is sent again after a replica server did not take it."""


@dataclass(frozen=True, slots=True, kw_only=True)
class _Transfer:
    step: int
    peers: tuple[str, ...]
    only: int
    """Send only so many bytes from the beginning; 0: all of them."""


class SnapshotReplicator:
    """Has this node's replica server send the newest snapshot to the peers."""

    def __init__(self, environment: RankEnvironment) -> None:
        """Start the thread; the connection is made by the first transfer."""
        self.full_bytes = 0
        """Bytes that a snapshot needs at a peer where the job holds less memory; else 0."""
        self.epoch = environment.epoch
        """Epoch of the job: replica servers refuse one older than the newest that they know."""
        self._environment = environment
        self._changed = threading.Condition()
        self._wanted: _Transfer | None = None
        self._client: ReplicaClient | None = None
        self._sending_to: tuple[str, ...] = ()
        """The peers that a request under way waits for."""
        threading.Thread(target=self._work, daemon=True).start()

    def replicate(self, step: int, peers: tuple[str, ...], only: int) -> None:
        """Request that a snapshot, or only its first bytes, be sent; returns at once.

        When the peers have changed, a request that waits for the previous ones is interrupted: a
        peer behind a broken network would be waited for until the connection times out.
        """
        with self._changed:
            self._wanted = _Transfer(step=step, peers=peers, only=only)
            if self._client is not None and self._sending_to not in ((), peers):
                self._client.interrupt()
            self._changed.notify()

    def _work(self) -> None:
        while True:
            with self._changed:
                self._changed.wait_for(lambda: self._wanted is not None)
                assert self._wanted is not None
                transfer = self._wanted
            self._finish(transfer, is_sent=self._send(transfer))

    def _finish(self, transfer: _Transfer, *, is_sent: bool) -> None:
        with self._changed:
            if is_sent and self._wanted is transfer:  # another may be of the same step
                self._wanted = None
            elif not is_sent:  # until the replica server is restarted, or other peers are named
                self._changed.wait_for(lambda: self._wanted is not transfer, timeout=RETRY_S)

    def _send(self, transfer: _Transfer) -> bool:
        environment = self._environment
        try:
            client = self._client or ReplicaClient(environment.replica_server, environment)
            with self._changed:
                self._client, self._sending_to = client, transfer.peers
            answer, _ = client.request(self._request(transfer))
        except (OSError, EOFError):
            with self._changed:
                self._client, self._sending_to = None, ()
            return False
        with self._changed:
            self._sending_to = ()
        if not isinstance(answer, Done):
            return False
        self.full_bytes = answer.full_bytes
        return answer.ok or bool(self.full_bytes)

    def _request(self, transfer: _Transfer) -> ShipSnapshot:
        environment = self._environment
        return ShipSnapshot(
            job=environment.job,
            rank=environment.rank,
            step=transfer.step,
            epoch=self.epoch,
            to=transfer.peers,
            limits_bytes=tuple(environment.memory.get(peer, 0) for peer in transfer.peers),
            only_bytes=transfer.only,
        )
