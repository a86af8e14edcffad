"""Rules for device strings in expressions of a known form: calls, comparisons, formats."""

import ast
import re
from collections.abc import Sequence

from typing_extensions import override

from karez.migration.findings import Edit, Finding, Kind, Target
from karez.migration.rules.device_names import DEVICE, compared_name, compared_prefix, says_device
from karez.migration.rules.expressions import keyword, names_in, string
from karez.migration.rules.kernel_guards import kernel_question
from karez.migration.rules.rule import AnyRule, Rule
from karez.migration.rules.site import SHIM, Site

_AUTOCAST = re.compile(r"autocast|GradScaler|custom_(f|b)wd")


class AutocastDevice(Rule[ast.Constant]):
    """Autocast or GradScaler for CUDA: it has no effect without a device, and must have none."""

    nodes = (ast.Constant,)

    @override
    def find(self, node: ast.Constant, site: Site) -> Finding | None:
        call = next((n for n in site.source.above(node) if not isinstance(n, ast.keyword)), None)
        if string(node) != "cuda" or not isinstance(call, ast.Call):
            return None
        name = site.source.dotted(call.func) or ""
        if not name.startswith("torch.") or not _AUTOCAST.search(name):
            return None
        return self.finding(
            node,
            site,
            [site.swap(node, site.accelerator())],
            needs=site.needs("accelerator"),
            forms=((Target.AGNOSTIC, f"{SHIM}.accelerator"), (Target.NPU, '"npu"')),
        )


class DeviceWithIndex(Rule[ast.Call]):
    """torch.device gets a type and an index; a machine without devices has no cpu:1."""

    nodes = (ast.Call,)

    @override
    def find(self, node: ast.Call, site: Site) -> Finding | None:
        if site.source.dotted(node.func) != "torch.device" or _first_string(node) != "cuda":
            return None
        index = keyword(node, "index") or (node.args[1] if len(node.args) > 1 else None)
        if index is None:
            return None
        site.claim(node.args[0] if node.args else node.keywords[0].value)
        if site.is_npu:
            first = node.args[0] if node.args else node.keywords[0].value
            return self.finding(node, site, [site.swap(first, '"npu"')], needs=site.needs())
        edit = site.swap(node, f"{site.shim}.device({site.source.code(index)})")
        site.claim_all(node)
        return self.finding(
            node,
            site,
            [edit],
            needs=site.needs("device"),
            forms=((Target.AGNOSTIC, f"{SHIM}.device(index)"),),
        )


class DeviceComparison(Rule[ast.Compare]):
    """A device's type is compared; on a CPU the result must stay false."""

    nodes = (ast.Compare,)

    @override
    def find(self, node: ast.Compare, site: Site) -> Finding | None:
        sides = [node.left, *node.comparators]
        literals = _device_literals(sides)
        if not literals:
            return None
        others = [side for side in sides if side not in literals]
        site.claim(*literals)
        if not any(says_device(name) for side in others for name in names_in(side)):
            others_code = " ".join(site.source.code(side) for side in others)
            return self.finding(
                node,
                site,
                kind=Kind.ASSISTED,
                question=f"Does {others_code[:60]} name a device or an implementation?",
            )
        edits = [site.swap(literal, compared_name(literal, site)) for literal in literals]
        kind, question = kernel_question(node, site)
        return self.finding(
            node,
            site,
            edits,
            needs=site.needs("accelerator"),
            kind=kind,
            question=question,
            forms=((Target.AGNOSTIC, f"{SHIM}.accelerator"), (Target.NPU, '"npu"')),
        )


class DevicePrefix(Rule[ast.Call]):
    """A device's name is split or tested by its prefix."""

    nodes = (ast.Call,)

    @override
    def find(self, node: ast.Call, site: Site) -> Finding | None:
        if not (isinstance(node.func, ast.Attribute) and node.args):
            return None
        if node.func.attr not in ("startswith", "find", "count", "replace", "strip", "split"):
            return None
        text = string(node.args[0])
        if text not in ("cuda", "cuda:"):
            return None
        site.claim(node.args[0])
        new = site.accelerator() if text == "cuda" else compared_prefix(site)
        return self.finding(
            node, site, [site.swap(node.args[0], new)], needs=site.needs("accelerator")
        )


class DeviceFormat(Rule[ast.AST]):
    """A device's name is built from "cuda:" and an index."""

    nodes = (ast.JoinedStr, ast.Constant)

    @override
    def find(self, node: ast.AST, site: Site) -> Finding | None:
        if isinstance(node, ast.JoinedStr):
            return self._in_fstring(node, site)
        text = string(node) or ""
        parent = site.source.parent(node)
        is_part = isinstance(parent, ast.BinOp) or (
            isinstance(parent, ast.Attribute) and parent.attr == "format"
        )
        if not is_part or not re.match(r"cuda:(%[ds]|\{\d*\}|\Z)", text):
            return None
        quote = repr(text[4:])
        start = '"npu' + text[4:] + '"' if site.is_npu else f"({site.shim}.type + {quote})"
        return self.finding(node, site, [site.swap(node, start)], needs=site.needs("type"))

    def _in_fstring(self, node: ast.JoinedStr, site: Site) -> Finding | None:
        first = string(node.values[0]) if node.values else None
        if first is None or not first.startswith("cuda:") or len(node.values) < 2:
            return None
        code = site.source.code(node)
        opening = re.match(r"""[fFrR]{1,2}('''|\"\"\"|'|\")cuda:""", code)
        if opening is None:
            return None
        at = site.source.start(node) + opening.end() - len("cuda:")
        new = "npu" if site.is_npu else "{" + f"{site.shim}.type" + "}"
        site.claim(*node.values)
        edit = Edit(start=at, end=at + len("cuda"), text=new)
        return self.finding(node, site, [edit], needs=site.needs("type"))


def _device_literals(sides: Sequence[ast.expr]) -> list[ast.expr]:
    """The device strings among expressions, and in the tuples, lists and sets among them."""
    collections = [side for side in sides if isinstance(side, (ast.Tuple, ast.List, ast.Set))]
    items = [item for collection in collections for item in collection.elts]
    return [literal for literal in (*sides, *items) if DEVICE.match(string(literal) or "")]


def _first_string(call: ast.Call) -> str | None:
    """The first argument, or `type=`, if it is a string."""
    return string(call.args[0]) if call.args else string(keyword(call, "type"))


RULES: tuple[AnyRule, ...] = (
    AutocastDevice,
    DeviceWithIndex,
    DeviceComparison,
    DevicePrefix,
    DeviceFormat,
)
