"""Copies checkpoint files from nodes into the blob store."""

import hashlib
from collections.abc import Callable
from concurrent.futures import Future, wait
from contextlib import suppress
from dataclasses import dataclass, field, replace

from karez.core.errors import KarezError
from karez.core.messages.reports import CheckpointReport
from karez.core.nodes import NodeId
from karez.core.ports import NodeLost
from karez.core.recovery import CheckpointPart
from karez.core.workloads import WorkloadId
from karez.training.controller.controller_deps import ControllerDeps


@dataclass(slots=True, kw_only=True)
class CheckpointSaver:
    """Saves one job's checkpoint parts, beside its control."""

    job: WorkloadId
    deps: ControllerDeps
    on_saved: Callable[[], None]
    """Called, on another thread, when a part counts."""
    _saves: list[Future[None]] = field(default_factory=list)

    def save(self, index: int, node: NodeId, report: CheckpointReport) -> None:
        """Save the part that a rank has stored on its node; it counts once it is read back."""
        part = CheckpointPart(
            step=report.step,
            rank=index,
            digest="",
            world=report.world,
            whole=report.whole,
        )
        save = self.deps.transfers.submit(self._save, node, report.path, part)
        self._saves = [*(old for old in self._saves if not old.done()), save]

    def wait(self, *, within_s: float) -> None:
        """Wait for parts that are being saved, at most this long."""
        wait(self._saves, timeout=within_s)

    def _save(self, node: NodeId, path: str, part: CheckpointPart) -> None:
        with suppress(NodeLost, KarezError, OSError):  # the next checkpoint may succeed
            entry = self.deps.fabric.save(node, self.job, path)
            with self.deps.blobs.open(entry.sha256) as file:
                digest = hashlib.file_digest(file, "sha256").hexdigest()  # type: ignore[arg-type]  # a BinaryIO
            if digest == entry.sha256:
                self.deps.store.history.add_checkpoint(self.job, replace(part, digest=digest))
                self.on_saved()
