"""What no other rule claimed, so that nothing that names CUDA goes unlisted."""

import ast
import re

from typing_extensions import override

from karez.migration.findings import Finding, Kind
from karez.migration.rules.expressions import string
from karez.migration.rules.rule import AnyRule, Rule
from karez.migration.rules.site import Site

_WORD = re.compile(r"cuda|nccl", re.IGNORECASE)


class CudaOther(Rule[ast.AST]):
    """A name of torch.cuda that is in no table."""

    nodes = (ast.Attribute, ast.Name)
    kind = Kind.MANUAL
    question = "What does it do? torch.get_device_module() has most names for most devices."
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
            return None  # its import was reported
        site.claim_all(node)
        return self.finding(node, site, api=name)

    def _bare(self, node: ast.AST, site: Site, name: str) -> Finding | None:
        """torch.cuda handed on as a module."""
        if name != "torch.cuda" or isinstance(site.source.parent(node), ast.Attribute):
            return None
        site.claim_all(node)
        return self.finding(
            node,
            site,
            kind=Kind.ASSISTED,
            question="torch.get_device_module() is the module of whatever device there is.",
        )


class CudaPath(Rule[ast.Constant]):
    """A function of torch.cuda is named by a text, as tests do that put another in its place."""

    nodes = (ast.Constant,)
    kind = Kind.ASSISTED
    question = "The code asks torch.accelerator now: name that, or the generated module."
    hours = 0.1

    @override
    def find(self, node: ast.Constant, site: Site) -> Finding | None:
        text = string(node) or ""
        is_path = re.fullmatch(r"torch\.cuda(\.\w+)+", text) and not text.endswith("Tensor")
        return self.finding(node, site) if is_path and node not in site.source.docs else None


class MentionsCuda(Rule[ast.AST]):
    """A name or a text of the program's own that mentions CUDA; it works as it is."""

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
    """What a node itself says, without what is within it."""
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
