"""Registers the emulated device with torch, and a torch_npu that libraries find."""

import importlib.machinery
import sys
import types
import warnings
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch
from torch.utils.backend_registration import _setup_privateuseone_for_python_backend

from karez.ascend.operator_support import documented
from karez.core import environment
from karez.emulated_npu import autocast, collectives, leaving, memory, operators, patches, surface
from karez.emulated_npu.random import DeviceRandom
from karez.runtime.process_environment import read

_KEPT: list[Any] = []
"""Libraries live as long as they are referred to."""
_aten: Any = torch.ops.aten
_C: Any = torch._C


def is_installed() -> bool:
    """Whether the device is installed in this process."""
    return bool(_KEPT)


def install() -> None:
    """Register the device, its operators and collectives, and torch_npu."""
    _read_device()
    module = surface.make_module()
    sys.modules["torch.npu"] = module
    _setup_privateuseone_for_python_backend(memory.NAME, backend_module=module)
    _register_operators()
    patches.patch(module)
    if torch.distributed.is_available():
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            collectives.register_collectives(_KEPT)
    _stand_in(module)
    _read_limits()
    leaving.settle_at_exit()


def _register_operators() -> None:
    fallback, device, gradients = (
        torch.library.Library("_", "IMPL"),
        torch.library.Library("aten", "IMPL"),
        torch.library.Library("aten", "IMPL"),
    )
    _KEPT.extend([fallback, device, gradients])
    fallback.fallback(operators.run, "PrivateUse1")
    for key in ("Conjugate", "Negative"):  # a copy reads these bits itself, as torch's own does
        device.impl("_copy_from", torch.library.fallthrough_kernel, key)
    fallback.fallback(torch.library.fallthrough_kernel, "AutocastPrivateUse1")
    kernels: dict[str, Callable[..., Any]] = {
        "_copy_from": operators.copy_from,
        "_copy_from_and_resize": lambda source, target: target.resize_(source.shape).copy_(source),
        "_local_scalar_dense": lambda t: _aten._local_scalar_dense.default(memory.unwrap(t)),
        "convolution_backward_overrideable": operators.convolution_backward,
        "convolution_overrideable": lambda *a: operators.run(_aten.convolution.default, *a),
        "set_.source_Storage_storage_offset": memory.set_storage,
        "set_.source_Storage": memory.set_storage,
        "set_.source_Tensor": lambda to, source: memory.set_storage(
            to, source.untyped_storage(), source.storage_offset(), source.shape, source.stride()
        ),
        **{
            name: operators.redispatched(name)
            for name in ("as_strided", "view", "_reshape_alias", "unfold")
        },
    }
    for name, kernel in kernels.items():
        device.impl(name, kernel, "PrivateUse1")
    with_gradients: dict[str, Callable[..., Any]] = {
        # as torch_npu has it: Module.to keeps its parameters
        "_has_compatible_shallow_copy_type": lambda _a, _b: True,
        "_thnn_fused_lstm_cell": operators.lstm_cell,
        "_thnn_fused_gru_cell": operators.gru_cell,
    }
    for name, kernel in with_gradients.items():
        gradients.impl(name, kernel, "AutogradPrivateUse1")
    autocast.register(gradients)


def _stand_in(module: Any) -> None:
    """A torch_npu that libraries find; its fused operators say that they are not emulated."""
    made: Any = types.ModuleType("torch_npu")

    def lacking(name: str) -> Any:
        if not name.startswith("npu_"):
            raise AttributeError(name)

        def call(*_args: Any, **_kwargs: Any) -> Any:
            raise NotImplementedError(f"torch_npu.{name} is not emulated")

        return call

    made.__getattr__, made.npu, made.__path__ = lacking, module, []
    made.__version__ = f"{torch.__version__.partition('+')[0]}+emulated"
    made.__spec__ = importlib.machinery.ModuleSpec("torch_npu", None)
    sys.modules["torch_npu"] = made


def _read_device() -> None:
    """From the environment: the capacity of the device, and whether it has its own generator."""
    if size := read(environment.EMUNPU_MEMORY):
        memory.Usage.resize(int(size))
    if read(environment.EMUNPU_RANDOM) == "own":
        DeviceRandom.use_own()


def _read_limits() -> None:
    """From the environment: a file of operators, names of types, and faults."""
    listed = read(environment.EMUNPU_OPS)
    if listed:
        operators.LIMITS.operators = frozenset(Path(listed).read_text().split())
    operators.LIMITS.chip = read(environment.EMUNPU_CHIP)
    if operators.LIMITS.chip:
        documented("add", operators.LIMITS.chip)  # an unknown chip raises at once
    operators.LIMITS.dtypes = frozenset(filter(None, read(environment.EMUNPU_NO_DTYPES).split(",")))
    faults = (item.rpartition(":") for item in read(environment.EMUNPU_FAULTS).split(",") if item)
    operators.LIMITS.faults = {name: float(by) for name, _, by in faults}
