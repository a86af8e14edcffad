"""Rules for the state of autocast, which torch keeps for each type of device."""

import ast

from typing_extensions import override

from karez.migration.findings import Edit, Finding
from karez.migration.rules.rule import AnyRule, Rule
from karez.migration.rules.site import Site

_PLAIN = {
    # name: the name that takes a device, and the number of arguments without one
    "torch.get_autocast_gpu_dtype": ("get_autocast_dtype", 0),
    "torch.set_autocast_gpu_dtype": ("set_autocast_dtype", 1),
    "torch.is_autocast_enabled": ("is_autocast_enabled", 0),
    "torch.set_autocast_enabled": ("set_autocast_enabled", 1),
}


class AutocastState(Rule[ast.Call]):
    """The state of autocast is asked for without a device, which means CUDA."""

    nodes = (ast.Call,)

    @override
    def find(self, node: ast.Call, site: Site) -> Finding | None:
        found = _PLAIN.get(site.source.dotted(node.func) or "")
        if found is None or len(node.args) != found[1] or node.keywords:
            return None
        name = found[0]
        site.claim_all(node.func)
        if not site.is_npu:
            edit = site.swap(node.func, f"{site.shim}.{name}")
            return self.finding(node, site, [edit], needs=site.needs(name))
        at = site.source.text.index("(", site.source.end(node.func)) + 1
        edits = [
            site.swap(node.func, f"{site.torch(node.func)}.{name}"),
            Edit(start=at, end=at, text='"npu", ' if node.args else '"npu"'),
        ]
        return self.finding(node, site, edits, needs=site.needs())


RULES: tuple[AnyRule, ...] = (AutocastState,)
