"""Rules for methods and attributes of tensors and modules that name CUDA."""

import ast
import re

from typing_extensions import override

from karez.migration.findings import Edit, Finding, Kind, Target
from karez.migration.rules.expressions import keyword, string
from karez.migration.rules.kernel_guards import kernel_question
from karez.migration.rules.rule import AnyRule, Rule
from karez.migration.rules.site import SHIM, Site

_BOTH = 2


class CudaByName(Rule[ast.Call]):
    """torch.cuda is looked up by name, as in getattr(torch, "cuda")."""

    nodes = (ast.Call,)
    kind = Kind.ASSISTED
    question = "torch.get_device_module() returns the module of any device."
    hours = 0.25

    @override
    def find(self, node: ast.Call, site: Site) -> Finding | None:
        func = node.func
        is_by_name = isinstance(func, ast.Name) and func.id in ("getattr", "hasattr")
        if not is_by_name or len(node.args) < _BOTH:
            return None
        owner, name = site.source.dotted(node.args[0]) or "", string(node.args[1]) or ""
        if owner == "torch" and name == "cuda":
            site.claim(node.args[1])
            return self.finding(node, site)
        if owner.startswith("torch.cuda"):
            site.claim_all(node)
            is_has = isinstance(func, ast.Name) and func.id == "hasattr"
            return self.finding(node, site, kind=Kind.KEEP if is_has else None)
        return None


class CudaMethod(Rule[ast.Call]):
    """`x.cuda()` moves to the current CUDA device; `x.to(...)` moves to any device."""

    nodes = (ast.Call,)

    @override
    def find(self, node: ast.Call, site: Site) -> Finding | None:
        func = node.func
        if not isinstance(func, ast.Attribute) or func.attr != "cuda":
            return None
        if site.source.dotted(func) is not None:
            return None  # a function of a module
        site.claim(func)
        question = _method_question(node, func, site)
        if question:
            return self.finding(node, site, kind=Kind.ASSISTED, question=question)
        edits = self._edits(node, func, site)
        if not site.is_npu and _is_storage(func.value, site):
            edits = _by_keyword(node, edits, site)
        where = next((a for a in node.args[:1] if string(a) is None), None)
        return self.finding(
            node,
            site,
            edits,
            needs=site.needs("type" if where is None else "device"),
            forms=((Target.AGNOSTIC, f"x.to({SHIM}.type)"), (Target.NPU, "x.npu()")),
        )

    def _edits(self, node: ast.Call, func: ast.Attribute, site: Site) -> list[Edit]:
        source = site.source
        name = Edit(start=source.end(func) - len("cuda"), end=source.end(func), text="to")
        if site.is_npu:
            edits = [Edit(start=name.start, end=name.end, text="npu")]
            return edits + [e for a in node.args[:1] for e in _npu_index(a, site)]
        word = next((k for k in node.keywords if k.arg == "device"), None)
        if word is not None:
            return [name, *self._where(word.value, site)]
        if node.args:
            edits = [name, *self._where(node.args[0], site)]
            if len(node.args) > 1:  # `to` takes non_blocking only by name
                at = source.start(node.args[1])
                edits.append(Edit(start=at, end=at, text="non_blocking="))
            return edits
        opening = source.text.index("(", source.end(func)) + 1
        comma = ", " if node.keywords else ""
        return [name, Edit(start=opening, end=opening, text=f"{site.shim}.type{comma}")]

    def _where(self, value: ast.expr, site: Site) -> list[Edit]:
        """Wrap the value that names a device; other rules rewrite what is inside the value."""
        if isinstance(value, ast.Constant) and value.value is None:
            return [site.swap(value, f"{site.shim}.type")]
        start, end = site.source.start(value), site.source.end(value)
        return [
            Edit(start=start, end=start, text=f"{site.shim}.device("),
            Edit(start=end, end=end, text=")"),
        ]


class DeviceIndex(Rule[ast.Call]):
    """A number as a device means CUDA; without a CUDA device the number is invalid."""

    nodes = (ast.Call,)

    @override
    def find(self, node: ast.Call, site: Site) -> Finding | None:
        value: ast.expr | None = None
        if isinstance(node.func, ast.Attribute) and node.func.attr == "to" and node.args:
            value = node.args[0]
        named = _index_name(value)
        if value is not None and named:
            return self._by_name(node, value, named, site)
        value = value if _is_index(value) else keyword(node, "device")
        if not _is_index(value) or value is None:
            return None
        if not (site.source.dotted(node.func) or "").startswith("torch."):
            return self.finding(
                node,
                site,
                kind=Kind.ASSISTED,
                question="Is this a call of torch? There a number is the index of an accelerator.",
            )
        if site.is_npu:
            return self.finding(node, site, [site.swap(value, f'"npu:{site.source.code(value)}"')])
        edit = site.swap(value, f"{site.shim}.device({site.source.code(value)})")
        return self.finding(node, site, [edit], needs=site.needs("device"))

    def _by_name(self, node: ast.Call, value: ast.expr, name: str, site: Site) -> Finding:
        """`x.to(rank)`: the name says that the value is a number; of `gpu`, it may be None."""
        is_rank = name.endswith("rank")
        edits = [
            Edit(start=at, end=at, text=text)
            for at, text in (
                (site.source.start(value), 'f"npu:{' if site.is_npu else f"{site.shim}.device("),
                (site.source.end(value), '}"' if site.is_npu else ")"),
            )
        ]
        question = "" if is_rank else "Is the value a number? A device, or None, may stay as it is."
        return self.finding(
            node,
            site,
            edits,
            kind=None if is_rank else Kind.ASSISTED,
            question=question,
            needs=site.needs("device"),
        )


class CudaMethodDefined(Rule[ast.FunctionDef]):
    """A class defines its own method `cuda`."""

    nodes = (ast.FunctionDef,)
    kind = Kind.ASSISTED
    question = "Does the class also define `to`? Then callers can use `to`."
    hours = 0.25

    @override
    def find(self, node: ast.FunctionDef, site: Site) -> Finding | None:
        parent = site.source.parent(node)
        if node.name != "cuda" or not isinstance(parent, ast.ClassDef):
            return None
        return self.finding(node, site)


class CudaMethodUncalled(Rule[ast.Attribute]):
    """The method `cuda` is passed on without a call."""

    nodes = (ast.Attribute,)
    kind = Kind.ASSISTED
    question = "What calls the method later? Pass a function that calls `.to` instead."
    hours = 0.1

    @override
    def find(self, node: ast.Attribute, site: Site) -> Finding | None:
        if node.attr != "cuda" or site.source.dotted(node) is not None:
            return None
        parent = site.source.parent(node)
        if isinstance(node.ctx, ast.Store) or isinstance(parent, ast.Attribute):
            return None  # a field of this name
        if isinstance(node.value, ast.Name) and re.search(
            r"arg|opt|cfg|conf|param|flag|self|hp", node.value.id, re.IGNORECASE
        ):
            return None
        is_test = isinstance(parent, (ast.If, ast.BoolOp, ast.UnaryOp, ast.Compare, ast.IfExp))
        return None if is_test else self.finding(node, site)


class IsCuda(Rule[ast.Attribute]):
    """`is_cuda` is false for every other accelerator."""

    nodes = (ast.Attribute,)

    @override
    def find(self, node: ast.Attribute, site: Site) -> Finding | None:
        if node.attr != "is_cuda" or isinstance(node.ctx, ast.Store):
            return None
        parent = site.source.parent(node)
        if isinstance(parent, ast.Call) and parent.func is node:
            return None  # a method of another class
        is_field = isinstance(node.value, ast.Name) and node.value.id in ("args", "opt", "cfg")
        if is_field or site.own_is_cuda:
            return self.finding(node, site, kind=Kind.KEEP)  # a field that has the name
        if "jit.script" in site.source.text:
            question = "TorchScript cannot call functions of other modules."
            return self.finding(node, site, kind=Kind.ASSISTED, question=question)
        kind, question = kernel_question(node, site)
        forms = ((Target.AGNOSTIC, f"{SHIM}.is_accelerated(x)"), (Target.NPU, "x.is_npu"))
        return self.finding(
            node,
            site,
            self._edits(node, site),
            needs=site.needs("is_accelerated"),
            kind=kind,
            question=question,
            forms=() if site.is_npu else forms,
        )

    def _edits(self, node: ast.Attribute, site: Site) -> list[Edit]:
        start, end = site.source.start(node), site.source.end(node)
        if site.is_npu:
            return [Edit(start=end - len("is_cuda"), end=end, text="is_npu")]
        return [
            Edit(start=start, end=start, text=f"{site.shim}.is_accelerated("),
            Edit(start=site.source.end(node.value), end=end, text=")"),
        ]


def _method_question(node: ast.Call, func: ast.Attribute, site: Site) -> str:
    """What a person has to answer before a call of `cuda` is rewritten; empty: nothing."""
    if _is_super(func.value):
        return "This class moves itself to CUDA: move the body to `_apply`, or to `to`."
    is_starred = any(isinstance(argument, ast.Starred) for argument in node.args)
    if is_starred or any(word.arg is None for word in node.keywords):
        return "Which device do the arguments name?"
    if site.own_cuda:
        return "A class in this file defines its own method `cuda`: does it also define `to`?"
    return ""


def _is_storage(value: ast.expr, site: Site) -> bool:
    """Whether a value is a storage, whose `to` takes the device by name only.

    That is the first parameter of a function for `map_location`, or what `storage()` returns.
    """
    if isinstance(value, ast.Call) and isinstance(value.func, ast.Attribute):
        return value.func.attr.endswith("storage")
    if not isinstance(value, ast.Name):
        return False
    for around in site.source.above(value):
        if isinstance(around, (ast.Lambda, ast.FunctionDef)):
            names = [arg.arg for arg in (*around.args.posonlyargs, *around.args.args)]
            return names[:1] == [value.id] and len(names) == _BOTH and _is_map(around, names, site)
    return "storage" in value.id


def _is_map(function: ast.Lambda | ast.FunctionDef, names: list[str], site: Site) -> bool:
    parent = site.source.parent(function)
    is_argument = isinstance(parent, ast.keyword) and parent.arg == "map_location"
    is_named_so = "storage" in names[0] or names[1].startswith("loc")
    return is_argument or is_named_so or (isinstance(parent, ast.Call) and function in parent.args)


def _by_keyword(node: ast.Call, edits: list[Edit], site: Site) -> list[Edit]:
    """Edits of a call of `to`, with the device as a keyword argument."""
    if any(word.arg == "device" for word in node.keywords):
        return edits
    at = site.source.text.index("(", site.source.end(node.func)) + 1
    if node.args:
        at = site.source.start(node.args[0])
    first = next((edit for edit in edits if edit.start == at), None)
    text, end = (first.text, first.end) if first is not None else ("", at)
    rest = [edit for edit in edits if edit is not first]
    return [*rest, Edit(start=at, end=end, text=f"device={text}")]


def _is_index(value: ast.expr | None) -> bool:
    return isinstance(value, ast.Constant) and type(value.value) is int


_INDEX_NAME = re.compile(
    r"(^|_)(local_rank|rank|gpu|gpu_id|gpu_idx|gpu_index|cuda_id|dev_id|device_id)\Z"
)


def _index_name(value: ast.expr | None) -> str:
    """The name of a value that holds the number of a device, such as `local_rank`."""
    name = value.attr if isinstance(value, ast.Attribute) else getattr(value, "id", "")
    return name if isinstance(name, str) and _INDEX_NAME.search(name) else ""


def _is_super(value: ast.expr) -> bool:
    return (
        isinstance(value, ast.Call)
        and isinstance(value.func, ast.Name)
        and value.func.id == "super"
    )


def _npu_index(value: ast.expr, site: Site) -> list[Edit]:
    text = string(value)
    if text is None or not text.startswith("cuda"):
        return []
    site.claim(value)
    return [site.swap(value, repr(text.replace("cuda", "npu")))]


RULES: tuple[AnyRule, ...] = (
    CudaByName,
    CudaMethod,
    DeviceIndex,
    CudaMethodDefined,
    CudaMethodUncalled,
    IsCuda,
)
