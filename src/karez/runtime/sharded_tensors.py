"""Sharded tensors of FSDP2 (DTensor), recognized without importing DTensor."""

from typing import TYPE_CHECKING, Any, TypeGuard

import torch

if TYPE_CHECKING:
    from torch.distributed.tensor import DTensor


def is_sharded_tensor(tensor: torch.Tensor) -> "TypeGuard[DTensor]":
    """Whether a tensor is a DTensor, as those of FSDP2 are."""
    return hasattr(tensor, "_local_tensor")


def local_of(tensor: torch.Tensor) -> torch.Tensor:
    """Return this rank's shard of a DTensor, and any other tensor as it is."""
    return tensor._local_tensor if is_sharded_tensor(tensor) else tensor


def placed_like(state: Any, optimizer: torch.optim.Optimizer) -> Any:
    """Convert the shards in an optimizer's state to DTensors, placed as their parameters are."""
    parameters: list[torch.Tensor] = [p for g in optimizer.param_groups for p in g["params"]]
    if not any(is_sharded_tensor(p) for p in parameters):
        return state
    moments = {n: _placed(values, parameters[n]) for n, values in state["state"].items()}
    return {**state, "state": moments}


def _placed(moments: Any, like: torch.Tensor) -> Any:
    from torch.distributed.tensor import DTensor  # noqa: PLC0415 - 0.5 s, only where it is used

    if not is_sharded_tensor(like):
        return moments
    shape = like.to_local().shape
    return {
        name: DTensor.from_local(
            value,
            like.device_mesh,
            like.placements,
            run_check=False,
            shape=like.shape,
            stride=like.stride(),
        )
        if isinstance(value, torch.Tensor) and value.dim() and value.shape == shape
        else value
        for name, value in moments.items()
    }
