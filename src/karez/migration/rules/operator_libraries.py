"""Rules for libraries of operators and serving engines with kernels for CUDA."""

from karez.migration.findings import Kind
from karez.migration.rules.library_rule import Library
from karez.migration.rules.rule import AnyRule


class SparseConvolution(Library):
    """Computes sparse convolutions or 3D operators with CUDA kernels."""

    modules = (
        "spconv",
        "torchsparse",
        "MinkowskiEngine",
        "kaolin",
        "pytorch3d",
        "nvdiffrast",
        "gsplat",
    )
    question = "There is no direct replacement; mxDriving has some of these operators for NPUs."


class GraphKernels(Library):
    """torch_scatter and related libraries have kernels for CPUs and CUDA only."""

    kind = Kind.ASSISTED
    hours = 1.0
    modules = ("torch_scatter", "torch_sparse", "torch_cluster", "torch_spline_conv", "pyg_lib")
    question = (
        "torch.scatter_reduce and index_add do most of this; mxDriving has scatter operators."
    )


class DetectionKernels(Library):
    """Uses compiled CUDA operators for object detection."""

    kind = Kind.ASSISTED
    hours = 2.0
    modules = ("mmcv.ops", "detectron2._C", "detectron2.layers", "torchvision.ops.roi_align")
    question = "mmcv has an Ascend build; torchvision_npu has nms and roi_align."


class FaissGpu(Library):
    """faiss may be a build for CUDA."""

    kind = Kind.ASSISTED
    hours = 0.5
    modules = ("faiss",)
    question = "Is it faiss-gpu? faiss-cpu has the same interface; Ascend has a port for NPUs."


class QuantisedKernels(Library):
    """Multiplies quantised matrices with CUDA kernels."""

    modules = ("auto_gptq", "gptqmodel", "awq", "exllamav2", "exllama_kernels", "marlin", "hqq")
    question = "Use unquantised weights, or quantise with msModelSlim for NPUs."


class ServingEngines(Library):
    """A serving engine with kernels for CUDA; a port for Ascend exists."""

    kind = Kind.ASSISTED
    hours = 1.0
    modules = ("vllm", "sglang", "lmdeploy", "tensorrt_llm")
    question = "vLLM has vllm-ascend; SGLang and LMDeploy have Ascend builds; check the version."


class FusedLibraries(Library):
    """Fuses layers with kernels for NVIDIA's devices."""

    kind = Kind.ASSISTED
    hours = 2.0
    modules = (
        "liger_kernel",
        "fla",
        "flashinfer",
        "grouped_gemm",
        "deep_gemm",
        "deep_ep",
        "unsloth",
        "colossalai",
        "bmtrain",
        "lightseq",
        "fairscale",
        "fastmoe",
        "tutel",
    )
    question = "Liger has an Ascend backend; replace the others by plain operators of torch."


RULES: tuple[AnyRule, ...] = (
    SparseConvolution,
    GraphKernels,
    DetectionKernels,
    FaissGpu,
    QuantisedKernels,
    ServingEngines,
    FusedLibraries,
)
