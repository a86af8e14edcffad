"""Resharded state is bit for bit what a split of the whole state would give."""

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

import pytest
import torch
import torch.distributed as dist
from hypothesis import given
from hypothesis import strategies as st
from torch.distributed.device_mesh import init_device_mesh
from torch.distributed.fsdp import fully_shard
from torch.distributed.tensor import DTensor, Shard
from torch.testing._internal.distributed.fake_pg import FakeStore

from karez.core.errors import BadRequest
from karez.runtime.reshard import is_fixed_size, reshard, row_spans
from karez.runtime.sharded_tensors import is_sharded_tensor
from karez.runtime.shards import ShardedOptimizer
from karez.runtime.tracked import Tracked
from karez.runtime.training_state import pack, put_back, shared_tree, split


@given(st.integers(0, 60), st.integers(1, 9), st.integers(1, 9))
def test_row_spans_cover_each_row_once_and_point_to_its_previous_piece(
    length: int, before: int, world: int
) -> None:
    rows = torch.arange(length)
    size = -(-length // before)
    pieces = [rows[n * size : (n + 1) * size] for n in range(before)]
    own = -(-length // world)
    for rank in range(world):
        found = [
            pieces[n][first:end]
            for n, first, end in row_spans(length, before=before, rank=rank, world=world)
        ]
        assert torch.equal(torch.cat(found), rows[rank * own : (rank + 1) * own])


def _network() -> torch.nn.Sequential:
    torch.manual_seed(3)
    return torch.nn.Sequential(torch.nn.Linear(5, 3), torch.nn.Linear(3, 2))


def _trained(kind: Callable[..., torch.optim.Optimizer], rank: int, world: int) -> Tracked:
    """Three steps of one of `world` ranks, all of which see the same gradients."""
    model = _network()
    optimizer = ShardedOptimizer(model.parameters(), kind, lr=0.1)
    optimizer.spread(rank, world)
    optimizer.collect = lambda _: None  # each rank sees its own slice only
    for step in range(3):
        for n, parameter in enumerate(model.parameters()):
            parameter.grad = torch.full_like(parameter, 0.1 * (step + 1)) * (n + 1)
        optimizer.step()
    return Tracked(model=model, optimizer=optimizer, others={})


def _tree(tracked: Tracked) -> dict[str, Any]:
    return {"model": {}, "optimizer": tracked.optimizer.state_dict()}


@pytest.mark.parametrize("kind", [torch.optim.AdamW, torch.optim.SGD])
@pytest.mark.parametrize(("before", "world"), [(4, 3), (3, 4), (1, 2), (6, 1), (2, 30)])
def test_a_sharded_optimizer_is_resharded_for_another_number_of_ranks(
    kind: Callable[..., torch.optim.Optimizer], before: int, world: int
) -> None:
    pieces = [_tree(_trained(kind, rank, before)) for rank in range(before)]
    fetched: list[int] = []

    def piece(number: int) -> dict[str, Any]:
        fetched.append(number)
        return pieces[number]

    for rank in range(world):
        fetched.clear()
        fresh = Tracked(
            model=_network(),
            optimizer=ShardedOptimizer(_network().parameters(), kind, lr=0.1),
            others={},
        )
        put_back(reshard(fresh, piece, before=before, rank=rank, world=world), fresh)
        want = _trained(kind, rank, world).optimizer.state_dict()
        got = fresh.optimizer.state_dict()
        assert torch.equal(got["slice"], want["slice"])
        assert got["shape"] == (rank, world)
        assert got["groups"] == want["groups"]
        assert got["inner"]["state"].keys() == want["inner"]["state"].keys()
        for name, value in want["inner"]["state"].get(0, {}).items():
            other = got["inner"]["state"][0][name]
            assert torch.equal(other, value) if isinstance(value, torch.Tensor) else other == value
        assert len(fetched) <= before // world + 2


@contextmanager
def _one_of(rank: int, world: int) -> Iterator[None]:
    """A process group whose other members do not exist: splitting needs none of them."""
    dist.init_process_group("fake", rank=rank, world_size=world, store=FakeStore())
    try:
        yield
    finally:
        dist.destroy_process_group()


def _split(rank: int, world: int, *, dims: tuple[int, ...] = ()) -> Tracked:
    names = ("replicate", "shard")[-len(dims) or 1 :]
    mesh = init_device_mesh("cpu", dims or (world,), mesh_dim_names=names)
    model = _network()
    model[0].bias.requires_grad_(False)  # as with LoRA: not kept
    fully_shard(model, mesh=mesh)
    return Tracked(model=model, optimizer=torch.optim.AdamW(model.parameters(), lr=0.1), others={})


def _stepped(tracked: Tracked, rank: int, world: int) -> Tracked:
    """Three steps with gradients that follow from the row alone."""
    for step in range(3):
        for parameter in (p for p in tracked.model.parameters() if p.requires_grad):
            whole = torch.arange(float(parameter.numel())).reshape(parameter.shape) + step
            size = -(-len(whole) // world)
            assert is_sharded_tensor(parameter)
            parameter.grad = DTensor.from_local(
                whole[rank * size : (rank + 1) * size],
                parameter.device_mesh,
                [Shard(0)],
                run_check=False,
                shape=whole.shape,
                stride=whole.stride(),
            )
        tracked.optimizer.step()
    return tracked


def _packed(tracked: Tracked) -> dict[str, Any]:
    return shared_tree(split(b"".join(bytes(part) for part in pack(tracked).parts))[1])


@pytest.mark.parametrize(("before", "world"), [(4, 3), (3, 4), (1, 2), (5, 1), (2, 7)])
def test_fsdp2_tensors_are_resharded_for_another_number_of_ranks(before: int, world: int) -> None:
    pieces = []
    for rank in range(before):
        with _one_of(rank, before):
            pieces.append(_packed(_stepped(_split(rank, before), rank, before)))
    for rank in range(world):
        with _one_of(rank, world):
            want = _packed(_stepped(_split(rank, world), rank, world))
            fresh = _split(rank, world)
            tree = reshard(fresh, pieces.__getitem__, before=before, rank=rank, world=world)
            put_back(tree, fresh)
            assert not is_fixed_size(fresh, world)
            _same(_packed(fresh), want)


def _same(one: Any, other: Any) -> None:
    if isinstance(one, torch.Tensor):
        assert torch.equal(one, other)
    elif isinstance(one, dict):
        assert one.keys() == other.keys()
        for key, value in one.items():
            _same(value, other[key])
    else:
        assert one == other


def test_a_mesh_of_two_dimensions_is_not_resharded() -> None:
    with _one_of(0, 4):
        tracked = _split(0, 4, dims=(2, 2))
        assert is_fixed_size(tracked, 4)
        with pytest.raises(BadRequest, match="cannot be resharded"):
            reshard(tracked, lambda _: {}, before=4, rank=0, world=3)
