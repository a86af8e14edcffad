"""Rules for the old tensor types of torch.cuda, such as torch.cuda.FloatTensor."""

import ast
import re

from typing_extensions import override

from karez.migration.findings import Edit, Finding, Kind
from karez.migration.rules.expressions import string
from karez.migration.rules.rule import AnyRule, Rule
from karez.migration.rules.site import Site

TYPES = {
    "FloatTensor": "float32",
    "HalfTensor": "float16",
    "BFloat16Tensor": "bfloat16",
    "DoubleTensor": "float64",
    "LongTensor": "int64",
    "IntTensor": "int32",
    "ShortTensor": "int16",
    "CharTensor": "int8",
    "ByteTensor": "uint8",
    "BoolTensor": "bool",
}
_TYPE_NAME = re.compile(r"torch\.cuda\.(\w+Tensor)\Z")


class DefaultTensorType(Rule[ast.Call]):
    """torch.set_default_tensor_type with a type of torch.cuda creates every new tensor on CUDA."""

    nodes = (ast.Call,)

    @override
    def find(self, node: ast.Call, site: Site) -> Finding | None:
        if site.source.dotted(node.func) != "torch.set_default_tensor_type" or not node.args:
            return None
        value = node.args[0]
        named = _TYPE_NAME.match(string(value) or site.source.dotted(value) or "")
        if named is None or named.group(1) not in TYPES:
            return None
        site.claim_all(node)
        dtype = f"{site.torch(node.func)}.{TYPES[named.group(1)]}"
        if site.is_npu:
            return self.finding(
                node,
                site,
                kind=Kind.ASSISTED,
                question=(
                    f'Write torch.set_default_device("npu") and torch.set_default_dtype({dtype}).'
                ),
            )
        edit = site.swap(node, f"{site.shim}.set_default_tensor_type({dtype})")
        return self.finding(node, site, [edit], needs=site.needs("set_default_tensor_type"))


class TensorTypeMethod(Rule[ast.Call]):
    """`x.type(torch.cuda.FloatTensor)` moves and converts a tensor in one call."""

    nodes = (ast.Call,)

    @override
    def find(self, node: ast.Call, site: Site) -> Finding | None:
        func = node.func
        if not isinstance(func, ast.Attribute) or func.attr != "type" or len(node.args) != 1:
            return None
        value = node.args[0]
        named = _TYPE_NAME.match(string(value) or site.source.dotted(value) or "")
        if named is None or named.group(1) not in TYPES:
            return None
        site.claim_all(value)
        end = site.source.end(func)
        new = f"{site.kind()}, {site.torch(value)}.{TYPES[named.group(1)]}"
        return self.finding(
            node,
            site,
            [Edit(start=end - len("type"), end=end, text="to"), site.swap(value, new)],
            needs=site.needs("type"),
        )


class TensorTypeCheck(Rule[ast.Call]):
    """isinstance checks a tensor for a type of torch.cuda."""

    nodes = (ast.Call,)
    kind = Kind.ASSISTED
    question = "Check x.device.type and x.dtype instead of the old tensor types."
    hours = 0.1

    @override
    def find(self, node: ast.Call, site: Site) -> Finding | None:
        is_check = isinstance(node.func, ast.Name) and node.func.id in ("isinstance", "issubclass")
        if not is_check:
            return None
        types = [n for a in node.args[1:] for n in ast.walk(a) if isinstance(n, ast.Attribute)]
        cuda = [n for n in types if _TYPE_NAME.match(site.source.dotted(n) or "")]
        if not cuda:
            return None
        for name in cuda:
            site.claim_all(name)
        return self.finding(node, site)


class TensorTypeString(Rule[ast.AST]):
    """A string names a tensor type of torch.cuda."""

    nodes = (ast.Constant,)
    kind = Kind.ASSISTED
    question = "Is the type compared or created? Use x.device.type and x.dtype on every device."
    hours = 0.1

    @override
    def find(self, node: ast.AST, site: Site) -> Finding | None:
        text = string(node) or ""
        return self.finding(node, site) if _TYPE_NAME.match(text) else None


RULES: tuple[AnyRule, ...] = (
    DefaultTensorType,
    TensorTypeMethod,
    TensorTypeCheck,
    TensorTypeString,
)
