"""Rules for NVIDIA's own libraries and for general computing on CUDA."""

from karez.migration.findings import Kind
from karez.migration.rules.library_rule import Library
from karez.migration.rules.rule import AnyRule


class Nvml(Library):
    """Reads NVIDIA's management library."""

    kind = Kind.ASSISTED
    hours = 0.5
    modules = ("pynvml", "py3nvml", "nvidia_smi", "nvgpu", "GPUtil", "gpustat")
    question = "Is it only for display? npu-smi and torch's memory functions report the same."


class Dali(Library):
    """DALI reads and decodes data on NVIDIA's devices."""

    modules = ("nvidia.dali",)
    question = "Use torchvision or a DataLoader with workers."


class TensorRt(Library):
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


class Cupy(Library):
    """CuPy computes NumPy arrays on CUDA."""

    modules = ("cupy", "cupyx")
    question = "Use torch, which has the same operations on any device."


class NumbaCuda(Library):
    """numba.cuda compiles kernels for CUDA."""

    modules = ("numba.cuda",)
    question = "Write the kernel with torch's operators."


class Rapids(Library):
    """RAPIDS processes tables and graphs on CUDA."""

    modules = ("cudf", "cuml", "cugraph", "cuspatial", "rmm", "dask_cudf", "cucim")
    question = "Use pandas, scikit-learn or networkx, or polars."


RULES: tuple[AnyRule, ...] = (
    Nvml,
    Dali,
    TensorRt,
    Cupy,
    NumbaCuda,
    Rapids,
)
