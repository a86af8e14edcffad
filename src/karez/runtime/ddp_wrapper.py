"""Models that their owner has put into DistributedDataParallel."""

import torch
from torch.nn.parallel import DistributedDataParallel


def without_ddp(model: torch.nn.Module) -> torch.nn.Module:
    """Return the model inside a wrapper, which runs no collectives from here on.

    Other models are returned as they are. Nothing in the API ends the wrapper's own averaging; with
    these two attributes off, its hooks and its forward leave gradients and buffers alone (torch
    2.13, `_pre_forward` and `Reducer::autograd_hook`).
    """
    if not isinstance(model, DistributedDataParallel):
        return model
    model.require_backward_grad_sync = False
    model.require_forward_param_sync = False
    inner: torch.nn.Module = model.module
    return inner
