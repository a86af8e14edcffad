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
    question = "Is there a form in torch's operators, for reference? Use it on NPUs at first."
    hours = 8.0

    @override
    def find(self, node: ast.FunctionDef, site: Site) -> Finding | None:
        for mark in node.decorator_list:
            name = site.source.dotted(mark.func if isinstance(mark, ast.Call) else mark)
            if name in ("triton.jit", "triton.runtime.jit.jit"):
                return self.finding(mark, site)
        return None


class CppExtension(Library):
    """C++ or CUDA is compiled into the program."""

    modules = ("torch.utils.cpp_extension",)
    question = (
        "What uses only torch's operators compiles for any device; CUDA kernels need an Ascend C "
        "form, or torch's operators."
    )


class CompiledModule(Library):
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


def _is_module(part: str) -> bool:
    """Whether a name is a compiled module's rather than a function's."""
    return part.startswith("_cuda") or part.endswith(("_cuda", "_cuda_ext"))


RULES: tuple[AnyRule, ...] = (
    TritonKernel,
    CppExtension,
    CompiledModule,
    CustomOperator,
)
