"""Imports of torch.cuda and its parts: rewritten whole, so that the names they bind stay."""

import ast
from collections.abc import Mapping

from typing_extensions import override

from karez.migration.findings import Edit, Finding, Kind
from karez.migration.rules.base import AnyRule, Api, Rule, Site


class CudaImport(Rule[ast.Import]):
    """torch.cuda is imported as a module; its uses are rewritten one by one."""

    nodes = (ast.Import,)

    def __init__(self, apis: Mapping[str, AnyRule]) -> None:
        """`apis` are the rules of torch.cuda's names, by full name."""
        self._apis = apis

    @override
    def find(self, node: ast.Import, site: Site) -> Finding | None:
        mine = [alias for alias in node.names if is_cuda(alias.name)]
        if not mine:
            return None
        named = {alias.asname: alias.name for alias in mine if alias.asname}
        if any(_is_needed(name, full, site, self._apis) for name, full in named.items()):
            return self.finding(node, site, kind=Kind.ASSISTED, question=_USES)
        rest = [alias for alias in node.names if alias not in mine]
        parts = [_spelled(alias) for alias in rest]
        if not all(alias.asname for alias in mine) or not _is_bound_above(node, site):
            parts.insert(0, "torch")
        text = f"import {', '.join(dict.fromkeys(parts))}" if parts else "pass"
        return self.finding(node, site, [site.swap(node, text)])


class CudaFromImport(Rule[ast.ImportFrom]):
    """Names of torch.cuda are imported by themselves; the same names come from elsewhere."""

    nodes = (ast.ImportFrom,)

    def __init__(self, apis: Mapping[str, AnyRule]) -> None:
        """`apis` are the rules of torch.cuda's names, by full name."""
        self._apis = apis

    @override
    def find(self, node: ast.ImportFrom, site: Site) -> Finding | None:
        if node.level or not node.module:
            return None
        full = {alias: f"{node.module}.{alias.name}" for alias in node.names}
        mine = [alias for alias, name in full.items() if is_cuda(name)]
        if not mine:
            return None
        if any(alias.name == "*" for alias in mine):
            return self.finding(
                node,
                site,
                kind=Kind.MANUAL,
                question="Import the names that are used; nobody can tell which these are.",
            )
        lines: dict[str, list[str]] = {}
        rest = [alias for alias in node.names if alias not in mine]
        if rest:
            lines[node.module] = [_spelled(alias) for alias in rest]
        needs: set[str] = set()
        for alias in mine:
            rule = self._apis.get(full[alias])
            own = alias.asname or alias.name
            if rule is None:
                if _is_needed(own, full[alias], site, self._apis):
                    return self.finding(node, site, kind=Kind.ASSISTED, question=_USES)
                continue  # a part such as amp: its uses are rewritten one by one
            new = _new_name(rule, site)
            if not new or rule.kind != Kind.AUTOMATIC:
                return self.finding(
                    node,
                    site,
                    kind=rule.kind if rule.kind != Kind.AUTOMATIC else Kind.ASSISTED,
                    question=rule.question,
                )
            module, _, name = new.rpartition(".")
            module = site.module if module == site.shim else module
            lines.setdefault(module, []).append(name if name == own else f"{name} as {own}")
            if not site.is_npu and module == site.module:
                needs.add(name)
        return self._write(node, site, lines, needs)

    def _write(
        self, node: ast.ImportFrom, site: Site, lines: dict[str, list[str]], needs: set[str]
    ) -> Finding:
        source = site.source
        start = source.start(node)
        needed = site.needs(*needs) if needs or site.is_npu else frozenset()
        names = [_spelled(alias) for alias in node.names]
        if len(lines) == 1 and next(iter(lines.values())) == names and node.module:
            at = source.text.index(node.module, start)  # the rest stays, with its comments
            edit = Edit(start=at, end=at + len(node.module), text=next(iter(lines)))
            return self.finding(node, site, [edit], needs=needed)
        indent = source.text[source.line_start(node.lineno) : start]
        parts = [f"from {module} import {', '.join(names)}" for module, names in lines.items()]
        joint = f"\n{indent}" if not indent.strip() else "; "
        text = joint.join(parts)
        if not text:
            text = "pass" if _is_bound_above(node, site) else "import torch"
        return self.finding(node, site, [site.swap(node, text)], needs=needed)


_USES = "The module itself is used: torch.get_device_module() is that of whatever device there is."


def _is_needed(name: str, full: str, site: Site, apis: Mapping[str, AnyRule]) -> bool:
    """Whether a name of a module is used otherwise than for names that are rewritten."""
    for node in site.source.nodes:
        if not (isinstance(node, ast.Name) and node.id == name and isinstance(node.ctx, ast.Load)):
            continue
        if site.source.dotted(node) != full:
            continue
        outer: ast.AST = node
        while isinstance(above := site.source.parent(outer), ast.Attribute):
            outer = above
            rule = apis.get(site.source.dotted(outer) or "")
            if rule is not None and rule.kind == Kind.AUTOMATIC:
                break
        else:
            return True
    return False


def _is_bound_above(node: ast.AST, site: Site) -> bool:
    """Whether torch is there already, from a scope further out."""
    scope = site.source.scope(node)
    return scope is not site.source.top and site.source.top.lookup("torch") == "torch"


RULES: tuple[AnyRule, ...] = (CudaImport, CudaFromImport)


def is_cuda(name: str) -> bool:
    """Whether a full name is torch.cuda's or a part of it."""
    return name == "torch.cuda" or name.startswith("torch.cuda.")


def _spelled(alias: ast.alias) -> str:
    return f"{alias.name} as {alias.asname}" if alias.asname else alias.name


def _new_name(rule: AnyRule, site: Site) -> str:
    made = rule()
    return made.new_name(site) if isinstance(made, Api) else ""
