"""The names of torch.cuda about devices and their generators, one class each."""

import ast
from dataclasses import replace

from typing_extensions import override

from karez.migration.findings import Finding, Kind
from karez.migration.rules.base import AnyRule, Api, Site
from karez.migration.rules.kernel_guards import asked


class CudaIsAvailable(Api):
    """Asks whether there is a device."""

    names = ("torch.cuda.is_available",)
    agnostic = "torch.accelerator.is_available"
    npu = "torch.npu.is_available"

    @override
    def find(self, node: ast.AST, site: Site) -> Finding | None:
        found = super().find(node, site)
        kind, question = asked(node, site) if found is not None else (None, "")
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


class CudaManualSeed(Api):
    """Seeds the device alone; torch.manual_seed would reseed the CPU too."""

    names = ("torch.cuda.manual_seed",)
    agnostic = "manual_seed"
    npu = "torch.npu.manual_seed"


class CudaManualSeedAll(Api):
    """Seeds all devices; nothing happens on a CPU, whose generator is left alone."""

    names = ("torch.cuda.manual_seed_all",)
    agnostic = "manual_seed_all"
    npu = "torch.npu.manual_seed_all"


class CudaSeed(Api):
    """Seeds the device from the clock."""

    names = (
        "torch.cuda.seed",
        "torch.cuda.seed_all",
    )
    agnostic = "seed"
    npu = "torch.npu.seed"


class CudaInitialSeed(Api):
    """The seed of the device's generator."""

    names = ("torch.cuda.initial_seed",)
    agnostic = "initial_seed"
    npu = "torch.npu.initial_seed"


class CudaGetRngState(Api):
    """The device's generator state, which no other vendor's device can take."""

    names = ("torch.cuda.get_rng_state",)
    agnostic = "get_rng_state"
    npu = "torch.npu.get_rng_state"


class CudaSetRngState(Api):
    """Puts a generator state back, of the same vendor's device."""

    names = ("torch.cuda.set_rng_state",)
    agnostic = "set_rng_state"
    npu = "torch.npu.set_rng_state"


class CudaGetRngStateAll(Api):
    """The states of all generators; empty on a CPU."""

    names = ("torch.cuda.get_rng_state_all",)
    agnostic = "get_rng_state_all"
    npu = "torch.npu.get_rng_state_all"


class CudaSetRngStateAll(Api):
    """Puts all generator states back; nothing happens for an empty list."""

    names = ("torch.cuda.set_rng_state_all",)
    agnostic = "set_rng_state_all"
    npu = "torch.npu.set_rng_state_all"


class CudaDefaultGenerators(Api):
    """The generators of all devices by index."""

    names = ("torch.cuda.default_generators",)
    npu = "torch.npu.default_generators"
    kind = Kind.ASSISTED
    hours = 0.5
    question = (
        "Which generator is wanted? torch.get_device_module().default_generators is the "
        "portable name."
    )


class CudaGetDeviceName(Api):
    """The product's name, for people."""

    names = ("torch.cuda.get_device_name",)
    agnostic = "get_device_name"
    npu = "torch.npu.get_device_name"


class CudaGetDeviceProperties(Api):
    """Properties of the device; an NPU fills five of them (name, total_memory and three more)."""

    names = ("torch.cuda.get_device_properties",)
    agnostic = "get_device_properties"
    npu = "torch.npu.get_device_properties"
    kind = Kind.ASSISTED
    hours = 0.5
    question = (
        "Which properties are read, and does anything depend on a field that an NPU leaves "
        "out, such as multi_processor_count or major?"
    )


class CudaGetDeviceCapability(Api):
    """The compute capability decides on code for NVIDIA's generations; torch_npu returns None."""

    names = ("torch.cuda.get_device_capability",)
    kind = Kind.ASSISTED
    hours = 0.5
    question = (
        "What does the version decide? Ask for the ability itself (bfloat16, fused attention)"
        " instead of the generation."
    )


class CudaIsBf16Supported(Api):
    """Whether bfloat16 computes; false on a CPU under the old name."""

    names = ("torch.cuda.is_bf16_supported",)
    agnostic = "is_bf16_supported"
    npu = "torch.npu.is_bf16_supported"


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


class CudaArchList(Api):
    """The NVIDIA generations that torch was built for."""

    names = (
        "torch.cuda.get_arch_list",
        "torch.cuda.get_gencode_flags",
    )
    kind = Kind.ASSISTED
    hours = 0.5
    question = "What is built or chosen by it?"


class CudaPeerAccess(Api):
    """Whether one device reads another's memory directly."""

    names = ("torch.cuda.can_device_access_peer",)
    kind = Kind.ASSISTED
    hours = 0.5
    question = "What does the answer decide? HCCL chooses its own paths."


class CudaUtilization(Api):
    """Load in percent, from the driver's library."""

    names = (
        "torch.cuda.utilization",
        "torch.cuda.memory_usage",
    )
    agnostic = "utilization"
    npu = "torch.npu.utilization"
    kind = Kind.ASSISTED
    hours = 0.5
    question = "Is the load needed? On an NPU it comes from npu-smi."


class CudaTelemetry(Api):
    """Readings of NVIDIA's management library."""

    names = (
        "torch.cuda.temperature",
        "torch.cuda.power_draw",
        "torch.cuda.clock_rate",
    )
    kind = Kind.MANUAL
    hours = 4.0
    question = "Read them from the node's monitoring (npu-smi, DCMI)."


class CudaProcesses(Api):
    """Lists processes on the device, from NVIDIA's management library."""

    names = ("torch.cuda.list_gpu_processes",)
    kind = Kind.ASSISTED
    hours = 0.5
    question = "Use npu-smi, or the pool's own view."


RULES: tuple[AnyRule, ...] = (
    CudaIsAvailable,
    CudaDeviceCount,
    CudaCurrentDevice,
    CudaSetDevice,
    CudaDeviceContext,
    CudaSynchronize,
    CudaManualSeed,
    CudaManualSeedAll,
    CudaSeed,
    CudaInitialSeed,
    CudaGetRngState,
    CudaSetRngState,
    CudaGetRngStateAll,
    CudaSetRngStateAll,
    CudaDefaultGenerators,
    CudaGetDeviceName,
    CudaGetDeviceProperties,
    CudaGetDeviceCapability,
    CudaIsBf16Supported,
    CudaIsInitialized,
    CudaInit,
    CudaLazy,
    CudaArchList,
    CudaPeerAccess,
    CudaUtilization,
    CudaTelemetry,
    CudaProcesses,
)
