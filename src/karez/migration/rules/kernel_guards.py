"""Finds kernels for CUDA that a check for CUDA guards: an NPU must not take that branch."""

import ast
import re
from collections.abc import Iterator, Sequence

from karez.migration.findings import Kind
from karez.migration.rules.device_names import says_device
from karez.migration.rules.expressions import names_in, string
from karez.migration.rules.site import Site

_KERNEL = re.compile(
    r"(^|[._])(triton\w*|_?ext|_C|extensions?|cuda_(ext|ops?|kernels?|lib)\w*|cupy|pycuda)($|[._])"
    r"|_cuda\.|^\w*_cuda$|(^|\.)(apex|amp_C|flash_attn|xformers|mamba_ssm|causal_conv1d)($|\.)"
)
"""Names of modules that hold kernels: triton_ops, _ext, _C, roi_align_cuda, cuda_ext."""


def kernel_behind(node: ast.AST, site: Site) -> str:
    """Return the kernel that runs if a check is true; empty: no kernel is known."""
    beside = _implementation_beside(node, site)
    if beside:
        return beside
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


def kernel_question(node: ast.AST, site: Site) -> tuple[Kind | None, str]:
    """Return kind and question for a check that guards a kernel; otherwise None and ''."""
    kernel = kernel_behind(node, site)
    if not kernel:
        return None, ""
    return (
        Kind.ASSISTED,
        f"The check guards {kernel}, made for CUDA: is there an equivalent for NPUs?",
    )


def _implementation_beside(node: ast.AST, site: Site) -> str:
    """The choice of an implementation that is tested with a device; empty: none is.

    As in `impl == "cuda" and x.is_cuda`.
    """
    for around in site.source.above(node):
        for part in around.values if isinstance(around, ast.BoolOp) else ():
            if isinstance(part, ast.Compare) and node not in ast.walk(part):
                sides = [part.left, *part.comparators]
                others = [side for side in sides if string(side) is None]
                is_device = any(says_device(name) for side in others for name in names_in(side))
                if not is_device and any(string(side) == "cuda" for side in sides):
                    return f"the choice {site.source.code(part)}"
        if isinstance(around, ast.stmt):
            break
    return ""


def _branch(node: ast.AST, site: Site) -> Sequence[ast.AST]:
    """The nodes that run if a check is true: the body of the `if`, or its else after a `not`."""
    inside, is_denied = node, False
    for around in site.source.above(node):
        if isinstance(around, ast.UnaryOp) and isinstance(around.op, ast.Not):
            is_denied = not is_denied
        elif isinstance(around, ast.If) and inside is around.test:
            if not is_denied:
                return around.body
            leaves = isinstance(around.body[-1], (ast.Return, ast.Raise, ast.Continue))
            return around.orelse or (_after(around, site) if leaves else [])
        elif isinstance(around, ast.BoolOp) and isinstance(around.op, ast.And):
            rest = around.values[around.values.index(inside) + 1 :] if not is_denied else []  # type: ignore[arg-type]
            if any(isinstance(part, ast.Call) for part in rest):
                return rest
        elif isinstance(around, ast.IfExp) and inside is around.test:
            return [around.orelse if is_denied else around.body]
        elif isinstance(around, ast.stmt):
            return []
        inside = around
    return []


def _after(node: ast.stmt, site: Site) -> Sequence[ast.AST]:
    """The statements that follow a statement in the same block."""
    around = site.source.parent(node)
    for block in ("body", "orelse", "finalbody"):
        found: list[ast.AST] = getattr(around, block, None) or []
        if isinstance(found, list) and node in found:
            return found[found.index(node) + 1 :]
    return []


def _called(call: ast.Call, modules: dict[str, str], site: Site) -> str:
    root: ast.AST = call.func
    while isinstance(root, (ast.Attribute, ast.Subscript)):  # Triton calls kernel[grid](...)
        root = root.value
    if not isinstance(root, ast.Name):
        return ""
    module = modules.get(root.id, "")
    if _KERNEL.search(module) or set(module.split(".")) & site.facts.kernels:
        return module
    own = next((f for f in site.source.nodes if _is_function(f, root.id)), None)
    return _of_function(own, modules, site) if own is not None else ""


def _of_function(own: ast.AST, modules: dict[str, str], site: Site) -> str:
    """The kernel that a function of this file is, imports, or calls through a module."""
    for found in ast.walk(own):
        if isinstance(found, (ast.Import, ast.ImportFrom)):
            name = next(filter(_KERNEL.search, _names(found)), "")
        elif isinstance(found, ast.Name):
            name = modules.get(found.id, "")
        elif isinstance(found, ast.Attribute):
            name = site.source.dotted(found) or ""
        elif isinstance(found, ast.Constant):
            text = string(found) or ""
            if text.endswith((".cu", ".cuh")):
                return text
            continue
        else:
            continue
        if _KERNEL.search(name):
            return name
    return ""


def _modules(site: Site) -> dict[str, str]:
    """Map the imported names of a file to their modules, relative modules included."""
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
    return [f"{module}.{alias.name}" if module else alias.name for alias in node.names]


def _within(parts: Sequence[ast.AST]) -> Iterator[ast.AST]:
    return (inner for part in parts for inner in ast.walk(part))


def _is_function(node: ast.AST, name: str) -> bool:
    return isinstance(node, (ast.FunctionDef, ast.AsyncFunctionDef)) and node.name == name
