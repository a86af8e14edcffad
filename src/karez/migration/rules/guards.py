"""What a question about CUDA guards: where it is a kernel, an NPU must not take that way."""

import ast
import re
from collections.abc import Iterator, Sequence

from karez.migration.rules.base import Site

_KERNEL = re.compile(
    r"(^|[._])(triton\w*|_?ext|_C|extensions?|cuda_\w+|cupy|pycuda)($|[._])|_cuda($|\.)"
)
"""Modules by whose names kernels are known: triton_ops, _ext, _C, roi_align_cuda, cuda_ext."""


def kernel_behind(node: ast.AST, site: Site) -> str:
    """The kernel that is run where a question is answered with yes; empty: none is known."""
    branch = _branch(node, site)
    modules = _modules(site)
    for found in _within(branch):
        if isinstance(found, (ast.Import, ast.ImportFrom)):
            name = next(filter(_KERNEL.search, _names(found)), "")
        elif isinstance(found, ast.Call):
            name = _called(found, modules, site)
        else:
            continue
        if name:
            return name
    return ""


def guarded(kernel: str) -> str:
    """The question that is asked then."""
    return f"It leads to {kernel}, made for CUDA: is there a form of it that an NPU should take?"


def _branch(node: ast.AST, site: Site) -> Sequence[ast.AST]:
    """What happens for yes: the body of the `if`, or its else where the question is denied."""
    inside, is_denied = node, False
    for around in site.source.above(node):
        if isinstance(around, ast.UnaryOp) and isinstance(around.op, ast.Not):
            is_denied = not is_denied
        elif isinstance(around, ast.If) and inside is around.test:
            return around.orelse if is_denied else around.body
        elif isinstance(around, ast.IfExp) and inside is around.test:
            return [around.orelse if is_denied else around.body]
        elif isinstance(around, ast.stmt):
            return []
        inside = around
    return []


def _called(call: ast.Call, modules: dict[str, str], site: Site) -> str:
    root: ast.AST = call.func
    while isinstance(root, ast.Attribute):
        root = root.value
    if not isinstance(root, ast.Name):
        return ""
    module = modules.get(root.id, "")
    if _KERNEL.search(module):
        return module
    own = next((f for f in site.source.nodes if _is_function(f, root.id)), None)
    imports = _within([own]) if own is not None and root is call.func else iter(())
    names = (n for f in imports if isinstance(f, (ast.Import, ast.ImportFrom)) for n in _names(f))
    return next(filter(_KERNEL.search, names), "")


def _modules(site: Site) -> dict[str, str]:
    """Names of this file -> the modules they come from, relative ones too."""
    found: dict[str, str] = {}
    for node in site.source.nodes:
        if isinstance(node, (ast.Import, ast.ImportFrom)):
            for alias, name in zip(node.names, _names(node), strict=True):
                found[alias.asname or alias.name.partition(".")[0]] = name
    return found


def _names(node: ast.Import | ast.ImportFrom) -> list[str]:
    if isinstance(node, ast.Import):
        return [alias.name for alias in node.names]
    module = node.module or ""
    if module.partition(".")[0] == "torch":
        return ["" for _ in node.names]
    return [module or alias.name for alias in node.names]


def _within(parts: Sequence[ast.AST]) -> Iterator[ast.AST]:
    return (inner for part in parts for inner in ast.walk(part))


def _is_function(node: ast.AST, name: str) -> bool:
    return isinstance(node, (ast.FunctionDef, ast.AsyncFunctionDef)) and node.name == name
