"""Rules for a string that is a device's name, by the place where the string is written."""

import ast

from typing_extensions import override

from karez.migration.findings import Finding, Kind
from karez.migration.rules.device_names import (
    DEVICE,
    TYPE_FORMS,
    compared_name,
    device_name,
    says_device,
)
from karez.migration.rules.expressions import string
from karez.migration.rules.rule import AnyRule, Rule
from karez.migration.rules.site import Site
from karez.migration.rules.value_holders import holder_of

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
_REGISTERS = frozenset(("register_kernel", "register_autocast", "impl"))
_METHODS = frozenset(("to", "to_empty", "type_as", "set_device"))


class OperatorDevice(Rule[ast.AST]):
    """An implementation of an operator is registered for CUDA."""

    nodes = (ast.Constant,)
    kind = Kind.ASSISTED
    question = "Does the implementation run on an NPU? Then register it for that device, too."
    hours = 0.5

    @override
    def find(self, node: ast.AST, site: Site) -> Finding | None:
        call = next((n for n in site.source.above(node) if isinstance(n, ast.Call)), None)
        if DEVICE.match((string(node) or "").lower()) is None or call is None:
            return None
        name = site.source.dotted(call.func) or ""
        method = call.func.attr if isinstance(call.func, ast.Attribute) else ""
        if name.startswith("torch.library.") or method in _REGISTERS:
            return self.finding(node, site)
        return None


class DeviceLiteral(Rule[ast.AST]):
    """A string names the device where torch expects a device."""

    nodes = (ast.Constant,)

    @override
    def find(self, node: ast.AST, site: Site) -> Finding | None:
        named = DEVICE.match(string(node) or "")
        if named is None or node in site.source.docs or not is_device_place(node, site):
            return None
        return self.finding(
            node,
            site,
            [site.swap(node, device_name(named.group(1), site))],
            needs=site.needs("name" if named.group(1) else "type"),
            forms=TYPE_FORMS,
        )


class DeviceVariable(DeviceLiteral):
    """A string names the device in a variable, parameter or setting that holds a device."""

    @override
    def find(self, node: ast.AST, site: Site) -> Finding | None:
        named = DEVICE.match(string(node) or "")
        if named is None or node in site.source.docs:
            return None
        holder = holder_of(node, site)
        if holder is None or not says_device(holder):
            return None
        return self.finding(
            node,
            site,
            [site.swap(node, device_name(named.group(1), site))],
            needs=site.needs("name" if named.group(1) else "type"),
            forms=TYPE_FORMS,
        )


class DeviceChoices(Rule[ast.AST]):
    """The choices of an option or a list of supported devices contain "cuda"."""

    nodes = (ast.Constant,)

    @override
    def find(self, node: ast.AST, site: Site) -> Finding | None:
        if string(node) != "cuda":
            return None
        around = site.source.parent(node)
        if not isinstance(around, (ast.List, ast.Tuple, ast.Set)):
            return None
        outer = site.source.parent(around)
        devices = {string(item) for item in around.elts}
        if devices & {"npu", "xpu", "rocm", "hip"}:
            return self.finding(node, site, kind=Kind.KEEP)
        if "cpu" not in devices and not (isinstance(outer, ast.keyword) and outer.arg == "choices"):
            return None
        return self.finding(
            node, site, [site.swap(node, site.accelerator())], needs=site.needs("accelerator")
        )


class DeviceMap(Rule[ast.AST]):
    """A table maps devices to devices; as map_location it must match nothing on a CPU."""

    nodes = (ast.Constant,)
    question = "Is the table a map_location of torch.load? Then change keys and values together."

    @override
    def find(self, node: ast.AST, site: Site) -> Finding | None:
        table = site.source.parent(node)
        named = DEVICE.match(string(node) or "")
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
        edits = [site.swap(node, compared_name(node, site))]
        index = DEVICE.match(string(value) or "")
        if index is not None:
            site.claim(value)
            edits.append(site.swap(value, device_name(index.group(1), site)))
        needs = ("accelerator", "name") if index else ("accelerator",)
        return self.finding(node, site, edits, needs=site.needs(*needs))


class ModelDeviceMap(Rule[ast.keyword]):
    """A model's parts are put on devices by number or name, as in device_map={"": 0}."""

    nodes = (ast.keyword,)

    @override
    def find(self, node: ast.keyword, site: Site) -> Finding | None:
        if node.arg != "device_map" or not isinstance(node.value, ast.Dict):
            return None
        edits, needs = [], set[str]()
        for value in node.value.values:
            named = DEVICE.match(string(value) or "")
            is_number = isinstance(value, ast.Constant) and type(value.value) is int
            if named is None and not is_number:
                continue
            index = site.source.code(value) if is_number else named and named.group(1)
            site.claim(value)
            edits.append(site.swap(value, device_name(index, site)))
            needs.add("name" if index else "type")
        return self.finding(node, site, edits, needs=site.needs(*needs)) if edits else None


class DeviceKey(Rule[ast.AST]):
    """A table has the type of a device as key."""

    nodes = (ast.Constant,)
    kind = Kind.ASSISTED
    question = "What does the table contain for each device, and what is right for an NPU?"
    hours = 0.25

    @override
    def find(self, node: ast.AST, site: Site) -> Finding | None:
        if string(node) != "cuda":
            return None
        parent = site.source.parent(node)
        is_key = isinstance(parent, ast.Dict) and node in parent.keys
        is_index = isinstance(parent, ast.Subscript) and parent.slice is node
        return self.finding(node, site) if is_key or is_index else None


class CudaString(Rule[ast.AST]):
    """A string "cuda" whose meaning the code around it does not show."""

    nodes = (ast.Constant,)
    kind = Kind.ASSISTED
    question = "Does the string name the device, or an implementation that only CUDA has?"
    hours = 0.1

    @override
    def find(self, node: ast.AST, site: Site) -> Finding | None:
        if node in site.source.docs or not DEVICE.match(string(node) or ""):
            return None
        edit = site.swap(node, device_name((string(node) or "").partition(":")[2] or None, site))
        return self.finding(node, site, [edit], needs=site.needs("type", "name"), forms=TYPE_FORMS)


def is_device_place(node: ast.AST, site: Site) -> bool:
    """Whether torch expects a device at a node's place."""
    if _is_chosen_device(node, site):
        return True
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


def _is_chosen_device(node: ast.AST, site: Site) -> bool:
    """Whether a string is chosen where CUDA is available, and another device elsewhere."""
    outer, value = site.source.parent(node), node
    if isinstance(outer, ast.Assign) and value is outer.value:
        block = site.source.parent(outer)
        if not (isinstance(block, ast.If) and outer in block.body):
            return False
        target = ast.dump(outer.targets[0])
        others = [
            part.value
            for part in block.orelse
            if isinstance(part, ast.Assign) and ast.dump(part.targets[0]) == target
        ]
        return _asks_for_cuda(block.test, site) and any(_is_other(value) for value in others)
    if not (isinstance(outer, ast.IfExp) and value is outer.body):
        return False
    return _asks_for_cuda(outer.test, site) and _is_other(outer.orelse)


def _asks_for_cuda(test: ast.AST, site: Site) -> bool:
    return any(site.source.dotted(part) == "torch.cuda.is_available" for part in ast.walk(test))


def _is_other(value: ast.AST) -> bool:
    """Whether a value is another device, or a choice that ends with one."""
    while isinstance(value, ast.IfExp):
        value = value.orelse
    return string(value) in ("cpu", "mps", "xpu", "npu", "hpu", "mlu")


RULES: tuple[AnyRule, ...] = (
    OperatorDevice,
    DeviceLiteral,
    DeviceChoices,
    DeviceVariable,
    DeviceMap,
    ModelDeviceMap,
    DeviceKey,
    CudaString,
)
