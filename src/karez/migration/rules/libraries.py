"""Libraries that are made for CUDA, with what stands in for each."""

import ast

from typing_extensions import override

from karez.migration.findings import Finding, Kind
from karez.migration.rules.base import AnyRule, Rule, Site


class _Library(Rule[ast.Import | ast.ImportFrom]):
    """A library by the names it is imported under."""

    nodes = (ast.Import, ast.ImportFrom)
    kind = Kind.MANUAL
    hours = 8.0
    modules: tuple[str, ...] = ()

    @override
    def find(self, node: ast.Import | ast.ImportFrom, site: Site) -> Finding | None:
        if isinstance(node, ast.Import):
            names = [alias.name for alias in node.names]
        elif node.module and not node.level:
            names = [f"{node.module}.{alias.name}" for alias in node.names]
        else:
            return None
        if names[0].partition(".")[0] in site.own:
            return None
        if not any(name == m or name.startswith(f"{m}.") for name in names for m in self.modules):
            return None
        return self.finding(node, site)


class Triton(_Library):
    """Triton kernels are compiled for one vendor's chips."""

    modules = ("triton",)
    question = (
        "triton-ascend compiles many kernels after the device is renamed; check the size of the "
        "grid, the on-chip buffer, int64 and num_warps. Or use torch's operators."
    )


class TritonKernel(Rule[ast.FunctionDef]):
    """A kernel written in Triton."""

    nodes = (ast.FunctionDef,)
    kind = Kind.MANUAL
    question = "Is there a form in torch's operators, for reference? Use it on NPUs at first."
    hours = 8.0

    @override
    def find(self, node: ast.FunctionDef, site: Site) -> Finding | None:
        for mark in node.decorator_list:
            name = site.source.dotted(mark.func if isinstance(mark, ast.Call) else mark)
            if name in ("triton.jit", "triton.runtime.jit.jit"):
                return self.finding(mark, site)
        return None


class FlashAttention(_Library):
    """flash-attn cannot be installed without CUDA."""

    kind = Kind.ASSISTED
    hours = 2.0
    modules = ("flash_attn", "flash_attn_interface", "flash_attn_cuda", "flash_attn_2_cuda")
    question = (
        "F.scaled_dot_product_attention does the same for fixed lengths; for packed lengths, "
        "torch_npu.npu_fusion_attention with input_layout TND."
    )


class Xformers(_Library):
    """xformers has kernels for CUDA only; its training part is not supported on NPUs."""

    kind = Kind.ASSISTED
    hours = 1.0
    modules = ("xformers",)
    question = "memory_efficient_attention is F.scaled_dot_product_attention, heads transposed."


class Apex(_Library):
    """apex is NVIDIA's; what it did is in torch today."""

    kind = Kind.ASSISTED
    hours = 1.0
    modules = ("apex",)
    question = (
        "FusedAdam is torch.optim.AdamW(fused=True), FusedLayerNorm is nn.LayerNorm, amp is "
        "torch.amp; on NPUs there are NpuFusedAdamW and apex for Ascend."
    )


class BitsAndBytes(_Library):
    """bitsandbytes quantises with CUDA kernels."""

    modules = ("bitsandbytes",)
    question = "Leave the quantisation out, or quantise with torchao or msModelSlim."


class MambaKernels(_Library):
    """mamba_ssm and causal_conv1d are CUDA kernels."""

    modules = ("mamba_ssm", "causal_conv1d", "selective_scan_cuda", "causal_conv1d_cuda")
    question = "Their reference forms in torch (`*_ref`) run everywhere, slowly."


class TransformerEngine(_Library):
    """Transformer Engine is NVIDIA's."""

    modules = ("transformer_engine", "transformer_engine_torch")
    question = "Use torch's layers; MindSpeed has fused ones for NPUs."


class Deepspeed(_Library):
    """DeepSpeed runs on NPUs with its own accelerator for them."""

    kind = Kind.ASSISTED
    hours = 0.5
    modules = ("deepspeed",)
    question = "Set DS_ACCELERATOR=npu; leave out fused CUDA optimizers (FusedAdam, CPUAdam)."


class Megatron(_Library):
    """Megatron's kernels and its apex are NVIDIA's."""

    modules = ("megatron",)
    question = "MindSpeed adapts Megatron for NPUs: `import mindspeed.megatron_adaptor` first."


class Nvml(_Library):
    """Reads NVIDIA's management library."""

    kind = Kind.ASSISTED
    hours = 0.5
    modules = ("pynvml", "py3nvml", "nvidia_smi", "nvgpu", "GPUtil", "gpustat")
    question = "Is it only for show? npu-smi and torch's memory functions tell the same."


class Dali(_Library):
    """DALI reads and decodes data on NVIDIA's devices."""

    modules = ("nvidia.dali",)
    question = "Use torchvision or a DataLoader with workers."


class TensorRt(_Library):
    """TensorRT runs models on NVIDIA's devices."""

    modules = (
        "tensorrt",
        "torch_tensorrt",
        "torch2trt",
        "pycuda",
        "onnx_graphsurgeon",
        "polygraphy",
    )
    question = "For NPUs, export to ONNX and convert with ATC (OM), or serve with vLLM-Ascend."


class Cupy(_Library):
    """CuPy is NumPy on CUDA."""

    modules = ("cupy", "cupyx")
    question = "Use torch, which has the same operations on any device."


class NumbaCuda(_Library):
    """numba.cuda compiles kernels for CUDA."""

    modules = ("numba.cuda",)
    question = "Write the kernel with torch's operators."


class Rapids(_Library):
    """RAPIDS computes tables and graphs on CUDA."""

    modules = ("cudf", "cuml", "cugraph", "cuspatial", "rmm", "dask_cudf", "cucim")
    question = "Use pandas, scikit-learn or networkx, or polars."


class SparseConvolution(_Library):
    """Sparse convolutions by CUDA kernels."""

    modules = (
        "spconv",
        "torchsparse",
        "MinkowskiEngine",
        "kaolin",
        "pytorch3d",
        "nvdiffrast",
        "gsplat",
    )
    question = "There is no drop-in; mxDriving has some of these operators for NPUs."


class GraphKernels(_Library):
    """torch_scatter and its like have kernels for CPU and CUDA only."""

    kind = Kind.ASSISTED
    hours = 1.0
    modules = ("torch_scatter", "torch_sparse", "torch_cluster", "torch_spline_conv", "pyg_lib")
    question = "torch.scatter_reduce and index_add do most of it; mxDriving has scatter operators."


class DetectionKernels(_Library):
    """Detection libraries with compiled CUDA operators."""

    kind = Kind.ASSISTED
    hours = 2.0
    modules = ("mmcv.ops", "detectron2._C", "detectron2.layers", "torchvision.ops.roi_align")
    question = "mmcv has an Ascend build; torchvision_npu has nms and roi_align."


class FaissGpu(_Library):
    """faiss may be built for CUDA."""

    kind = Kind.ASSISTED
    hours = 0.5
    modules = ("faiss",)
    question = "Is it faiss-gpu? faiss-cpu has the same interface; for NPUs there is Ascend's port."


class QuantisedKernels(_Library):
    """Quantised matrix products by CUDA kernels."""

    modules = ("auto_gptq", "gptqmodel", "awq", "exllamav2", "exllama_kernels", "marlin", "hqq")
    question = "Use weights that were not quantised, or quantise with msModelSlim for NPUs."


class ServingEngines(_Library):
    """A serving engine with kernels for CUDA; it has a port for Ascend."""

    kind = Kind.ASSISTED
    hours = 1.0
    modules = ("vllm", "sglang", "lmdeploy", "tensorrt_llm")
    question = "vLLM has vllm-ascend, SGLang and LMDeploy builds for Ascend; check the version."


class FusedLibraries(_Library):
    """Fused layers by kernels for NVIDIA's devices."""

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
    question = "Liger has an Ascend backend; of the others the plain form in torch is the way."


class CppExtension(_Library):
    """C++ or CUDA is compiled into the program."""

    modules = ("torch.utils.cpp_extension",)
    question = (
        "What uses only torch's operators compiles for any device; CUDA kernels need an Ascend C "
        "form, or torch's operators."
    )


class CompiledModule(_Library):
    """A compiled module whose name says CUDA."""

    question = "Where is its source? It needs a form for NPUs, or torch's operators."

    @override
    def find(self, node: ast.Import | ast.ImportFrom, site: Site) -> Finding | None:
        names = [alias.name for alias in node.names]
        module = getattr(node, "module", None) or ""
        if module.startswith("torch") or any(name.startswith("torch") for name in names):
            return None
        parts = [part for name in (*names, module) for part in name.split(".")]
        if not any("_cuda" in part.lower() and _is_module(part) for part in parts):
            return None
        return self.finding(node, site)


class CustomOperator(Rule[ast.AST]):
    """An operator that somebody registered under torch.ops."""

    nodes = (ast.Attribute,)
    kind = Kind.MANUAL
    question = "Does it have a kernel for other devices (CompositeImplicit, Meta and a CPU form)?"
    hours = 4.0

    @override
    def find(self, node: ast.AST, site: Site) -> Finding | None:
        name = site.source.dotted(node) or ""
        parts = name.split(".")
        if parts[:2] != ["torch", "ops"] or len(parts) != _NAMESPACE:
            return None
        known = (
            "aten",
            "prims",
            "prim",
            "torchvision",
            "c10d",
            "load_library",
            "profiler",
            "_c10d_functional",
            "torchaudio",
            "higher_order",
            "quantized",
            "npu",
        )
        return None if parts[2] in known else self.finding(node, site)


_NAMESPACE = 3

RULES: tuple[AnyRule, ...] = (
    Triton,
    TritonKernel,
    FlashAttention,
    Xformers,
    Apex,
    BitsAndBytes,
    MambaKernels,
    TransformerEngine,
    Deepspeed,
    Megatron,
    Nvml,
    Dali,
    TensorRt,
    Cupy,
    NumbaCuda,
    Rapids,
    SparseConvolution,
    GraphKernels,
    DetectionKernels,
    FaissGpu,
    QuantisedKernels,
    ServingEngines,
    FusedLibraries,
    CppExtension,
    CompiledModule,
    CustomOperator,
)


def _is_module(part: str) -> bool:
    """Whether a name is a compiled module's rather than a function's."""
    return part.startswith("_cuda") or part.endswith(("_cuda", "_cuda_ext"))
