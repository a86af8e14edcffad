"""Reshards state for another number of ranks: each takes its rows from the previous shards.

A dimension of `length` rows is split into even parts of ceil(length / parts) rows, the last ones
shorter or empty. So do `torch.chunk`, FSDP2 and the sharded optimizer.
"""

from collections.abc import Callable, Iterator, Mapping
from typing import Any

import torch

from karez.core.errors import BadRequest
from karez.runtime.sharded_tensors import is_sharded_tensor
from karez.runtime.shards import ShardedOptimizer
from karez.runtime.tracked import Tracked

Piece = Callable[[int], Mapping[str, Any]]
"""Returns the model's and the optimizer's state of the n-th previous rank."""
Span = tuple[int, int, int]
"""Number of a piece, its first row, and the one after its last (-1: it has no rows)."""


def row_spans(length: int, *, before: int, rank: int, world: int) -> list[Span]:
    """Return where the rows of one of `world` ranks were among `before` ranks, in order."""
    size, piece = -(-length // world), -(-length // before)
    at, end = min(rank * size, length), min((rank + 1) * size, length)
    spans: list[Span] = []
    while at < end:
        number = at // piece
        stop = min(end, (number + 1) * piece)
        spans.append((number, at - number * piece, stop - number * piece))
        at = stop
    return spans or [(0, 0, 0)]


def is_fixed_size(tracked: Tracked, world: int) -> bool:
    """Whether a model cannot be resharded.

    So it is if tensors are split over a mesh of several dimensions, or of fewer ranks, and if
    ranks have tensors of their own, as the stages of a pipeline do.
    """
    split = [p for p in tracked.model.parameters() if is_sharded_tensor(p)]
    if tracked.is_built and not split:
        return True
    return any(
        p.device_mesh.ndim != 1 or p.device_mesh.size() != world or p.placements[0].is_partial()
        for p in split
    )


def reshard(
    tracked: Tracked, piece: Piece, *, before: int, rank: int, world: int
) -> dict[str, Any]:
    """Return the model's and the optimizer's state for one of `world` ranks, from `before` ranks.

    No more than one piece is held at a time, and only pieces with rows of this rank are fetched.

    Raises:
        BadRequest: The model is split in a way that cannot be resharded.
    """
    if isinstance(tracked.optimizer, ShardedOptimizer):
        return _reshard_flat(tracked.optimizer, piece, before=before, rank=rank, world=world)
    if is_fixed_size(tracked, world):
        raise BadRequest(
            problem="this model is split over a mesh that cannot be resharded for another size",
            fix="Give the gang one size (--workers N), or split the model over all ranks alike.",
        )
    return _reshard_tensors(tracked, piece, before=before, rank=rank, world=world)


def _reshard_flat(
    optimizer: ShardedOptimizer, piece: Piece, *, before: int, rank: int, world: int
) -> dict[str, Any]:
    length = sum(parameter.numel() for parameter in optimizer.parameters)
    rows = _Rows()
    state: Mapping[str, Any] = {}
    for number, first, end in row_spans(length, before=before, rank=rank, world=world):
        state = piece(number)["optimizer"]
        rows.add("slice", state["slice"], first, end)
        for name, value in state["inner"]["state"].get(0, {}).items():
            rows.add(name, value, first, end, like=state["slice"])
    moments = rows.joined(0, pad_to=-(-length // world))
    own = moments.pop("slice")
    inner = {**state["inner"], "state": {0: moments} if moments else {}}
    return {
        "model": {},
        "optimizer": {**state, "slice": own, "inner": inner, "shape": (rank, world)},
    }


def _reshard_tensors(
    tracked: Tracked, piece: Piece, *, before: int, rank: int, world: int
) -> dict[str, Any]:
    wanted = {
        name: (_dim_of(p), _spans_of(p, before=before, rank=rank, world=world))
        for name, p in tracked.model.named_parameters()
        if p.requires_grad
    }
    numbers = {id(p): n for n, p in enumerate(_parameters(tracked.optimizer))}
    number_of = {
        name: numbers[id(p)] for name, p in tracked.model.named_parameters() if id(p) in numbers
    }
    model = {name: _Rows() for name in wanted}
    moments = {name: _Rows() for name in wanted if name in number_of}
    optimizer: Mapping[str, Any] = {}
    for at in sorted({number for _, spans in wanted.values() for number, _, _ in spans}):
        state = piece(at)
        optimizer = state["optimizer"]
        for name, (dim, first, end) in _of_piece(wanted, at):
            like = state["model"][name]
            model[name].add("", like, first, end, dim=dim)
            own = optimizer["state"].get(number_of.get(name, -1), {})
            for key, value in own.items():
                moments[name].add(key, value, first, end, dim=dim, like=like)
    joined = {number_of[name]: rows.joined(wanted[name][0]) for name, rows in moments.items()}
    return {
        "model": {name: rows.joined(wanted[name][0])[""] for name, rows in model.items()},
        "optimizer": {**optimizer, "state": {n: state for n, state in joined.items() if state}},
    }


class _Rows:
    """Rows of tensors by name, in the order in which they are added; of other values the last."""

    def __init__(self) -> None:
        self._parts: dict[str, list[torch.Tensor]] = {}
        self._others: dict[str, Any] = {}

    def add(
        self,
        name: str,
        value: Any,
        first: int,
        end: int,
        *,
        dim: int = 0,
        like: torch.Tensor | None = None,
    ) -> None:
        """Add rows of a tensor; with `like`, only if the tensor is split as `like` is."""
        is_split = isinstance(value, torch.Tensor) and (
            like is None or (value.dim() > 0 and value.shape == like.shape)
        )
        if is_split and end >= 0:
            self._parts.setdefault(name, []).append(value.narrow(dim, first, end - first).clone())
        else:
            self._others[name] = value

    def joined(self, dim: int, *, pad_to: int = 0) -> dict[str, Any]:
        """Join the rows of each name; pad them with zeros to `pad_to` rows."""
        tensors = {name: torch.cat(parts, dim) for name, parts in self._parts.items()}
        for name, value in tensors.items():
            if len(value) < pad_to:
                tensors[name] = torch.nn.functional.pad(value, (0, pad_to - len(value)))
        return {**self._others, **tensors}


def _parameters(optimizer: torch.optim.Optimizer) -> list[torch.nn.Parameter]:
    return [p for group in optimizer.param_groups for p in group["params"]]


def _dim_of(parameter: torch.Tensor) -> int:
    if not is_sharded_tensor(parameter):
        return 0
    placement: Any = parameter.placements[0]  # torch's types lack the `dim` of a shard
    return int(placement.dim) if placement.is_shard() else 0


def _spans_of(parameter: torch.Tensor, *, before: int, rank: int, world: int) -> list[Span]:
    if is_sharded_tensor(parameter) and parameter.placements[0].is_shard():
        length = parameter.shape[_dim_of(parameter)]
        return row_spans(length, before=before, rank=rank, world=world)
    return [(0, 0, len(parameter))] if parameter.dim() else [(0, 0, -1)]


def _of_piece(
    wanted: Mapping[str, tuple[int, list[Span]]], number: int
) -> Iterator[tuple[str, tuple[int, int, int]]]:
    for name, (dim, spans) in wanted.items():
        for at, first, end in spans:
            if at == number:
                yield name, (dim, first, end)
