"""Rules for what no other rule claims, so that a report lists every mention of CUDA."""

import ast
import re

from typing_extensions import override

from karez.migration.findings import Finding, Kind
from karez.migration.rules.expressions import string
from karez.migration.rules.rule import AnyRule, Rule
from karez.migration.rules.site import Site

_WORD = re.compile(r"cuda|nccl", re.IGNORECASE)


class CudaOther(Rule[ast.AST]):
    """A name of torch.cuda that no other rule knows."""

    nodes = (ast.Attribute, ast.Name)
    kind = Kind.MANUAL
    question = "What does the function do? torch.get_device_module() has most of these names."
    hours = 1.0

    @override
    def find(self, node: ast.AST, site: Site) -> Finding | None:
        name = site.source.dotted(node) or ""
        if not name.startswith("torch.cuda") or "." not in name[6:]:
            return self._bare(node, site, name)
        parent = site.source.parent(node)
        if isinstance(parent, ast.Attribute) and site.source.dotted(parent) is not None:
            return None
        if isinstance(node, ast.Name):
            return None  # the finding is at the import
        site.claim_all(node)
        return self.finding(node, site, api=name)

    def _bare(self, node: ast.AST, site: Site, name: str) -> Finding | None:
        """The finding for torch.cuda that is passed on as a module."""
        if name != "torch.cuda" or isinstance(site.source.parent(node), ast.Attribute):
            return None
        site.claim_all(node)
        return self.finding(
            node,
            site,
            kind=Kind.ASSISTED,
            question="torch.get_device_module() returns the module of any device.",
        )


class CudaPath(Rule[ast.Constant]):
    """A string names a function of torch.cuda, as in tests that replace the function."""

    nodes = (ast.Constant,)
    kind = Kind.ASSISTED
    question = "The code calls torch.accelerator now: name that, or the generated module."
    hours = 0.1

    @override
    def find(self, node: ast.Constant, site: Site) -> Finding | None:
        text = string(node) or ""
        is_path = re.fullmatch(r"torch\.cuda(\.\w+)+", text) and not text.endswith("Tensor")
        return self.finding(node, site) if is_path and node not in site.source.docs else None


class MentionsCuda(Rule[ast.AST]):
    """A name or a text in the program mentions CUDA and works unchanged."""

    nodes = (
        ast.Name,
        ast.Attribute,
        ast.Constant,
        ast.arg,
        ast.keyword,
        ast.FunctionDef,
        ast.AsyncFunctionDef,
        ast.ClassDef,
        ast.alias,
        ast.ImportFrom,
    )
    kind = Kind.KEEP

    @override
    def find(self, node: ast.AST, site: Site) -> Finding | None:
        text = _own_text(node)
        if text is None or not _WORD.search(text) or node in site.source.docs:
            return None
        if not hasattr(node, "lineno"):
            return None
        return self.finding(node, site)


RULES: tuple[AnyRule, ...] = (CudaOther, CudaPath, MentionsCuda)


def _own_text(node: ast.AST) -> str | None:
    """The text of a node itself, without the nodes inside the node."""
    match node:
        case ast.Name(id=text) | ast.Attribute(attr=text) | ast.arg(arg=text):
            return text
        case ast.FunctionDef(name=text) | ast.AsyncFunctionDef(name=text):
            return text
        case ast.ClassDef(name=text):
            return text
        case ast.alias(name=text, asname=own):
            return f"{text} {own or ''}"
        case ast.ImportFrom(module=text):
            return text
        case ast.keyword(arg=text):
            return text
    return string(node)
