"""Rules for names of torch.cuda about memory."""

from karez.migration.findings import Kind
from karez.migration.rules.api_rule import Api
from karez.migration.rules.rule import AnyRule


class CudaEmptyCache(Api):
    """Releases cached memory; does nothing on a machine without a device."""

    names = ("torch.cuda.empty_cache",)
    agnostic = "empty_cache"
    npu = "torch.npu.empty_cache"


class CudaMemoryAllocated(Api):
    """Returns the allocated bytes: 0 on a CPU, where torch.accelerator raises."""

    names = ("torch.cuda.memory_allocated",)
    agnostic = "memory_allocated"
    npu = "torch.npu.memory_allocated"


class CudaMaxMemoryAllocated(Api):
    """Returns the peak of allocated bytes: 0 on a CPU, where torch.accelerator raises."""

    names = ("torch.cuda.max_memory_allocated",)
    agnostic = "max_memory_allocated"
    npu = "torch.npu.max_memory_allocated"


class CudaMemoryReserved(Api):
    """Returns the bytes reserved by the allocator: 0 on a CPU, where torch.accelerator raises."""

    names = (
        "torch.cuda.memory_reserved",
        "torch.cuda.memory_cached",
    )
    agnostic = "memory_reserved"
    npu = "torch.npu.memory_reserved"


class CudaMaxMemoryReserved(Api):
    """Returns the peak of reserved bytes: 0 on a CPU, where torch.accelerator raises."""

    names = (
        "torch.cuda.max_memory_reserved",
        "torch.cuda.max_memory_cached",
    )
    agnostic = "max_memory_reserved"
    npu = "torch.npu.max_memory_reserved"


class CudaResetPeak(Api):
    """Resets the peaks of memory use; does nothing on a machine without a device."""

    names = (
        "torch.cuda.reset_peak_memory_stats",
        "torch.cuda.reset_max_memory_allocated",
        "torch.cuda.reset_max_memory_cached",
    )
    agnostic = "reset_peak_memory_stats"
    npu = "torch.npu.reset_peak_memory_stats"


class CudaResetAccumulated(Api):
    """Resets the allocator's totals; does nothing on a machine without a device."""

    names = ("torch.cuda.reset_accumulated_memory_stats",)
    agnostic = "reset_accumulated_memory_stats"
    npu = "torch.npu.reset_accumulated_memory_stats"


class CudaMemoryStats(Api):
    """Returns the allocator's statistics; empty on a CPU."""

    names = ("torch.cuda.memory_stats",)
    agnostic = "memory_stats"
    npu = "torch.npu.memory_stats"


class CudaMemorySummary(Api):
    """Returns the allocator's statistics as text."""

    names = ("torch.cuda.memory_summary",)
    agnostic = "memory_summary"
    npu = "torch.npu.memory_summary"


class CudaMemorySnapshot(Api):
    """Returns a snapshot of the allocator; each vendor has another format."""

    names = ("torch.cuda.memory_snapshot",)
    agnostic = "memory_snapshot"
    npu = "torch.npu.memory_snapshot"
    kind = Kind.ASSISTED
    hours = 0.5
    question = "Which program reads the snapshot, and can it read the other vendor's format?"


class CudaMemGetInfo(Api):
    """Returns the free and total memory of the device."""

    names = ("torch.cuda.mem_get_info",)
    agnostic = "mem_get_info"
    npu = "torch.npu.mem_get_info"


class CudaIpcCollect(Api):
    """Frees memory that processes share; only CUDA needs this call."""

    names = ("torch.cuda.ipc_collect",)
    agnostic = "ipc_collect"


class CudaOutOfMemory(Api):
    """Names the error for lack of memory on CUDA; every device raises torch.OutOfMemoryError."""

    names = ("torch.cuda.OutOfMemoryError",)
    agnostic = "torch.OutOfMemoryError"
    npu = "torch.OutOfMemoryError"


class CudaMemoryFraction(Api):
    """Sets the allocator's limit; does nothing on a machine without a device."""

    names = ("torch.cuda.set_per_process_memory_fraction",)
    agnostic = "set_per_process_memory_fraction"
    npu = "torch.npu.set_per_process_memory_fraction"


class CudaGetMemoryFraction(Api):
    """Returns the allocator's limit."""

    names = ("torch.cuda.get_per_process_memory_fraction",)
    kind = Kind.ASSISTED
    hours = 0.1
    question = "Keep the limit in a variable; torch_npu has no function that returns the limit."


class CudaAllocator(Api):
    """Controls the allocator directly."""

    names = (
        "torch.cuda.caching_allocator_alloc",
        "torch.cuda.caching_allocator_delete",
        "torch.cuda.CUDAPluggableAllocator",
        "torch.cuda.change_current_allocator",
        "torch.cuda.get_allocator_backend",
        "torch.cuda.MemPool",
        "torch.cuda.use_mem_pool",
        "torch.cuda.memory.CUDAPluggableAllocator",
        "torch.cuda.memory.change_current_allocator",
        "torch.cuda.memory.MemPool",
        "torch.cuda.memory.use_mem_pool",
    )
    kind = Kind.MANUAL
    hours = 4.0
    question = "Which library uses the memory? Replace a library for NVIDIA first."


class CudaMemoryHistory(Api):
    """Records allocations for NVIDIA's memory viewer."""

    names = (
        "torch.cuda.memory._record_memory_history",
        "torch.cuda.memory._dump_snapshot",
        "torch.cuda.memory._snapshot",
    )
    kind = Kind.ASSISTED
    hours = 0.5
    question = "Is the record needed? torch_npu.npu.memory has functions of the same names."


RULES: tuple[AnyRule, ...] = (
    CudaEmptyCache,
    CudaMemoryAllocated,
    CudaMaxMemoryAllocated,
    CudaMemoryReserved,
    CudaMaxMemoryReserved,
    CudaResetPeak,
    CudaResetAccumulated,
    CudaMemoryStats,
    CudaMemorySummary,
    CudaMemorySnapshot,
    CudaMemGetInfo,
    CudaIpcCollect,
    CudaOutOfMemory,
    CudaMemoryFraction,
    CudaGetMemoryFraction,
    CudaAllocator,
    CudaMemoryHistory,
)
