"""Stores what a job's program writes into KAREZ_CHECKPOINT_DIR, at intervals and at the end."""

import threading
from collections.abc import Mapping
from concurrent.futures import Future
from contextlib import suppress
from dataclasses import dataclass, field

from karez.core.artifacts import ArtifactId
from karez.core.checkpoint_folder import FolderListing, merge_listings
from karez.core.errors import KarezError
from karez.core.nodes import NodeId
from karez.core.ports import NodeLost
from karez.training.controller.checkpoint_artifact import register_checkpoints, stored_checkpoints
from karez.training.controller.gang_executor import GangExecutor

EVERY_S = 60.0
"""Seconds between two looks at the folder where the cloud sets no `checkpoint_s`."""
COST = 10
"""A look is at least so many times as far from the next one as it took."""
QUIET_S = 1.0
"""Seconds without a write after which a checkpoint is taken to be complete."""
OVERDUE_S = 60.0
"""Seconds after which a folder that is written all the time is stored as it is."""


@dataclass(slots=True, kw_only=True)
class OwnCheckpoints:
    """Stores one job's own checkpoints, beside its control while the job runs."""

    executor: GangExecutor
    stopped: threading.Event
    """Set: another controller stores them now."""
    problem: str = ""
    """Why the last attempt to store them failed; empty: it did not."""
    _is_written: bool = False
    """Whether a node's folder was being written at the last look."""
    _due_at: float = 0.0
    _look_underway: Future[None] | None = None
    _lock: threading.Lock = field(default_factory=threading.Lock)

    def check(self, now: float) -> None:
        """Begin to store what is new, if a look is due; `now` in seconds."""
        settings = self.executor.deps.settings
        every_s = settings.checkpoint_s or EVERY_S
        if not self._due_at:
            self._due_at = now + every_s
        is_busy = self._look_underway is not None and not self._look_underway.done()
        if is_busy or now < self._due_at:
            return
        quiet_s = QUIET_S if now < self._due_at + OVERDUE_S else 0.0
        self._look_underway = self.executor.deps.transfers.submit(self._look, every_s, quiet_s)

    def store(self) -> ArtifactId | None:
        """Store what the nodes have, now that no process writes; returns the artifact's id."""
        return self._store(quiet_s=0.0)

    def _look(self, every_s: float, quiet_s: float) -> None:
        clock = self.executor.deps.clock
        began_at = clock.now()
        self._store(quiet_s)
        if not self._is_written:  # else the next tick looks again
            now = clock.now()
            self._due_at = now + max(every_s, COST * (now - began_at))

    def _store(self, quiet_s: float) -> ArtifactId | None:
        with self._lock:
            listings = self._listings(quiet_s)
            found = [listing for listing in listings.values() if listing is not None]
            self._is_written = not all(listing.is_settled for listing in found)
            if self._is_written or self.stopped.is_set():  # another controller may have begun
                return None
            job, deps = self.executor.job, self.executor.deps
            files = merge_listings(
                stored_checkpoints(job, deps), found, is_complete=len(found) == len(listings)
            )
            return register_checkpoints(job, files, deps)

    def _listings(self, quiet_s: float) -> Mapping[NodeId, FolderListing | None]:
        """What each node has, in the order of ranks; None of a node that does not tell.

        Nodes that the gang has left come last.
        """
        executor, allocation = self.executor, self.executor.allocation
        ranked = [grant.node for _, grant in sorted(allocation.workers.items())]
        others = (*sorted(allocation.nodes), *sorted(allocation.former_nodes))
        listings: dict[NodeId, FolderListing | None] = {}
        self.problem = ""
        for node in dict.fromkeys((*ranked, *others)):
            listings[node] = None
            with suppress(NodeLost):
                try:
                    listings[node] = executor.deps.fabric.store_checkpoints(
                        node, executor.job.id, executor.context.start_id, quiet_s
                    )
                except (KarezError, OSError) as error:
                    self.problem = f"its own checkpoints on {node} were not stored: {error}"
        return listings
