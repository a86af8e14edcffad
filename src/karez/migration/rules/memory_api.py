"""The names of torch.cuda about memory, one class each."""

from karez.migration.findings import Kind
from karez.migration.rules.api_rule import Api
from karez.migration.rules.rule import AnyRule


class CudaEmptyCache(Api):
    """Gives cached memory back; nothing happens without a device."""

    names = ("torch.cuda.empty_cache",)
    agnostic = "empty_cache"
    npu = "torch.npu.empty_cache"


class CudaMemoryAllocated(Api):
    """Bytes in use; 0 on a CPU, where torch.accelerator raises."""

    names = ("torch.cuda.memory_allocated",)
    agnostic = "memory_allocated"
    npu = "torch.npu.memory_allocated"


class CudaMaxMemoryAllocated(Api):
    """The peak of bytes in use; 0 on a CPU, where torch.accelerator raises."""

    names = ("torch.cuda.max_memory_allocated",)
    agnostic = "max_memory_allocated"
    npu = "torch.npu.max_memory_allocated"


class CudaMemoryReserved(Api):
    """Bytes held by the allocator; 0 on a CPU, where torch.accelerator raises."""

    names = (
        "torch.cuda.memory_reserved",
        "torch.cuda.memory_cached",
    )
    agnostic = "memory_reserved"
    npu = "torch.npu.memory_reserved"


class CudaMaxMemoryReserved(Api):
    """The peak of bytes held; 0 on a CPU, where torch.accelerator raises."""

    names = (
        "torch.cuda.max_memory_reserved",
        "torch.cuda.max_memory_cached",
    )
    agnostic = "max_memory_reserved"
    npu = "torch.npu.max_memory_reserved"


class CudaResetPeak(Api):
    """Starts a new measurement of peaks; nothing happens without a device."""

    names = (
        "torch.cuda.reset_peak_memory_stats",
        "torch.cuda.reset_max_memory_allocated",
        "torch.cuda.reset_max_memory_cached",
    )
    agnostic = "reset_peak_memory_stats"
    npu = "torch.npu.reset_peak_memory_stats"


class CudaResetAccumulated(Api):
    """Starts the allocator's sums anew; nothing happens without a device."""

    names = ("torch.cuda.reset_accumulated_memory_stats",)
    agnostic = "reset_accumulated_memory_stats"
    npu = "torch.npu.reset_accumulated_memory_stats"


class CudaMemoryStats(Api):
    """The allocator's figures; empty on a CPU."""

    names = ("torch.cuda.memory_stats",)
    agnostic = "memory_stats"
    npu = "torch.npu.memory_stats"


class CudaMemorySummary(Api):
    """The allocator's figures as text."""

    names = ("torch.cuda.memory_summary",)
    agnostic = "memory_summary"
    npu = "torch.npu.memory_summary"


class CudaMemorySnapshot(Api):
    """A dump of the allocator, whose form is each vendor's own."""

    names = ("torch.cuda.memory_snapshot",)
    agnostic = "memory_snapshot"
    npu = "torch.npu.memory_snapshot"
    kind = Kind.ASSISTED
    hours = 0.5
    question = "Who reads the snapshot, and does that reader know the other vendor's form?"


class CudaMemGetInfo(Api):
    """Free and total memory of the device."""

    names = ("torch.cuda.mem_get_info",)
    agnostic = "mem_get_info"
    npu = "torch.npu.mem_get_info"


class CudaIpcCollect(Api):
    """Frees memory shared between processes; other vendors need no such call."""

    names = ("torch.cuda.ipc_collect",)
    agnostic = "ipc_collect"


class CudaOutOfMemory(Api):
    """Raised when memory runs out; torch.OutOfMemoryError is raised for every device."""

    names = ("torch.cuda.OutOfMemoryError",)
    agnostic = "torch.OutOfMemoryError"
    npu = "torch.OutOfMemoryError"


class CudaMemoryFraction(Api):
    """Limits the allocator; nothing happens without a device."""

    names = ("torch.cuda.set_per_process_memory_fraction",)
    agnostic = "set_per_process_memory_fraction"
    npu = "torch.npu.set_per_process_memory_fraction"


class CudaGetMemoryFraction(Api):
    """Asks for the limit of the allocator."""

    names = ("torch.cuda.get_per_process_memory_fraction",)
    kind = Kind.ASSISTED
    hours = 0.1
    question = "Keep the limit that was set in a variable; torch_npu has no such question."


class CudaAllocator(Api):
    """Takes memory from the allocator by hand."""

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
    question = "What is the memory handed to? A library for NVIDIA needs a substitute first."


class CudaMemoryHistory(Api):
    """Records allocations for NVIDIA's memory viewer."""

    names = (
        "torch.cuda.memory._record_memory_history",
        "torch.cuda.memory._dump_snapshot",
        "torch.cuda.memory._snapshot",
    )
    kind = Kind.ASSISTED
    hours = 0.5
    question = "Is it still wanted? torch_npu.npu.memory has functions of the same names."


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
