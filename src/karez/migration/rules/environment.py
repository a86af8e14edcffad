"""Rules for environment variables and programs of NVIDIA."""

import ast
import re

from typing_extensions import override

from karez.migration.findings import Edit, Finding, Kind, Target
from karez.migration.rules.expressions import string
from karez.migration.rules.rule import AnyRule, Rule
from karez.migration.rules.site import Site

TWINS = {
    "CUDA_VISIBLE_DEVICES": "ASCEND_RT_VISIBLE_DEVICES",
    "CUDA_LAUNCH_BLOCKING": "ASCEND_LAUNCH_BLOCKING",
    "PYTORCH_CUDA_ALLOC_CONF": "PYTORCH_NPU_ALLOC_CONF",
    "NCCL_SOCKET_IFNAME": "HCCL_SOCKET_IFNAME",
}
"""Variables of CUDA and NCCL, with the variable for NPUs that takes the same values."""
_HARMLESS = re.compile(
    r"(CUBLAS_|CUDNN_|NVIDIA_|NCCL_|TORCH_NCCL_|CUDA_(DEVICE_ORDER|DEVICE_MAX_CONNECTIONS|HOME|PATH)"
    r"|TORCH_CUDA_ARCH_LIST|TORCH_ALLOW_TF32|USE_CUDA|FORCE_CUDA|CUDA_)\w*\Z"
)

_PROGRAM = re.compile(r"\s*(nvidia-smi|nvcc|nsys|ncu|nvprof)\b")


class VisibleDevices(Rule[ast.Assign]):
    """A variable of CUDA is set; the equivalent for NPUs is set beside it."""

    nodes = (ast.Assign,)

    @override
    def find(self, node: ast.Assign, site: Site) -> Finding | None:
        target = node.targets[0]
        if len(node.targets) != 1 or not isinstance(target, ast.Subscript):
            return None
        name = string(target.slice) or ""
        if name not in TWINS or site.source.dotted(target.value) != "os.environ":
            return None
        site.claim(target.slice)
        twin = TWINS[name]
        forms = ((Target.AGNOSTIC, twin), (Target.NPU, twin))
        source = site.source
        line_end = source.text.find("\n", source.end(node))
        rest = source.text[source.end(node) : line_end if line_end >= 0 else None]
        following = source.text[line_end + 1 :].lstrip()[:200] if line_end >= 0 else ""
        if twin in following.partition("\n")[0]:
            return self.finding(node, site, kind=Kind.KEEP)
        start = source.line_start(source.place(source.start(node))[0])
        before = source.text[start : source.start(node)]
        if before.strip() or rest.strip().startswith(";"):
            return self.finding(node, site, kind=Kind.ASSISTED, question=f"Also set {twin}.")
        environ = source.code(target.value)
        line = f'\n{before}{environ}["{twin}"] = {environ}["{name}"]'
        at = line_end if line_end >= 0 else len(source.text)
        at -= source.text[:at].endswith("\r")
        return self.finding(node, site, [Edit(start=at, end=at, text=line)], forms=forms)


class EnvironmentName(Rule[ast.Constant]):
    """A variable of CUDA or NCCL is read, or set where no line can be added."""

    nodes = (ast.Constant,)
    kind = Kind.ASSISTED
    hours = 0.1

    @override
    def find(self, node: ast.Constant, site: Site) -> Finding | None:
        text = string(node) or ""
        name = text.partition("=")[0]
        if name in TWINS:
            return self.finding(
                node, site, question=f"Should the program also read or set {TWINS[name]}?"
            )
        if not _HARMLESS.match(name) or node in site.source.docs:
            return None
        return self.finding(node, site, kind=Kind.KEEP)


class NvidiaProgram(Rule[ast.Constant]):
    """A program of NVIDIA is run, such as nvidia-smi."""

    nodes = (ast.Constant,)
    kind = Kind.ASSISTED
    question = "npu-smi is the program for NPUs; the output has another format."
    hours = 0.5

    @override
    def find(self, node: ast.Constant, site: Site) -> Finding | None:
        text = string(node) or ""
        if node in site.source.docs or not _PROGRAM.match(text):
            return None
        return self.finding(node, site)


RULES: tuple[AnyRule, ...] = (VisibleDevices, EnvironmentName, NvidiaProgram)
