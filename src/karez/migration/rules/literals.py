"""Strings that name a device: "cuda", "cuda:0", f"cuda:{rank}", in all the places they stand in."""

import ast
import re

from typing_extensions import override

from karez.migration.findings import Edit, Finding, Kind, Target
from karez.migration.rules.base import SHIM, AnyRule, Rule, Site, keyword, names_in, string
from karez.migration.rules.kernel_guards import asked

_DEVICE = re.compile(r"cuda(?::(\d+))?\Z")
_DEVICE_CALLS = frozenset(
    (
        "torch.device",
        "torch.autocast",
        "torch.amp.autocast",
        "torch.amp.GradScaler",
        "torch.Generator",
        "torch.set_default_device",
        "torch.get_device_module",
        "torch.amp.autocast_mode.autocast",
        "torch.amp.is_autocast_available",
        "torch.is_autocast_enabled",
        "torch.get_autocast_dtype",
        "torch.set_autocast_enabled",
        "torch.amp.custom_fwd",
        "torch.amp.custom_bwd",
        "torch.load",
        "torch.jit.load",
        "torch.distributed.device_mesh.init_device_mesh",
        "torch.distributed.init_device_mesh",
        "torch.distributed.device_mesh.DeviceMesh",
        "torch.Stream",
        "torch.Event",
        "torch.utils.checkpoint.DefaultDeviceType.set_device_type",
    )
)
_AUTOCAST = re.compile(r"autocast|GradScaler|custom_(f|b)wd")
_METHODS = frozenset(("to", "to_empty", "type_as", "set_device"))
_WORDS = re.compile(
    r"(^|_)(dev|device|devices|accelerator|map_location|loc|gpu|placement)s?(_|$|\d)"
)
_FORMS = ((Target.AGNOSTIC, f"{SHIM}.type"), (Target.NPU, '"npu"'))


class DeviceLiteral(Rule[ast.AST]):
    """A device is named by a string where torch expects a device."""

    nodes = (ast.Constant,)

    @override
    def find(self, node: ast.AST, site: Site) -> Finding | None:
        named = _DEVICE.match(string(node) or "")
        if named is None or node in site.source.docs or not is_device_place(node, site):
            return None
        return self.finding(
            node,
            site,
            [site.swap(node, _named(named.group(1), site))],
            needs=site.needs("name" if named.group(1) else "type"),
            forms=_FORMS,
        )


class AutocastDevice(Rule[ast.Constant]):
    """Autocast or a GradScaler for CUDA: without a device it did nothing, and still must not."""

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


class DeviceVariable(DeviceLiteral):
    """A variable, parameter or setting whose name says device is given one by a string."""

    @override
    def find(self, node: ast.AST, site: Site) -> Finding | None:
        named = _DEVICE.match(string(node) or "")
        if named is None or node in site.source.docs:
            return None
        holder = holder_of(node, site)
        if holder is None or not says_device(holder):
            return None
        return self.finding(
            node,
            site,
            [site.swap(node, _named(named.group(1), site))],
            needs=site.needs("name" if named.group(1) else "type"),
            forms=_FORMS,
        )


class DeviceWithIndex(Rule[ast.Call]):
    """torch.device with a type and an index: a machine without devices has no cpu:1."""

    nodes = (ast.Call,)

    @override
    def find(self, node: ast.Call, site: Site) -> Finding | None:
        if site.source.dotted(node.func) != "torch.device" or string_of_first(node) != "cuda":
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
    """A device's type is compared; on a CPU the answer must stay no."""

    nodes = (ast.Compare,)

    @override
    def find(self, node: ast.Compare, site: Site) -> Finding | None:
        sides = [node.left, *node.comparators]
        literals = [side for side in sides if _DEVICE.match(string(side) or "")]
        literals += [
            item
            for side in sides
            if isinstance(side, (ast.Tuple, ast.List, ast.Set))
            for item in side.elts
            if _DEVICE.match(string(item) or "")
        ]
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
                question=f"Does {others_code[:60]} name a device, or a way of computing?",
            )
        edits = [site.swap(literal, _compared(literal, site)) for literal in literals]
        kind, question = asked(node, site)
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
    """A device's name is taken apart by its beginning."""

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
        new = site.accelerator() if text == "cuda" else _with_colon(site)
        return self.finding(
            node, site, [site.swap(node.args[0], new)], needs=site.needs("accelerator")
        )


class DeviceFormat(Rule[ast.AST]):
    """A device's name is put together from "cuda:" and an index."""

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


class DeviceChoices(Rule[ast.AST]):
    """The choices of an option, or a list of devices that are known, name "cuda"."""

    nodes = (ast.Constant,)

    @override
    def find(self, node: ast.AST, site: Site) -> Finding | None:
        if string(node) != "cuda":
            return None
        around = site.source.parent(node)
        if not isinstance(around, (ast.List, ast.Tuple, ast.Set)):
            return None
        outer = site.source.parent(around)
        known = {string(item) for item in around.elts}
        if known & {"npu", "xpu"}:
            return self.finding(node, site, kind=Kind.KEEP)
        if "cpu" not in known and not (isinstance(outer, ast.keyword) and outer.arg == "choices"):
            return None
        return self.finding(
            node, site, [site.swap(node, site.accelerator())], needs=site.needs("accelerator")
        )


class DeviceKey(Rule[ast.AST]):
    """A table is looked up by a device's type."""

    nodes = (ast.Constant,)
    kind = Kind.ASSISTED
    question = "What does the table hold for each device, and what belongs there for an NPU?"
    hours = 0.25

    @override
    def find(self, node: ast.AST, site: Site) -> Finding | None:
        if string(node) != "cuda":
            return None
        parent = site.source.parent(node)
        is_key = isinstance(parent, ast.Dict) and node in parent.keys
        is_index = isinstance(parent, ast.Subscript) and parent.slice is node
        return self.finding(node, site) if is_key or is_index else None


class DeviceMap(Rule[ast.AST]):
    """A table of devices: where map_location takes it, on a CPU it must find nothing."""

    nodes = (ast.Constant,)
    question = "Is it a map as torch.load takes it? Then its keys and values change together."

    @override
    def find(self, node: ast.AST, site: Site) -> Finding | None:
        table = site.source.parent(node)
        named = _DEVICE.match(string(node) or "")
        if named is None or not isinstance(table, ast.Dict) or node not in table.keys:
            return None
        value = table.values[table.keys.index(node)]
        first = value.values[0] if isinstance(value, ast.JoinedStr) and value.values else value
        text = string(first.left if isinstance(first, ast.BinOp) else first) or ""
        if not (text == "cpu" or text.startswith("cuda:")):
            return None
        parent = site.source.parent(table)
        if not (isinstance(parent, ast.keyword) and parent.arg == "map_location"):
            site.claim_all(value)
            return self.finding(node, site, kind=Kind.ASSISTED)
        edits = [site.swap(node, _compared(node, site))]
        index = _DEVICE.match(string(value) or "")
        if index is not None:
            site.claim(value)
            edits.append(site.swap(value, _named(index.group(1), site)))
        needs = ("accelerator", "name") if index else ("accelerator",)
        return self.finding(node, site, edits, needs=site.needs(*needs))


class CudaString(Rule[ast.AST]):
    """A string "cuda" whose meaning does not follow from where it stands."""

    nodes = (ast.Constant,)
    kind = Kind.ASSISTED
    question = "Does it name the device, or a way of computing that only CUDA has?"
    hours = 0.1

    @override
    def find(self, node: ast.AST, site: Site) -> Finding | None:
        if node in site.source.docs or not _DEVICE.match(string(node) or ""):
            return None
        edit = site.swap(node, _named((string(node) or "").partition(":")[2] or None, site))
        return self.finding(node, site, [edit], needs=site.needs("type", "name"), forms=_FORMS)


RULES: tuple[AnyRule, ...] = (
    AutocastDevice,
    DeviceWithIndex,
    DeviceComparison,
    DevicePrefix,
    DeviceFormat,
    DeviceLiteral,
    DeviceChoices,
    DeviceVariable,
    DeviceMap,
    DeviceKey,
    CudaString,
)


def says_device(name: str) -> bool:
    """Whether a name is that of a device."""
    return bool(_WORDS.search(re.sub(r"(?<=[a-z])(?=[A-Z])", "_", name).lower()))


def string_of_first(call: ast.Call) -> str | None:
    """The first argument, by place or as `type=`, where it is a string."""
    return string(call.args[0]) if call.args else string(keyword(call, "type"))


def is_device_place(node: ast.AST, site: Site) -> bool:
    """Whether torch takes a device where a node stands."""
    parent = site.source.parent(node)
    while isinstance(parent, ast.IfExp) and node is not parent.test:
        node, parent = parent, site.source.parent(parent)
    if isinstance(parent, ast.keyword):
        return says_device(parent.arg or "")
    if not isinstance(parent, ast.Call) or node not in parent.args:
        return False
    name = site.source.dotted(parent.func) or ""
    is_method = isinstance(parent.func, ast.Attribute) and parent.func.attr in _METHODS
    return name in _DEVICE_CALLS or is_method or says_device(name.rpartition(".")[2])


def holder_of(node: ast.AST, site: Site) -> str | None:  # noqa: C901 - one place each
    """The name of the variable, parameter, option or key that gets a value."""
    for around in site.source.above(node):
        match around:
            case ast.IfExp() | ast.BoolOp() | ast.List() | ast.Tuple() | ast.Set():
                node = around
            case ast.Assign(targets=[target]) | ast.AnnAssign(target=target):
                return _last_name(target)
            case ast.NamedExpr(target=target):
                return target.id
            case ast.keyword(arg=arg):
                return _option(around, site) or arg
            case ast.arguments():
                return _parameter(around, node)
            case ast.Dict():
                return string(_key_of(around, node))
            case ast.Return():
                return _function_name(around, site)
            case ast.Call(func=ast.Attribute(attr="get" | "setdefault" | "pop"), args=[key, *_]):
                return string(key)
            case ast.Call() if node in around.args:
                return _option_name(around, node)
            case _:
                return None
    return None


def _last_name(target: ast.AST) -> str | None:
    if isinstance(target, ast.Attribute):
        return target.attr
    if isinstance(target, ast.Subscript):
        return string(target.slice)
    return target.id if isinstance(target, ast.Name) else None


def _option(word: ast.keyword, site: Site) -> str | None:
    """The option's name, where a keyword belongs to add_argument and its like."""
    call = site.source.parent(word)
    if isinstance(call, ast.Call) and word.arg in ("default", "choices", "const"):
        return _option_name(call)
    return None


def _option_name(call: ast.Call, value: ast.AST | None = None) -> str | None:
    names = [text for text in map(string, (a for a in call.args if a is not value)) if text]
    longest = max((name for name in names if name.startswith("-")), key=len, default=None)
    found = longest or (names[0] if names else None)
    return found.strip("-").replace("-", "_") if found else None


def _parameter(args: ast.arguments, default: ast.AST) -> str | None:
    plain = [*args.posonlyargs, *args.args]
    for arg, value in zip(plain[len(plain) - len(args.defaults) :], args.defaults, strict=True):
        if value is default:
            return arg.arg
    for arg, other in zip(args.kwonlyargs, args.kw_defaults, strict=True):
        if other is default:
            return arg.arg
    return None


def _key_of(table: ast.Dict, value: ast.AST) -> ast.AST | None:
    return next((k for k, v in zip(table.keys, table.values, strict=True) if v is value), None)


def _function_name(node: ast.AST, site: Site) -> str | None:
    for around in site.source.above(node):
        if isinstance(around, (ast.FunctionDef, ast.AsyncFunctionDef)):
            return around.name
    return None


def _named(index: str | None, site: Site) -> str:
    if site.is_npu:
        return f'"npu:{index}"' if index else '"npu"'
    return f"{site.shim}.name({index})" if index else f"{site.shim}.type"


def _compared(literal: ast.AST, site: Site) -> str:
    index = (string(literal) or "").partition(":")[2]
    if site.is_npu:
        return f'"npu:{index}"' if index else '"npu"'
    return f'{site.accelerator()} + ":{index}"' if index else site.accelerator()


def _with_colon(site: Site) -> str:
    return '"npu:"' if site.is_npu else f'{site.accelerator()} + ":"'
