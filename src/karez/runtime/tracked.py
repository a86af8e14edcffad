"""The training objects whose state a session keeps: model, optimizer, and anything stateful."""

from collections import deque
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Protocol

import torch
from typing_extensions import override

from karez.runtime.sharded_tensors import is_sharded_tensor
from karez.runtime.shards import ShardedOptimizer


class Stateful(Protocol):
    """Anything with a state_dict: optimizers, schedulers, loaders."""

    def state_dict(self) -> Mapping[str, Any]:
        """Return the state."""
        ...

    def load_state_dict(self, state: Any, /) -> object:
        """Restore a state."""
        ...


@dataclass(slots=True, kw_only=True)
class Tracked:
    """The objects that a session tracks for its user."""

    model: torch.nn.Module
    optimizer: torch.optim.Optimizer
    others: dict[str, Stateful]
    devices: tuple[torch.device, ...] = ()
    """The accelerators whose random generators the training draws from."""
    is_built: bool = False
    """Whether they were built within the group: then each rank may have parameters of its own, as
    the stages of a pipeline have."""

    @property
    def is_sharded(self) -> bool:
        """Whether each rank holds a shard of its own instead of a replica of the shared part."""
        return isinstance(self.optimizer, ShardedOptimizer) or not self.is_alike

    @property
    def is_alike(self) -> bool:
        """Whether all ranks have the same parameters after a step."""
        return not self.is_built and not any(map(is_sharded_tensor, self.model.parameters()))


class History(Stateful):
    """The newest 64 losses, kept with the state: a node may be lost before it has reported them.

    Beside them the step after which the training ends, where the program has said one.
    """

    def __init__(self) -> None:
        """Start without losses."""
        self.losses: deque[tuple[int, float]] = deque(maxlen=64)
        self.stops_after = 0
        """The last step that the ranks agreed on; 0: none."""

    def add(self, step: int, loss: float) -> None:
        """Add the loss of a completed step."""
        self.losses.append((step, loss))

    @override
    def state_dict(self) -> Mapping[str, Any]:
        steps, losses = zip(*self.losses, strict=True) if self.losses else ((), ())
        # two rows of numbers are packed much sooner
        return {"steps": steps, "losses": losses, "stops_after": self.stops_after}

    @override
    def load_state_dict(self, state: Any, /) -> object:
        self.stops_after = state.get("stops_after", 0)  # a checkpoint of karez 0.1 has none
        self.losses = deque(zip(state["steps"], state["losses"], strict=True), maxlen=64)
        return None
