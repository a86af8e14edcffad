"""Rules for names of torch.cuda that report properties and load of a device."""

from karez.migration.findings import Kind
from karez.migration.rules.api_rule import Api
from karez.migration.rules.rule import AnyRule


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
