"""A rule for a library that is made for CUDA, by the names under which programs import it."""

import ast

from typing_extensions import override

from karez.migration.findings import Finding, Kind
from karez.migration.rules.rule import Rule
from karez.migration.rules.site import Site


class Library(Rule[ast.Import | ast.ImportFrom]):
    """Base of rules for libraries, by the names under which programs import them."""

    nodes = (ast.Import, ast.ImportFrom)
    kind = Kind.MANUAL
    hours = 8.0
    modules: tuple[str, ...] = ()

    @override
    def find(self, node: ast.Import | ast.ImportFrom, site: Site) -> Finding | None:
        if isinstance(node, ast.Import):
            names = [alias.name for alias in node.names]
        elif node.module and not node.level:
            names = [f"{node.module}.{alias.name}" for alias in node.names]
        else:
            return None
        if names[0].partition(".")[0] in site.own:
            return None
        if not any(name == m or name.startswith(f"{m}.") for name in names for m in self.modules):
            return None
        return self.finding(node, site)
