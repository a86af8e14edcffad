"""Rules for processes that are forked: a device that was used before cannot be used in them."""

import ast
import re
from collections.abc import Sequence

from typing_extensions import override

from karez.migration.findings import Finding, Kind
from karez.migration.rules.expressions import keyword, string
from karez.migration.rules.rule import AnyRule, Rule
from karez.migration.rules.site import Site

_TOUCHES = re.compile(
    r"torch\.(cuda|npu|accelerator)\.(set_device|init|current_device|synchronize|manual_seed|get_|"
    r"mem|empty_cache|Stream|Event|stream)"
)
_OTHER_METHOD = re.compile(r"(set_start_method|get_context)\(\s*(method=)?[\"'](spawn|forkserver)")
_MOVES = ("cuda", "npu")
_FORKING = ("os.fork", "multiprocessing.Process", "torch.multiprocessing.Process")
_METHOD = (
    "multiprocessing.set_start_method",
    "multiprocessing.get_context",
    "torch.multiprocessing.set_start_method",
    "torch.multiprocessing.get_context",
)


class ForkWithDevice(Rule[ast.Call]):
    """A process is forked after its parent used the device: the child cannot use it."""

    nodes = (ast.Call,)
    kind = Kind.ASSISTED
    question = 'Does the child use the device? Then start it with the method "spawn".'
    hours = 0.25

    @override
    def find(self, node: ast.Call, site: Site) -> Finding | None:
        name = site.source.dotted(node.func) or ""
        if name in _METHOD:
            method = keyword(node, "method") or (node.args[0] if node.args else None)
            return self.finding(node, site) if string(method) == "fork" else None
        if name not in _FORKING or _OTHER_METHOD.search(site.source.text):
            return None
        return self.finding(node, site) if _was_touched(node, site) else None


def _was_touched(node: ast.Call, site: Site) -> bool:
    """Whether a statement before a call, in the same block or around it, uses the device."""
    inside: ast.AST = node
    for around in site.source.above(node):
        for block in ("body", "orelse", "finalbody"):
            statements = getattr(around, block, None)
            if isinstance(statements, list) and inside in statements:
                before: Sequence[ast.AST] = statements[: statements.index(inside)]
                if any(_touches(one, site) for one in before):
                    return True
        if isinstance(around, (ast.FunctionDef, ast.AsyncFunctionDef)):
            return False
        inside = around
    return False


def _touches(statement: ast.AST, site: Site) -> bool:
    if isinstance(statement, (ast.FunctionDef, ast.AsyncFunctionDef, ast.ClassDef)):
        return False
    for found in ast.walk(statement):
        if not isinstance(found, ast.Call):
            continue
        if _TOUCHES.match(site.source.dotted(found.func) or ""):
            return True
        if isinstance(found.func, ast.Attribute) and found.func.attr in _MOVES:
            return True
        is_to = isinstance(found.func, ast.Attribute) and found.func.attr == "to"
        if is_to and any((string(value) or "").startswith(_MOVES) for value in found.args):
            return True
    return False


RULES: tuple[AnyRule, ...] = (ForkWithDevice,)
