"""The names of torch.cuda about streams, graphs and other libraries, one class each."""

from karez.migration.findings import Kind
from karez.migration.rules.api_rule import Api
from karez.migration.rules.rule import AnyRule
from karez.migration.rules.types_api import Made


class CudaStream(Made):
    """A queue of work on the device; torch.Stream is the portable one."""

    names = ("torch.cuda.Stream",)
    agnostic = "Stream"
    npu = "torch.npu.Stream"


class CudaEvent(Made):
    """A mark in a stream, with times where asked for; torch.Event is the portable one."""

    names = ("torch.cuda.Event",)
    agnostic = "Event"
    npu = "torch.npu.Event"


class CudaStreamContext(Api):
    """Work inside goes to this stream; None changes nothing."""

    names = (
        "torch.cuda.stream",
        "torch.cuda.StreamContext",
    )
    agnostic = "stream"
    npu = "torch.npu.stream"


class CudaCurrentStream(Api):
    """The stream in use."""

    names = ("torch.cuda.current_stream",)
    agnostic = "current_stream"
    npu = "torch.npu.current_stream"


class CudaDefaultStream(Api):
    """The stream that work goes to where nothing was said."""

    names = ("torch.cuda.default_stream",)
    agnostic = "default_stream"
    npu = "torch.npu.default_stream"


class CudaSetStream(Api):
    """Chooses the stream from here on."""

    names = ("torch.cuda.set_stream",)
    agnostic = "set_stream"
    npu = "torch.npu.set_stream"


class CudaExternalStream(Api):
    """Wraps a stream that another library made."""

    names = ("torch.cuda.ExternalStream",)
    npu = "torch.npu.ExternalStream"
    kind = Kind.MANUAL
    hours = 4.0
    question = "Which library? It needs a substitute first."


class CudaGraph(Api):
    """A recorded sequence of kernels; on NPUs graphs are documented for inference only."""

    names = (
        "torch.cuda.CUDAGraph",
        "torch.cuda.graph",
        "torch.cuda.graphs.CUDAGraph",
        "torch.cuda.graphs.graph",
    )
    kind = Kind.ASSISTED
    hours = 0.5
    question = (
        "Is it inference? Then NPUGraph or torch.accelerator.Graph may do. For training, "
        "leave it out at first."
    )


class CudaGraphHelpers(Api):
    """Part of capturing graphs."""

    names = (
        "torch.cuda.make_graphed_callables",
        "torch.cuda.graph_pool_handle",
        "torch.cuda.is_current_stream_capturing",
        "torch.cuda.graphs.make_graphed_callables",
        "torch.cuda.graphs.graph_pool_handle",
    )
    kind = Kind.ASSISTED
    hours = 0.5
    question = "Leave graphs out until the model runs without them."


class CudaNvtx(Api):
    """Marks for NVIDIA's profilers; on NPUs these are mstx."""

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
    question = "Are the marks still wanted? torch.profiler.record_function works everywhere."


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
    question = "Which call is it, and which function of torch does the same?"


class CudaNccl(Api):
    """Speaks to NCCL without torch.distributed."""

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
    question = "Use torch.distributed; versions of HCCL come with CANN."


class CudaComm(Api):
    """Copies between the devices of one process, as DataParallel does."""

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
    """Keeps the device busy for some cycles; only tests of streams use it."""

    names = ("torch.cuda._sleep",)
    kind = Kind.MANUAL
    hours = 4.0
    question = "Does the test matter on an NPU?"


class CudaJiterator(Api):
    """Compiles a kernel from CUDA C++ text at run time."""

    names = (
        "torch.cuda.jiterator",
        "torch.cuda.jiterator._create_jit_fn",
    )
    kind = Kind.MANUAL
    hours = 4.0
    question = "Write it with torch's operators, or as an Ascend C or Triton kernel."


class CudaTunable(Api):
    """Tunes cuBLAS choices at run time."""

    names = (
        "torch.cuda.tunable",
        "torch.cuda.tunable.enable",
        "torch.cuda.tunable.set_filename",
    )
    kind = Kind.ASSISTED
    hours = 0.5
    question = "Leave it out: CANN tunes by itself."


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
