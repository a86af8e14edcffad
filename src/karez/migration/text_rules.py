"""Rules for files other than Python: shell, Docker, settings, requirements, C++ and CUDA."""

import re
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import PurePosixPath

from karez.migration.file_kinds import is_docker, is_native, is_requirements, is_settings, is_shell
from karez.migration.findings import Kind
from karez.migration.rules.environment import TWINS


@dataclass(frozen=True, slots=True, kw_only=True)
class TextRule:
    """A rule that is a pattern in files of certain kinds."""

    id: str
    where: Callable[[PurePosixPath], bool]
    pattern: re.Pattern[str]
    kind: Kind
    reason: str
    question: str = ""
    hours: float = 0.1


TWIN = re.compile(rf"\b({'|'.join(TWINS)})=(\"[^\"]*\"|'[^']*'|[^\s;&|]*)")
_LIBRARIES = (
    r"flash[-_]attn|xformers|apex|bitsandbytes|triton|cupy\S*|tensorrt\S*|pynvml"
    r"|transformer[-_]engine\S*|mamba[-_]ssm|causal[-_]conv1d|faiss-gpu\S*|onnxruntime-gpu"
    r"|pycuda|cudatoolkit|pytorch-cuda|spconv\S*|auto-gptq|autoawq|dgl-cu\S*|torch-scatter"
)
RULES: tuple[TextRule, ...] = (
    TextRule(
        id="shell-variable",
        where=lambda p: is_shell(p) or is_docker(p),
        pattern=TWIN,
        kind=Kind.AUTOMATIC,
        hours=0.02,
        reason="Sets a variable of CUDA; the equivalent for NPUs is set beside it.",
    ),
    TextRule(
        id="shell-nccl",
        where=lambda p: is_shell(p) or is_docker(p),
        pattern=re.compile(r"\b(NCCL|TORCH_NCCL|CUDA|CUDNN|CUBLAS)_\w+="),
        kind=Kind.KEEP,
        reason="Sets a variable that only NVIDIA's libraries read.",
    ),
    TextRule(
        id="shell-program",
        where=lambda p: is_shell(p) or is_docker(p),
        pattern=re.compile(r"(?<![\w-])(nvidia-smi|nvcc|nsys|ncu|dcgmi)(?![\w-])"),
        kind=Kind.ASSISTED,
        hours=0.25,
        reason="Runs a program of NVIDIA.",
        question="npu-smi info reports the same for NPUs.",
    ),
    TextRule(
        id="shell-device",
        where=is_shell,
        pattern=re.compile(r"(--?[\w-]*(?:device|backend)[\w-]*[ =])[\"']?(cuda(:\d+)?|nccl)\b"),
        kind=Kind.ASSISTED,
        reason="A command line names a device or a backend.",
        question="Remove the option if the default now follows the machine, or set npu.",
    ),
    TextRule(
        id="docker-image",
        where=is_docker,
        pattern=re.compile(r"(?im)^FROM\s+\S*(cuda|nvidia|nvcr\.io|pytorch/pytorch)\S*"),
        kind=Kind.ASSISTED,
        hours=2.0,
        reason="The image is based on NVIDIA's.",
        question="Ascend's images have CANN and torch_npu: quay.io/ascend/cann.",
    ),
    TextRule(
        id="docker-devices",
        where=lambda p: is_docker(p) or is_shell(p),
        pattern=re.compile(r"--gpus\b|runtime:\s*nvidia|nvidia\.com/gpu|--runtime[= ]nvidia"),
        kind=Kind.ASSISTED,
        hours=0.5,
        reason="A container gets devices through NVIDIA's options.",
        question="For NPUs: --device /dev/davinci0 and the driver's folders, or Ascend's runtime.",
    ),
    TextRule(
        id="settings-device",
        where=lambda p: is_settings(p) and not is_requirements(p),
        pattern=re.compile(
            r"(?im)^[ \t{,]*[\"']?[\w.-]*(device|accelerator|backend)[\w-]*[\"']?\s*[:=]\s*[\"']?"
            r"(cuda(:\d+)?|nccl|gpu)\b"
        ),
        kind=Kind.ASSISTED,
        reason="A setting names the device or the backend.",
        question="Set npu, or let the program detect its device.",
    ),
    TextRule(
        id="requirement",
        where=is_requirements,
        pattern=re.compile(rf"(?im)^[ \t\"'-]*({_LIBRARIES})(?![\w-])[^\n]*"),
        kind=Kind.ASSISTED,
        hours=0.5,
        reason="Installs a package that needs CUDA.",
        question="Make the package optional; the findings in the code name a replacement.",
    ),
    TextRule(
        id="requirement-nvidia",
        where=is_requirements,
        pattern=re.compile(r"(?im)^[ \t\"'-]*(nvidia-[\w-]+)[^\n]*"),
        kind=Kind.KEEP,
        reason="Installs a part of torch's build for CUDA.",
    ),
    TextRule(
        id="requirement-torch",
        where=is_requirements,
        pattern=re.compile(r"(?im)^[^#\n]*(\+cu\d+|whl/cu\d+)[^\n]*"),
        kind=Kind.ASSISTED,
        hours=0.5,
        reason="Installs a build of torch for CUDA.",
        question="Install torch and torch_npu of one version; `karez doctor` shows which fit CANN.",
    ),
    TextRule(
        id="native-cuda",
        where=is_native,
        pattern=re.compile(
            r"#include\s*[<\"](cuda|cublas|cudnn|nccl|ATen/cuda|c10/cuda|torch/cuda)[\w./]*"
            r"|at::cuda::|c10::cuda::|\.is_cuda\(\)|cudaStream_t|CHECK_CUDA"
        ),
        kind=Kind.MANUAL,
        hours=1.0,
        reason="C++ code calls CUDA.",
        question="Code that uses only ATen can use the tensor's device; the rest needs AscendCL.",
    ),
)
CATALOGUE = (*(rule.id for rule in RULES), "cuda-kernel")
