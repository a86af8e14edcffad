"""Advice on source code that would be slow on an NPU: place, reason and source of the rule.

Sources: `advisor`: rules of msprof-analyze's advisor (Ascend/msprof-analyze, 8399c1cd);
`documentation`: of Ascend Extension for PyTorch 7.2; `migrations`: what these met (design notes on
migration, section 2).
"""

import ast
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from karez.core.errors import BadRequest
from karez.migration.scan import scan
from karez.migration.source import Source

_LOOPS = (ast.For, ast.AsyncFor, ast.While)
_SYNCS = frozenset(("item", "tolist", "cpu", "numpy"))
_DYNAMIC = frozenset(
    ("nonzero", "argwhere", "unique", "unique_consecutive", "masked_select", "repeat_interleave")
)
CUBE = 16
"""Sizes should be multiples of 16: others leave part of the matrix unit idle (advisor,
documentation)."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Advice:
    """One place that could be faster."""

    rule: str
    path: str
    line: int
    code: str
    reason: str
    source: str


def advise(root: Path) -> list[Advice]:
    """All advice for a folder or a file. Raises BadRequest if the path does not exist."""
    if not root.exists():
        raise BadRequest(problem=f"there is no {root}", fix="Name a folder or a file.")
    base = root if root.is_dir() else root.parent
    found: list[Advice] = []
    for path in scan(root).paths:
        try:
            text = (base / path).read_text().removeprefix("\ufeff")
            if "torch" in text:
                found += advise_text(path, text)
        except (OSError, ValueError, SyntaxError, RecursionError):
            continue  # the scan lists what cannot be read
    return found


def advise_text(path: str, text: str) -> list[Advice]:
    """Advice for one file. Raises SyntaxError or ValueError if it cannot be parsed."""
    source = Source(path, text)
    found: list[Advice] = []
    for node in source.nodes:
        for rule, reason, where in _look(node, source):
            code = " ".join(source.code(node).split())[:100]
            line = source.place(source.start(node))[0]
            found.append(
                Advice(rule=rule, path=path, line=line, code=code, reason=reason, source=where)
            )
    return found


def _look(node: ast.AST, source: Source) -> Iterator[tuple[str, str, str]]:
    if isinstance(node, ast.Call):
        yield from _calls(node, source)
        yield from _sizes(node, source)
    elif isinstance(node, ast.Attribute):
        name = source.dotted(node)
        if name in ("torch.float64", "torch.double", "torch.complex128"):
            yield (
                "slow-type",
                "float64 and complex128 run on the scalar units, or not at all.",
                "advisor",
            )
        elif name == "torch.channels_last":
            yield (
                "channels-last",
                "NPUs have a layout of their own; contiguous tensors are converted once.",
                "documentation",
            )
    elif isinstance(node, ast.Subscript) and isinstance(node.slice, ast.Compare):
        if isinstance(node.ctx, ast.Load) and _in_loop(node, source):
            yield (
                "dynamic-shape",
                "A mask as an index makes a shape that depends on the data: each new shape is "
                "compiled or planned again. torch.where keeps the shape.",
                "migrations",
            )
    elif isinstance(node, ast.BinOp) and isinstance(node.op, ast.Mult):
        yield from _fusions(node, source)


def _calls(node: ast.Call, source: Source) -> Iterator[tuple[str, str, str]]:
    name = source.dotted(node.func) or ""
    last = name.rpartition(".")[2] if name else getattr(node.func, "attr", "")
    loops = _in_loop(node, source)
    if loops and not name and last in _SYNCS and not node.args:
        yield (
            "sync-in-loop",
            f".{last}() waits for the device in every round; gather the values and read them once.",
            "advisor",
        )
    if last in ("empty_cache", "_empty_cache") and loops:
        yield "cache-in-loop", "Memory is given back and asked for again in every round.", "advisor"
    if last in _DYNAMIC and (name.startswith("torch.") or not name) and loops:
        yield (
            "dynamic-shape",
            f"{last} makes a shape that depends on the data: each new shape is planned again.",
            "migrations",
        )
    if last == "convert_sync_batchnorm":
        yield "sync-batchnorm", "Over twenty of them wait for one another in each step.", "advisor"
    if name in ("torch.nn.functional.softmax", "torch.softmax") and _is_attention(node, source):
        yield (
            "fused-attention",
            "Attention written out: F.scaled_dot_product_attention, or "
            "torch_npu.npu_fusion_attention, is one kernel.",
            "advisor",
        )
    if name.startswith("torch.optim.") and last in ("Adam", "AdamW", "SGD"):
        fused = any(word.arg == "fused" for word in node.keywords)
        if not fused:
            yield "fused-optimizer", "fused=True steps all parameters in few kernels.", "advisor"


def _sizes(node: ast.Call, source: Source) -> Iterator[tuple[str, str, str]]:
    """Layers whose sizes leave the matrix unit partly idle."""
    name = source.dotted(node.func) or ""
    if name not in ("torch.nn.Linear", "torch.nn.MultiheadAttention", "torch.nn.Embedding"):
        return
    sizes = [
        arg.value
        for arg in node.args[:2]
        if isinstance(arg, ast.Constant) and type(arg.value) is int
    ]
    odd = [size for size in sizes if size > 4 * CUBE and size % CUBE]
    if odd:
        yield (
            "odd-size",
            f"{odd[0]} is no multiple of {CUBE}: part of the matrix unit stays idle. Pad it.",
            "advisor",
        )


def _fusions(node: ast.BinOp, source: Source) -> Iterator[tuple[str, str, str]]:
    """`silu(a) * b` and `x * rsqrt(...)`."""
    names = {_last_of(inner, source) for inner in ast.walk(node) if isinstance(inner, ast.Call)}
    if "silu" in names:
        yield (
            "fused-swiglu",
            "torch_npu.npu_swiglu is one kernel; keep this elsewhere.",
            "advisor",
        )
    if "rsqrt" in names and {"mean", "pow"} & names:
        yield "fused-rmsnorm", "torch.nn.functional.rms_norm is one kernel.", "advisor"


def _is_attention(node: ast.Call, source: Source) -> bool:
    """Whether the softmax of a product is multiplied by something again, in one function."""
    for around in source.above(node):
        if isinstance(around, (ast.FunctionDef, ast.AsyncFunctionDef)):
            products = [
                inner
                for inner in ast.walk(around)
                if (isinstance(inner, ast.BinOp) and isinstance(inner.op, ast.MatMult))
                or (isinstance(inner, ast.Call) and _is_product(inner, source))
            ]
            return len(products) > 1
    return False


def _is_product(call: ast.Call, source: Source) -> bool:
    return _last_of(call, source) in ("matmul", "bmm", "einsum", "baddbmm")


def _last_of(call: ast.Call, source: Source) -> str:
    """The last part of what is called."""
    name = source.dotted(call.func) or str(getattr(call.func, "attr", ""))
    return name.rpartition(".")[2]


def _in_loop(node: ast.AST, source: Source) -> bool:
    for around in source.above(node):
        if isinstance(around, _LOOPS):
            return True
        if isinstance(around, (ast.FunctionDef, ast.AsyncFunctionDef, ast.Lambda)):
            return False
    return False
