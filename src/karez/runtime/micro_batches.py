"""Steps of several batches each, of which every rank takes its rows."""

from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Any

import torch
from typing_extensions import override

from karez.core.errors import BadRequest
from karez.runtime.loader import StepLoader
from karez.runtime.replay_loader import Replay
from karez.runtime.snapshot_cadence import MOST_STEPS
from karez.runtime.tracked import Stateful

Split = Callable[[Any, int, int], Any]
"""(batch, rank, world) -> the rank's rows of it."""
FARTHEST = 2 * MOST_STEPS
"""Steps that training may go back, since two snapshots are kept."""


class MicroBatches(StepLoader, Stateful):
    """Reads all batches on every rank and keeps its rows: the same for any number of ranks."""

    def __init__(
        self,
        source: Iterable[Any],
        batches_of: Callable[[int], Sequence[int]],
        *,
        most: int,
        split: Split | None = None,
    ) -> None:
        """Read nothing yet.

        Args:
            source: A loader of whole batches.
            batches_of: Step -> numbers of its batches, counted over all epochs.
            most: The most batches that a step has.
            split: What gives a rank its rows; `rows_of` if None.
        """
        self._all = Replay(source)
        self._all.at_hand, self._all.window = 2 * most, FARTHEST * most
        self._batches_of, self._split = batches_of, split or rows_of

    @override
    def at(self, step: int, rank: int, world: int) -> Any:
        """Return this rank's rows of each batch of a step."""
        return [
            self._split(self._all.at(number, rank, world), rank, world)
            for number in self._batches_of(step)
        ]

    @override
    def state_dict(self) -> Mapping[str, Any]:
        """Return the position in the loader."""
        return self._all.state_dict()

    @override
    def load_state_dict(self, state: Any, /) -> object:
        """Restore a position: a new process need not read what came before it."""
        return self._all.load_state_dict(state)


def micro_batches(loader: Iterable[Any], count: int, *, split: Split | None = None) -> MicroBatches:
    """Return a loader for `run.steps` that gives a list of `count` batches for each step.

    Of each batch a rank gets its rows, by `rows_of` or by a `split` of your own. The loader is to
    yield whole batches, the same on every rank.
    """
    return MicroBatches(
        loader, lambda step: range(step * count, (step + 1) * count), most=count, split=split
    )


def rows_of(batch: Any, rank: int, world: int) -> Any:
    """Return each `world`-th row from `rank` on of all tensors in a batch, and of lists of values.

    Raises:
        BadRequest: The batch has fewer rows than there are ranks.
    """
    if isinstance(batch, Mapping):
        return {name: rows_of(value, rank, world) for name, value in batch.items()}
    if isinstance(batch, torch.Tensor) and batch.ndim:
        return _checked(batch[rank::world])
    if isinstance(batch, (list, tuple)):
        if any(isinstance(part, (torch.Tensor, Mapping, list, tuple)) for part in batch):
            parts = [rows_of(part, rank, world) for part in batch]
            return type(batch)(*parts) if hasattr(batch, "_fields") else type(batch)(parts)
        return _checked(batch[rank::world])
    return batch


def _checked(rows: Any) -> Any:
    if not len(rows):
        raise BadRequest(
            problem="a batch has fewer rows than the job has ranks",
            fix="Use larger batches, or drop_last=True in the DataLoader.",
        )
    return rows
