"""Rules for names of torch.cuda that choose and initialise devices."""

import ast
from dataclasses import replace

from typing_extensions import override

from karez.migration.findings import Finding, Kind
from karez.migration.rules.api_rule import Api
from karez.migration.rules.kernel_guards import kernel_question
from karez.migration.rules.rule import AnyRule
from karez.migration.rules.site import Site


class CudaIsAvailable(Api):
    """Asks whether there is a device."""

    names = ("torch.cuda.is_available",)
    agnostic = "torch.accelerator.is_available"
    npu = "torch.npu.is_available"

    @override
    def find(self, node: ast.AST, site: Site) -> Finding | None:
        found = super().find(node, site)
        kind, question = kernel_question(node, site) if found is not None else (None, "")
        if found is None or kind is None:
            return found
        return replace(found, kind=kind, question=question)


class CudaDeviceCount(Api):
    """Counts devices; 0 without any, under both names."""

    names = ("torch.cuda.device_count",)
    agnostic = "torch.accelerator.device_count"
    npu = "torch.npu.device_count"


class CudaCurrentDevice(Api):
    """The index of the device in use."""

    names = ("torch.cuda.current_device",)
    agnostic = "current_device"
    npu = "torch.npu.current_device"


class CudaSetDevice(Api):
    """Chooses a device; torch.accelerator raises on a machine without one."""

    names = ("torch.cuda.set_device",)
    agnostic = "set_device"
    npu = "torch.npu.set_device"


class CudaDeviceContext(Api):
    """The device in use inside a block; nothing happens for None or a negative index."""

    names = (
        "torch.cuda.device",
        "torch.cuda.device_of",
    )
    agnostic = "device_context"
    npu = "torch.npu.device"


class CudaSynchronize(Api):
    """Waits for the device; timings depend on it, and torch.accelerator raises on a CPU."""

    names = ("torch.cuda.synchronize",)
    agnostic = "synchronize"
    npu = "torch.npu.synchronize"


class CudaIsInitialized(Api):
    """Whether the device was used already."""

    names = ("torch.cuda.is_initialized",)
    agnostic = "is_initialized"
    npu = "torch.npu.is_initialized"


class CudaInit(Api):
    """Readies the device before its first use."""

    names = ("torch.cuda.init",)
    agnostic = "init"
    npu = "torch.npu.init"


class CudaLazy(Api):
    """A private part of torch.cuda."""

    names = (
        "torch.cuda._lazy_init",
        "torch.cuda._lazy_call",
        "torch.cuda._is_in_bad_fork",
        "torch.cuda._device_t",
    )
    kind = Kind.ASSISTED
    hours = 0.5
    question = "Which public call does the same?"


RULES: tuple[AnyRule, ...] = (
    CudaIsAvailable,
    CudaDeviceCount,
    CudaCurrentDevice,
    CudaSetDevice,
    CudaDeviceContext,
    CudaSynchronize,
    CudaIsInitialized,
    CudaInit,
    CudaLazy,
)
