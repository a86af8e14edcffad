"""Checkpoint files of a rank: those that its node fetched to restore from, and those it writes.

A file is named `step-STEP-RANK.kz`, or `step-STEP-whole.kz` where all ranks can use it.
"""

from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path

from karez.core.messages.reports import CheckpointReport
from karez.runtime.agent_client import AgentClient
from karez.runtime.training_state import is_whole, split

WHOLE = "whole"


@dataclass(frozen=True, slots=True, kw_only=True)
class FoundState:
    """A state to restore: the per-rank part, and the shared part, empty where it is missing."""

    per_rank: bytes
    shared: bytes
    is_own: bool
    """Whether the per-rank part is this rank's, and not another's."""


@dataclass(frozen=True, slots=True, kw_only=True)
class SnapshotTag:
    """The generation that a snapshot belongs to, and the place of its rank in that group."""

    generation: int
    rank: int
    world: int


@dataclass(frozen=True, slots=True, kw_only=True)
class CheckpointFiles:
    """The checkpoint files in a rank's restore folder."""

    folder: Path
    rank: int

    def steps(self) -> Iterable[int]:
        """Return the steps that this rank can restore from files, whole or from shards."""
        whole = [
            step
            for step, paths in self._own_files().items()
            if any(is_whole(path.read_bytes()) for path in paths)
        ]
        return (*whole, *self._foreign_shards())

    def shard_ranks(self, step: int) -> tuple[int, ...]:
        """Return the ranks that stored shards of a step; none if only this rank did."""
        foreign = self._foreign_shards().get(step, {})
        if not foreign:
            return ()
        own = [self.rank] if self._path(step, self.rank).is_file() else []
        return tuple(sorted({*foreign, *own}))

    def shard(self, step: int, index: int) -> tuple[bytes, bytes]:
        """Read a rank's shard of a step: the per-rank and the shared part."""
        return split(self._path(step, index).read_bytes())

    def find(self, step: int) -> FoundState | None:
        """Read the state of a step: the own one, or else another rank's per-rank part."""
        own = self._read(self._own_files().get(step, []))
        if own is not None:
            return own
        foreign = self._foreign_shards().get(step)
        if not foreign:
            return None
        per_rank, _ = split(next(iter(foreign.values())).read_bytes())
        return FoundState(per_rank=per_rank, shared=b"", is_own=False)

    def _path(self, step: int, index: int) -> Path:
        return self.folder / f"step-{step}-{index}.kz"

    def _own_files(self) -> dict[int, list[Path]]:
        """Files of each step: this rank's own first, then the one that all ranks can use."""
        files: dict[int, list[Path]] = {}
        for step, owner, path in self._files():
            if owner in (WHOLE, str(self.rank)):
                files.setdefault(step, []).append(path)
                files[step].sort(key=_is_for_all)
        return files

    def _foreign_shards(self) -> dict[int, dict[int, Path]]:
        """Files of other ranks' shards, by step and rank."""
        shards: dict[int, dict[int, Path]] = {}
        for step, owner, path in self._files():
            if owner not in (WHOLE, str(self.rank)):
                shards.setdefault(step, {})[int(owner)] = path
        return shards

    def _files(self) -> list[tuple[int, str, Path]]:
        """(step, owner, path) of all files."""
        named = [(path.stem.split("-"), path) for path in self.folder.glob("step-*")]
        return sorted((int(name[1]), name[2], path) for name, path in named)

    def _read(self, paths: list[Path]) -> FoundState | None:
        state: FoundState | None = None
        for path in paths:
            per_rank, shared = split(path.read_bytes())
            if state is None:
                state = FoundState(per_rank=per_rank, shared=shared, is_own=not _is_for_all(path))
            elif not state.shared:
                state = FoundState(per_rank=state.per_rank, shared=shared, is_own=state.is_own)
        return state


@dataclass(frozen=True, slots=True, kw_only=True)
class Checkpoint:
    """A checkpoint to write."""

    step: int
    rank: int
    world: int
    """Ranks whose shards make up the step; 0: it is not part of a set of shards."""
    body: bytes
    """Joined parts of the state."""
    whole: bool
    """Whether all ranks can use it."""


def write_checkpoint(
    folder: Path, checkpoint: Checkpoint, agent: AgentClient, held_s: float
) -> None:
    """Write a checkpoint file and report it; the job controller then has the node store it.

    Args:
        folder: Where to; created if it does not exist.
        checkpoint: What to write.
        agent: Takes the report.
        held_s: Seconds for which the training was held up.
    """
    folder.mkdir(exist_ok=True)
    path = folder / f"step-{checkpoint.step}-{checkpoint.rank}.kz"
    path.write_bytes(checkpoint.body)
    report = CheckpointReport(
        step=checkpoint.step,
        path=str(path),
        world=checkpoint.world,
        whole=checkpoint.whole,
        held_s=held_s,
    )
    agent.send(report)


def _is_for_all(path: Path) -> bool:
    return path.stem.endswith(f"-{WHOLE}")
