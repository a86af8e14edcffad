"""Rules for files other than Python: shell, Docker, settings, requirements, C++ and CUDA."""

import re
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import PurePosixPath

from karez.migration.findings import Edit, FileReport, Finding, Kind
from karez.migration.rules.environment import TWINS

KERNELS = frozenset((".cu", ".cuh"))
NATIVE = frozenset((".cpp", ".cc", ".cxx", ".c", ".h", ".hpp", ".hh"))
SHELL = frozenset((".sh", ".bash", ".zsh", ".slurm", ".sbatch", ".job", ".mk"))
SETTINGS = frozenset((".yaml", ".yml", ".json", ".toml", ".ini", ".cfg"))
LINES_PER_HOUR = 20.0
"""Lines of a CUDA kernel that a person rewrites in an hour; an assumption."""


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


def is_shell(path: PurePosixPath) -> bool:
    """Whether a file is a shell script or a make file."""
    return path.suffix in SHELL or path.name in ("Makefile", "makefile", "justfile")


def is_docker(path: PurePosixPath) -> bool:
    """Whether a file describes a container image or services."""
    name = path.name.lower()
    return "dockerfile" in name or name.startswith("docker-compose") or path.suffix == ".def"


def is_settings(path: PurePosixPath) -> bool:
    """Whether a file holds settings."""
    return path.suffix in SETTINGS


def is_requirements(path: PurePosixPath) -> bool:
    """Whether a file lists packages to install."""
    name = path.name.lower()
    is_list = path.suffix in (".txt", ".in") and "require" in name
    return is_list or name in ("pyproject.toml", "setup.cfg", "pipfile") or "environment" in name


def is_kernel(path: PurePosixPath) -> bool:
    """Whether a file is CUDA source."""
    return path.suffix in KERNELS


def is_native(path: PurePosixPath) -> bool:
    """Whether a file is C or C++."""
    return path.suffix in NATIVE


_TWIN = re.compile(rf"\b({'|'.join(TWINS)})=(\"[^\"]*\"|'[^']*'|[^\s;&|]*)")
_LIBRARIES = (
    r"flash[-_]attn|xformers|apex|bitsandbytes|triton|cupy\S*|tensorrt\S*|pynvml"
    r"|transformer[-_]engine\S*|mamba[-_]ssm|causal[-_]conv1d|faiss-gpu\S*|onnxruntime-gpu"
    r"|pycuda|cudatoolkit|pytorch-cuda|spconv\S*|auto-gptq|autoawq|dgl-cu\S*|torch-scatter"
)
RULES: tuple[TextRule, ...] = (
    TextRule(
        id="shell-variable",
        where=lambda p: is_shell(p) or is_docker(p),
        pattern=_TWIN,
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


def examine_text(path: str, text: str) -> FileReport:
    """Return all findings of a file other than Python."""
    at = PurePosixPath(path)
    report = FileReport(path=path, lines=text.count("\n") + (not text.endswith("\n")))
    if is_kernel(at):
        report.kernel_lines = report.lines
        report.findings = [_kernel(path, report.lines)]
        return report
    found: list[Finding] = []
    taken: set[int] = set()
    for rule in RULES:
        if not rule.where(at):
            continue
        for match in rule.pattern.finditer(text):
            line = text.count("\n", 0, match.start()) + 1
            row = text[text.rfind("\n", 0, match.start()) + 1 :].partition("\n")[0]
            if match.start() in taken or (
                row.lstrip().startswith(("#", "//")) and not is_native(at)
            ):
                continue
            taken.add(match.start())
            found.append(_finding(path, text, rule, match, line, row))
    report.findings = found
    if is_native(at) and found:
        report.kernel_lines = report.lines
    return report


def _finding(
    path: str, text: str, rule: TextRule, match: re.Match[str], line: int, row: str
) -> Finding:
    edits: Sequence[Edit] = ()
    kind = rule.kind
    if "karez: keep" in row:
        kind = Kind.KEEP
    elif rule.pattern is _TWIN:
        twin = TWINS[match.group(1)]
        around = text[max(0, match.start() - 200) : match.end() + 200]
        if twin in around:
            kind = Kind.KEEP
        else:
            edits = [Edit(start=match.end(), end=match.end(), text=f" {twin}={match.group(2)}")]
    column = match.start() - (text.rfind("\n", 0, match.start()) + 1) + 1
    asks = kind in (Kind.ASSISTED, Kind.MANUAL)
    return Finding(
        rule=rule.id,
        kind=kind,
        path=path,
        line=line,
        column=column,
        code=" ".join(match.group(0).split())[:100],
        reason=rule.reason,
        question=rule.question if asks else "",
        hours=rule.hours if kind != Kind.KEEP else 0.0,
        edits=tuple(edits),
    )


def _kernel(path: str, lines: int) -> Finding:
    return Finding(
        rule="cuda-kernel",
        kind=Kind.MANUAL,
        path=path,
        line=1,
        column=1,
        code=f"{lines} lines",
        reason="A kernel in CUDA C++, which cannot be converted for NPUs by renaming.",
        question="Is there a version in torch's operators? If not, use Ascend C or Triton.",
        hours=round(lines / LINES_PER_HOUR, 1),
    )
