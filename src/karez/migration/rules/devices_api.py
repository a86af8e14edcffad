"""Rules for names of torch.cuda that choose and initialise devices."""

import ast
from dataclasses import replace

from typing_extensions import override

from karez.migration.findings import Finding, Kind
from karez.migration.rules.api_rule import Api
from karez.migration.rules.kernel_guards import kernel_question
from karez.migration.rules.rule import AnyRule
from karez.migration.rules.site import Site


class SinceTorch26(Api):
    """Base of rules for what torch.accelerator has, which came with torch 2.6."""

    @override
    def find(self, node: ast.AST, site: Site) -> Finding | None:
        found = super().find(node, site)
        if found is None or not found.edits or not site.facts.is_old_torch:
            return found
        return replace(found, needs=site.needs(self.agnostic.rpartition(".")[2]))

    @override
    def new_name(self, site: Site) -> str:
        if site.is_npu or not site.facts.is_old_torch:
            return super().new_name(site)
        return f"{site.shim}.{self.agnostic.rpartition('.')[2]}"


class CudaIsAvailable(SinceTorch26):
    """Checks whether a CUDA device is available."""

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


class CudaDeviceCount(SinceTorch26):
    """Counts devices. Both names return 0 on a machine without a device."""

    names = ("torch.cuda.device_count",)
    agnostic = "torch.accelerator.device_count"
    npu = "torch.npu.device_count"


class CudaCurrentDevice(Api):
    """Returns the index of the current device."""

    names = ("torch.cuda.current_device",)
    agnostic = "current_device"
    npu = "torch.npu.current_device"


class CudaSetDevice(Api):
    """Selects a device; on a machine without a device, torch.accelerator raises."""

    names = ("torch.cuda.set_device",)
    agnostic = "set_device"
    npu = "torch.npu.set_device"


class CudaDeviceContext(Api):
    """Selects a device for a block of code; None and negative indices change nothing."""

    names = (
        "torch.cuda.device",
        "torch.cuda.device_of",
    )
    agnostic = "device_context"
    npu = "torch.npu.device"


class CudaSynchronize(Api):
    """Waits for the device, which timings depend on. On a CPU torch.accelerator raises."""

    names = ("torch.cuda.synchronize",)
    agnostic = "synchronize"
    npu = "torch.npu.synchronize"


class CudaIsInitialized(Api):
    """Checks whether the device is initialized."""

    names = ("torch.cuda.is_initialized",)
    agnostic = "is_initialized"
    npu = "torch.npu.is_initialized"


class CudaInit(Api):
    """Initializes the device before its first use."""

    names = ("torch.cuda.init",)
    agnostic = "init"
    npu = "torch.npu.init"


class CudaLazy(Api):
    """Uses a private part of torch.cuda."""

    names = (
        "torch.cuda._lazy_init",
        "torch.cuda._lazy_call",
        "torch.cuda._is_in_bad_fork",
        "torch.cuda._device_t",
    )
    kind = Kind.ASSISTED
    hours = 0.5
    question = "Which public function does the same?"


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
