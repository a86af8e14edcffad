"""A rule: a small class that finds one construct bound to CUDA and says how to replace it."""

import ast
import re
from abc import ABC, abstractmethod
from collections.abc import Sequence
from typing import Any, Generic, TypeVar

from karez.migration.findings import Edit, Finding, Kind, Target
from karez.migration.rules.site import Site

N = TypeVar("N", bound=ast.AST)
AnyRule = type["Rule[Any]"]
MAX_CODE = 100
_ASKS = (Kind.ASSISTED, Kind.MANUAL)


class Rule(ABC, Generic[N]):
    """Base of rules. The class name in words is the rule's id, the docstring is the reason."""

    nodes: tuple[type[ast.AST], ...] = ()
    """Kinds of nodes that the rule examines."""
    kind: Kind = Kind.AUTOMATIC
    question: str = ""
    hours: float = 0.02
    """Working hours for one finding; for an automatic finding, to review the change."""

    @classmethod
    def id(cls) -> str:
        """Return the rule's name in reports, such as `cuda-synchronize`."""
        return re.sub(r"(?<=[a-z0-9])(?=[A-Z])|(?<=[A-Z])(?=[A-Z][a-z])", "-", cls.__name__).lower()

    @classmethod
    def reason(cls) -> str:
        """Return why the construct matters, for reports."""
        return " ".join((cls.__doc__ or "").split())

    @abstractmethod
    def find(self, node: N, site: Site) -> Finding | None:
        """Return the finding at a node, or None."""

    def finding(  # noqa: PLR0913 - most findings need few of these fields
        self,
        node: ast.AST,
        site: Site,
        edits: Sequence[Edit] = (),
        *,
        kind: Kind | None = None,
        needs: frozenset[str] = frozenset(),
        question: str = "",
        forms: tuple[tuple[Target, str], ...] = (),
        api: str = "",
    ) -> Finding:
        """Build a finding of this rule at a node."""
        line, column = site.source.place(site.source.start(node))
        code = " ".join(site.source.code(node).split())
        what = kind or self.kind
        return Finding(
            rule=self.id(),
            kind=what,
            path=site.source.path,
            line=line,
            column=column,
            code=code if len(code) <= MAX_CODE else code[: MAX_CODE - 1] + "…",
            reason=self.reason(),
            question=question or (self.question if what in _ASKS else ""),
            forms=forms,
            hours=self.hours if what != Kind.KEEP else 0.0,
            api=api,
            edits=tuple(edits),
            needs=needs if edits else frozenset(),
        )
