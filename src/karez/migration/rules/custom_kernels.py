"""Rules for kernels of the program's own: Triton, compiled extensions, registered operators."""

import ast

from typing_extensions import override

from karez.migration.findings import Finding, Kind
from karez.migration.rules.library_rule import Library
from karez.migration.rules.rule import AnyRule, Rule
from karez.migration.rules.site import Site


class TritonKernel(Rule[ast.FunctionDef]):
    """A kernel written in Triton."""

    nodes = (ast.FunctionDef,)
    kind = Kind.MANUAL
    question = "Is there a reference version in torch's operators? Use that on NPUs at first."
    hours = 8.0

    @override
    def find(self, node: ast.FunctionDef, site: Site) -> Finding | None:
        for mark in node.decorator_list:
            name = site.source.dotted(mark.func if isinstance(mark, ast.Call) else mark)
            if name in ("triton.jit", "triton.runtime.jit.jit"):
                return self.finding(mark, site)
        return None


class CppExtension(Library):
    """The program compiles C++ or CUDA code."""

    modules = ("torch.utils.cpp_extension",)
    question = (
        "Code that uses only torch's operators compiles for any device; write CUDA kernels in "
        "Ascend C or with torch's operators."
    )


class CompiledModule(Library):
    """A compiled module has CUDA in its name."""

    question = "Where is the source? Write a version for NPUs, or use torch's operators."

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
    """An operator is registered under torch.ops by a library."""

    nodes = (ast.Attribute,)
    kind = Kind.MANUAL
    question = "Does the operator have kernels for other devices (CompositeImplicit, Meta, CPU)?"
    hours = 4.0

    @override
    def find(self, node: ast.AST, site: Site) -> Finding | None:
        name = site.source.dotted(node) or ""
        parts = name.split(".")
        if parts[:2] != ["torch", "ops"] or len(parts) != _NAMESPACE:
            return None
        return None if parts[2] in _PORTABLE else self.finding(node, site)


_NAMESPACE = 3
"""Parts of the name of a namespace, such as torch.ops.aten."""
_PORTABLE = frozenset(
    (
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
)
"""Names in torch.ops that other devices have too."""


def _is_module(part: str) -> bool:
    """Whether a name is that of a compiled module rather than of a function."""
    return part.startswith("_cuda") or part.endswith(("_cuda", "_cuda_ext"))


RULES: tuple[AnyRule, ...] = (
    TritonKernel,
    CppExtension,
    CompiledModule,
    CustomOperator,
)
