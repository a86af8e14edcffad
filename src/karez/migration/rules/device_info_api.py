"""Rules for names of torch.cuda that report properties and load of a device."""

from karez.migration.findings import Kind
from karez.migration.rules.api_rule import Api
from karez.migration.rules.rule import AnyRule


class CudaGetDeviceName(Api):
    """Returns the product name of the device."""

    names = ("torch.cuda.get_device_name",)
    agnostic = "get_device_name"
    npu = "torch.npu.get_device_name"


class CudaGetDeviceProperties(Api):
    """Returns properties of the device; NPUs fill five of them (name, total_memory, three more)."""

    names = ("torch.cuda.get_device_properties",)
    agnostic = "get_device_properties"
    npu = "torch.npu.get_device_properties"
    kind = Kind.ASSISTED
    hours = 0.5
    question = (
        "Which properties are read? Does anything depend on a field that NPUs do not have, "
        "such as multi_processor_count or major?"
    )


class CudaGetDeviceCapability(Api):
    """Returns the compute capability, a number of NVIDIA's generations; torch_npu returns None."""

    names = ("torch.cuda.get_device_capability",)
    kind = Kind.ASSISTED
    hours = 0.5
    question = (
        "What depends on the version? Check for the feature itself (bfloat16, fused attention)"
        " instead of the generation."
    )


class CudaIsBf16Supported(Api):
    """Checks for bfloat16 support; torch.cuda returns False on a CPU."""

    names = ("torch.cuda.is_bf16_supported",)
    agnostic = "is_bf16_supported"
    npu = "torch.npu.is_bf16_supported"


class CudaArchList(Api):
    """Lists the NVIDIA generations that torch was built for."""

    names = (
        "torch.cuda.get_arch_list",
        "torch.cuda.get_gencode_flags",
    )
    kind = Kind.ASSISTED
    hours = 0.5
    question = "What is compiled or selected from this list?"


class CudaPeerAccess(Api):
    """Checks whether one device can read another device's memory directly."""

    names = ("torch.cuda.can_device_access_peer",)
    kind = Kind.ASSISTED
    hours = 0.5
    question = "What depends on the answer? HCCL selects its own paths."


class CudaUtilization(Api):
    """Reads the load of the device in percent from NVIDIA's management library."""

    names = (
        "torch.cuda.utilization",
        "torch.cuda.memory_usage",
    )
    agnostic = "utilization"
    npu = "torch.npu.utilization"
    kind = Kind.ASSISTED
    hours = 0.5
    question = "Is the load needed? On an NPU, npu-smi reports the load."


class CudaTelemetry(Api):
    """Reads sensors of the device from NVIDIA's management library."""

    names = (
        "torch.cuda.temperature",
        "torch.cuda.power_draw",
        "torch.cuda.clock_rate",
    )
    kind = Kind.MANUAL
    hours = 4.0
    question = "Read the sensors from the node's monitoring (npu-smi, DCMI)."


class CudaProcesses(Api):
    """Lists the processes on the device from NVIDIA's management library."""

    names = ("torch.cuda.list_gpu_processes",)
    kind = Kind.ASSISTED
    hours = 0.5
    question = "Use npu-smi, or the list of workloads in the pool."


RULES: tuple[AnyRule, ...] = (
    CudaGetDeviceName,
    CudaGetDeviceProperties,
    CudaGetDeviceCapability,
    CudaIsBf16Supported,
    CudaArchList,
    CudaPeerAccess,
    CudaUtilization,
    CudaTelemetry,
    CudaProcesses,
)
