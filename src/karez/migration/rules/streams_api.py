"""Rules for names of torch.cuda about streams, graphs and NVIDIA's libraries."""

from karez.migration.findings import Kind
from karez.migration.rules.api_rule import Api
from karez.migration.rules.rule import AnyRule
from karez.migration.rules.types_api import Made


class CudaStream(Made):
    """Creates a stream, a queue of work on the device; torch.Stream is the portable class."""

    names = ("torch.cuda.Stream",)
    agnostic = "Stream"
    npu = "torch.npu.Stream"


class CudaEvent(Made):
    """Creates an event in a stream, optionally with timing; torch.Event is the portable class."""

    names = ("torch.cuda.Event",)
    agnostic = "Event"
    npu = "torch.npu.Event"


class CudaStreamContext(Api):
    """Selects a stream for a block of code; None changes nothing."""

    names = (
        "torch.cuda.stream",
        "torch.cuda.StreamContext",
    )
    agnostic = "stream"
    npu = "torch.npu.stream"


class CudaCurrentStream(Api):
    """Returns the current stream."""

    names = ("torch.cuda.current_stream",)
    agnostic = "current_stream"
    npu = "torch.npu.current_stream"


class CudaDefaultStream(Api):
    """Returns the default stream."""

    names = ("torch.cuda.default_stream",)
    agnostic = "default_stream"
    npu = "torch.npu.default_stream"


class CudaSetStream(Api):
    """Sets the current stream."""

    names = ("torch.cuda.set_stream",)
    agnostic = "set_stream"
    npu = "torch.npu.set_stream"


class CudaExternalStream(Api):
    """Wraps a stream that another library created."""

    names = ("torch.cuda.ExternalStream",)
    npu = "torch.npu.ExternalStream"
    kind = Kind.MANUAL
    hours = 4.0
    question = "Which library creates the stream? Replace that library first."


class CudaGraph(Api):
    """Records kernels as a graph; graphs on NPUs are documented for inference only."""

    names = (
        "torch.cuda.CUDAGraph",
        "torch.cuda.graph",
        "torch.cuda.graphs.CUDAGraph",
        "torch.cuda.graphs.graph",
    )
    kind = Kind.ASSISTED
    hours = 0.5
    question = (
        "Is it inference? Then NPUGraph or torch.accelerator.Graph may work. For training, "
        "run without graphs at first."
    )


class CudaGraphHelpers(Api):
    """Helps to capture graphs."""

    names = (
        "torch.cuda.make_graphed_callables",
        "torch.cuda.graph_pool_handle",
        "torch.cuda.is_current_stream_capturing",
        "torch.cuda.graphs.make_graphed_callables",
        "torch.cuda.graphs.graph_pool_handle",
    )
    kind = Kind.ASSISTED
    hours = 0.5
    question = "Add graphs only after the model runs without them."


class CudaNvtx(Api):
    """Sets marks for NVIDIA's profilers; the marks for NPUs are called mstx."""

    names = (
        "torch.cuda.nvtx",
        "torch.cuda.nvtx.range",
        "torch.cuda.nvtx.range_push",
        "torch.cuda.nvtx.range_pop",
        "torch.cuda.nvtx.mark",
        "torch.cuda.nvtx.range_start",
        "torch.cuda.nvtx.range_end",
    )
    kind = Kind.ASSISTED
    hours = 0.5
    question = "Are the marks needed? torch.profiler.record_function works on every device."


class CudaRuntime(Api):
    """Calls NVIDIA's runtime library directly."""

    names = (
        "torch.cuda.cudart",
        "torch.cuda.cudaStatus",
        "torch.cuda.check_error",
        "torch.cuda.CudaError",
    )
    kind = Kind.MANUAL
    hours = 4.0
    question = "Which function of torch does the same?"


class CudaNccl(Api):
    """Calls NCCL directly, without torch.distributed."""

    names = (
        "torch.cuda.nccl",
        "torch.cuda.nccl.version",
        "torch.cuda.nccl.is_available",
        "torch.cuda.nccl.all_reduce",
        "torch.cuda.nccl.broadcast",
        "torch.cuda.nccl.reduce",
        "torch.cuda.nccl.all_gather",
        "torch.cuda.nccl.reduce_scatter",
        "torch.cuda.nccl.unique_id",
    )
    kind = Kind.ASSISTED
    hours = 0.5
    question = "Use torch.distributed; HCCL is part of CANN."


class CudaComm(Api):
    """Copies tensors between the devices of one process, as DataParallel does."""

    names = (
        "torch.cuda.comm",
        "torch.cuda.comm.broadcast",
        "torch.cuda.comm.reduce_add",
        "torch.cuda.comm.scatter",
        "torch.cuda.comm.gather",
        "torch.cuda.comm.broadcast_coalesced",
        "torch.cuda.comm.reduce_add_coalesced",
    )
    kind = Kind.MANUAL
    hours = 4.0
    question = "Use one process for each device and torch.distributed."


class CudaSleep(Api):
    """Keeps the device busy for some cycles; only tests of streams need this."""

    names = ("torch.cuda._sleep",)
    kind = Kind.MANUAL
    hours = 4.0
    question = "Is the test needed on an NPU?"


class CudaJiterator(Api):
    """Compiles a kernel from CUDA C++ text at run time."""

    names = (
        "torch.cuda.jiterator",
        "torch.cuda.jiterator._create_jit_fn",
    )
    kind = Kind.MANUAL
    hours = 4.0
    question = "Write the kernel with torch's operators, or in Ascend C or Triton."


class CudaTunable(Api):
    """Tunes the selection of cuBLAS kernels at run time."""

    names = (
        "torch.cuda.tunable",
        "torch.cuda.tunable.enable",
        "torch.cuda.tunable.set_filename",
    )
    kind = Kind.ASSISTED
    hours = 0.5
    question = "Remove the call: CANN tunes by itself."


RULES: tuple[AnyRule, ...] = (
    CudaStream,
    CudaEvent,
    CudaStreamContext,
    CudaCurrentStream,
    CudaDefaultStream,
    CudaSetStream,
    CudaExternalStream,
    CudaGraph,
    CudaGraphHelpers,
    CudaNvtx,
    CudaRuntime,
    CudaNccl,
    CudaComm,
    CudaSleep,
    CudaJiterator,
    CudaTunable,
)
