"""Settings of modules and optimizers, which decide what is computed where tensors do not show it.

A LayerNorm with another eps gives results that agree within rounding on most data.
"""

import re
from collections.abc import Mapping
from typing import Any

Settings = Mapping[str, Mapping[str, Any]]
_PLAIN = (bool, int, float, str)
_DEVICE = re.compile(r"(cuda|npu|cpu|mps|xpu|gpu|hpu|nccl|hccl|gloo)(:\d+)?", re.IGNORECASE)
_OWN = frozenset(("training", "call_super_init", "dump_patches"))
_NOT_SET = "not set"
_SPEED_ONLY = frozenset(("foreach", "fused", "capturable", "differentiable"))
"""Options of optimizers that choose how, not what, is computed."""


def of_module(module: Any) -> dict[str, Any]:
    """The plain values that a module holds, by name; names of devices are left out."""
    found = {name: _plain(value) for name, value in vars(module).items() if name[:1] != "_"}
    return {name: v for name, v in found.items() if v is not None and not _is_own(name)}


def of_optimizer(optimizer: Any) -> dict[str, Any]:
    """The options of an optimizer's groups of parameters, by group and name."""
    return {
        f"group {number} {name}": plain
        for number, group in enumerate(optimizer.param_groups)
        for name, value in group.items()
        if name not in _SPEED_ONLY and (plain := _plain(value)) is not None
    }


def differences(reference: Settings, other: Settings) -> list[str]:
    """A line for each setting of a module that both have and that differs."""
    return [
        f"{owner}: {name} is {there.get(name, _NOT_SET)} instead of {here.get(name, _NOT_SET)}"
        for owner, here in reference.items()
        if (there := other.get(owner)) is not None
        for name in {**here, **there}
        if here.get(name, _NOT_SET) != there.get(name, _NOT_SET)
    ]


def _is_own(name: str) -> bool:
    """Whether a name says where a module computes, and not what."""
    return name in _OWN or "device" in name


def _plain(value: object) -> Any:
    if isinstance(value, (tuple, list)):
        items = [_plain(item) for item in value]
        return None if None in items else items
    if type(value).__module__ == "torch" and type(value).__name__ in ("dtype", "memory_format"):
        return str(value)
    is_device = isinstance(value, str) and _DEVICE.fullmatch(value)
    return value if isinstance(value, _PLAIN) and not is_device else None
