"""Rules for imports of torch.cuda and its parts; the names that an import binds stay the same."""

import ast
from collections.abc import Mapping

from typing_extensions import override

from karez.migration.findings import Edit, Finding, Kind
from karez.migration.rules.api_rule import Api
from karez.migration.rules.rule import AnyRule, N, Rule
from karez.migration.rules.site import Site


class ImportRule(Rule[N]):
    """Base of rules for imports, which need the rules for the imported names."""

    def __init__(self, apis: Mapping[str, AnyRule]) -> None:
        """Keep `apis`: the rules for names of torch.cuda, by full name."""
        self._apis = apis


class CudaImport(ImportRule[ast.Import]):
    """torch.cuda is imported as a module; each use of the module is rewritten by itself."""

    nodes = (ast.Import,)

    @override
    def find(self, node: ast.Import, site: Site) -> Finding | None:
        cuda = [alias for alias in node.names if is_cuda(alias.name)]
        if not cuda:
            return None
        named = {alias.asname: alias.name for alias in cuda if alias.asname}
        if any(_is_needed(name, full, site, self._apis) for name, full in named.items()):
            return self.finding(node, site, kind=Kind.ASSISTED, question=_USES)
        rest = [alias for alias in node.names if alias not in cuda]
        parts = [_spelled(alias) for alias in rest]
        if not all(alias.asname for alias in cuda) or not _is_bound_above(node, site):
            parts.insert(0, "torch")
        text = f"import {', '.join(dict.fromkeys(parts))}" if parts else "pass"
        return self.finding(node, site, [site.swap(node, text)])


class CudaFromImport(ImportRule[ast.ImportFrom]):
    """Names are imported from torch.cuda; the same names are imported from elsewhere instead."""

    nodes = (ast.ImportFrom,)

    @override
    def find(self, node: ast.ImportFrom, site: Site) -> Finding | None:
        if node.level or not node.module:
            return None
        full = {alias: f"{node.module}.{alias.name}" for alias in node.names}
        cuda = [alias for alias, name in full.items() if is_cuda(name)]
        if not cuda:
            return None
        lines: dict[str, list[str]] = {}
        rest = [alias for alias in node.names if alias not in cuda]
        if rest:
            lines[node.module] = [_spelled(alias) for alias in rest]
        needs: set[str] = set()
        for alias in cuda:
            question = self._question(node, alias, site)
            if question is not None:
                return question
            rule = self._apis.get(full[alias])
            if rule is None:
                continue  # a part such as amp: each use of the part is rewritten by itself
            module, name = _new_home(rule, site)
            local = alias.asname or alias.name
            lines.setdefault(module, []).append(name if name == local else f"{name} as {local}")
            if not site.is_npu and module == site.module:
                needs.add(name)
        return self._write(node, site, lines, needs)

    def _question(self, node: ast.ImportFrom, alias: ast.alias, site: Site) -> Finding | None:
        """The finding for a name that cannot be rewritten without a person; None: it can."""
        if alias.name == "*":
            question = "Import the names that are used: the star does not tell which these are."
            return self.finding(node, site, kind=Kind.MANUAL, question=question)
        full = f"{node.module}.{alias.name}"
        rule = self._apis.get(full)
        if rule is None:
            if not _is_needed(alias.asname or alias.name, full, site, self._apis):
                return None
            return self.finding(node, site, kind=Kind.ASSISTED, question=_USES)
        if rule.kind == Kind.AUTOMATIC and _new_name(rule, site):
            return None
        kind = rule.kind if rule.kind != Kind.AUTOMATIC else Kind.ASSISTED
        return self.finding(node, site, kind=kind, question=rule.question)

    def _write(
        self, node: ast.ImportFrom, site: Site, lines: dict[str, list[str]], needs: set[str]
    ) -> Finding:
        source = site.source
        start = source.start(node)
        needed = site.needs(*needs) if needs or site.is_npu else frozenset()
        names = [_spelled(alias) for alias in node.names]
        is_plain = not site.fallback or site.module not in lines
        if is_plain and len(lines) == 1 and next(iter(lines.values())) == names and node.module:
            at = source.text.index(node.module, start)  # the rest stays, with its comments
            edit = Edit(start=at, end=at + len(node.module), text=next(iter(lines)))
            return self.finding(node, site, [edit], needs=needed)
        indent = source.text[source.line_start(node.lineno) : start]
        parts = [_import_text(module, names, indent, site) for module, names in lines.items()]
        joint = f"\n{indent}" if not indent.strip() else "; "
        text = joint.join(parts)
        if not text:
            text = "pass" if _is_bound_above(node, site) else "import torch"
        return self.finding(node, site, [site.swap(node, text)], needs=needed)


def _import_text(module: str, names: list[str], indent: str, site: Site) -> str:
    listed = ", ".join(names)
    if module != site.module or not site.fallback or indent.strip():
        return f"from {module} import {listed}"
    return (
        f"try:\n{indent}    from {module} import {listed}\n{indent}except ImportError:\n"
        f"{indent}    from {site.fallback} import {listed}"
    )


_USES = "The module itself is used: torch.get_device_module() returns the module of any device."


def _is_needed(name: str, full: str, site: Site, apis: Mapping[str, AnyRule]) -> bool:
    """Whether a module is used by its name for anything but names that are rewritten."""
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
    """Whether an outer scope binds torch already."""
    scope = site.source.scope(node)
    return scope is not site.source.top and site.source.top.lookup("torch") == "torch"


RULES: tuple[AnyRule, ...] = (CudaImport, CudaFromImport)


def is_cuda(name: str) -> bool:
    """Whether a full name is torch.cuda or a name in it."""
    return name == "torch.cuda" or name.startswith("torch.cuda.")


def _spelled(alias: ast.alias) -> str:
    return f"{alias.name} as {alias.asname}" if alias.asname else alias.name


def _new_name(rule: AnyRule, site: Site) -> str:
    instance = rule()
    return instance.new_name(site) if isinstance(instance, Api) else ""


def _new_home(rule: AnyRule, site: Site) -> tuple[str, str]:
    """The module that a name is imported from now, and the name there."""
    module, _, name = _new_name(rule, site).rpartition(".")
    return (site.module if module == site.shim else module), name
