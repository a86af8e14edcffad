"""Refuses tensors of a training that are on the host: outputs of modules, parameters, gradients."""

from collections.abc import Iterator
from typing import Any

import torch
from torch.nn.modules import module as modules
from torch.optim.optimizer import register_optimizer_step_pre_hook

SEEN: dict[str, int] = {"activation": 0, "parameter": 0, "gradient": 0}
"""How many tensors of each sort were looked at."""


def refuse_host_tensors(kind: str) -> None:
    """From now on, a module or an optimizer with a tensor on another device raises an error."""

    def on_forward(module: torch.nn.Module, _given: Any, made: Any) -> None:
        for tensor in _tensors(made):
            _check(f"output of {type(module).__name__}", "activation", tensor, kind)
        for parameter in module.parameters(recurse=False):
            _check(f"parameter of {type(module).__name__}", "parameter", parameter, kind)

    def on_step(optimizer: torch.optim.Optimizer, _args: Any, _kwargs: Any) -> None:
        for group in optimizer.param_groups:
            for parameter in group["params"]:
                _check("parameter", "parameter", parameter, kind)
                if parameter.grad is not None:
                    _check("gradient", "gradient", parameter.grad, kind)

    modules.register_module_forward_hook(on_forward)
    register_optimizer_step_pre_hook(on_step)


def _tensors(value: Any) -> Iterator[torch.Tensor]:
    if isinstance(value, torch.Tensor):
        yield value
    elif isinstance(value, dict):
        for item in value.values():
            yield from _tensors(item)
    elif isinstance(value, (list, tuple)):
        for item in value:
            yield from _tensors(item)


def _check(what: str, sort: str, tensor: torch.Tensor, kind: str) -> None:
    SEEN[sort] += 1
    if tensor.device.type != kind:
        raise AssertionError(f"a {what} is on {tensor.device}, not on {kind}")
