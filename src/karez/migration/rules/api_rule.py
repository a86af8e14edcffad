"""A rule for names of torch.cuda that have a counterpart elsewhere."""

import ast

from typing_extensions import override

from karez.migration.findings import Finding, Kind, Target
from karez.migration.rules.rule import Rule
from karez.migration.rules.site import SHIM, Site


class Api(Rule[ast.AST]):
    """Base of rules for names of torch.cuda that have a counterpart in another module."""

    nodes = (ast.Attribute, ast.Name, ast.ImportFrom)
    names: tuple[str, ...] = ()
    """Full names, such as torch.cuda.synchronize."""
    agnostic: str = ""
    """The name in the generated module or, with a dot, in torch; empty: no counterpart."""
    npu: str = ""
    """Full name for the target npu; empty: no counterpart."""

    @override
    def find(self, node: ast.AST, site: Site) -> Finding | None:
        if isinstance(node, ast.ImportFrom) or _is_inner(node, site):
            return None
        name = site.source.dotted(node)
        if name not in self.names or _is_imported_name(node, name):
            return None
        site.claim_all(node)
        new = self.new_name(site)
        if new.startswith("torch."):
            new = site.torch(node) + new.removeprefix("torch")
        if not new or self.kind == Kind.MANUAL:
            return self.finding(node, site, api=name, forms=self.forms())
        needs = site.needs(*(() if "." in self.agnostic else (self.agnostic,)))
        return self.finding(
            node, site, [site.swap(node, new)], needs=needs, api=name, forms=self.forms()
        )

    def new_name(self, site: Site) -> str:
        """Return the name that replaces the old one; empty: no counterpart."""
        if site.is_npu:
            return self.npu
        if "." in self.agnostic or not self.agnostic:
            return self.agnostic
        return f"{site.shim}.{self.agnostic}"

    @classmethod
    def forms(cls) -> tuple[tuple[Target, str], ...]:
        """Return the new name for each target, for reports."""
        shim = cls.agnostic if "." in cls.agnostic else f"{SHIM}.{cls.agnostic}"
        agnostic = [(Target.AGNOSTIC, shim)] if cls.agnostic else []
        return tuple(agnostic + ([(Target.NPU, cls.npu)] if cls.npu else []))


def _is_inner(node: ast.AST, site: Site) -> bool:
    """Whether a node is only the beginning of a longer dotted name."""
    return (
        isinstance(site.source.parent(node), ast.Attribute)
        and site.source.dotted(site.source.parents[node]) is not None
    )


def _is_imported_name(node: ast.AST, name: str) -> bool:
    """Whether a name was imported by itself: then only the import is rewritten."""
    return isinstance(node, ast.Name) and name.count(".") > 1
