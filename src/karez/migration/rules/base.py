"""What a rule is: a small class that knows one construct, and says what becomes of it."""

import ast
import re
from abc import ABC, abstractmethod
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from typing import Any, Generic, TypeVar

from typing_extensions import override

from karez.migration.findings import Edit, Finding, Kind, Target
from karez.migration.source import Source

N = TypeVar("N", bound=ast.AST)
AnyRule = type["Rule[Any]"]
SHIM = "_device"
MAX_CODE = 100


@dataclass(slots=True, kw_only=True)
class Site:
    """A file under a target: what rules are asked about, and what they have claimed."""

    source: Source
    target: Target = Target.AGNOSTIC
    shim: str = SHIM
    """What the generated module is called in this file."""
    claimed: set[ast.AST] = field(default_factory=set)
    module: str = SHIM
    """What names of the generated module are imported from in this file."""
    own: frozenset[str] = frozenset()
    """Top-level modules of the repository itself."""
    own_is_cuda: bool = False
    """Whether something of this file has a field `is_cuda` of its own."""
    own_cuda: bool = False
    """Whether a class of this file has a method `cuda` of its own."""

    @property
    def is_npu(self) -> bool:
        """Whether the target is torch.npu."""
        return self.target == Target.NPU

    def claim(self, *nodes: ast.AST) -> None:
        """Nobody else reports these."""
        self.claimed.update(nodes)

    def claim_all(self, node: ast.AST) -> None:
        """Nor anything within."""
        self.claimed.update(ast.walk(node))

    def kind(self) -> str:
        """The expression for the type of the device that computes."""
        return '"npu"' if self.is_npu else f"{self.shim}.type"

    def accelerator(self) -> str:
        """The expression to compare a device's type with: never "cpu"."""
        return '"npu"' if self.is_npu else f"{self.shim}.accelerator"

    def torch(self, node: ast.AST) -> str:
        """What torch is called where a name of it stands."""
        while isinstance(node, ast.Attribute):
            node = node.value
        if isinstance(node, ast.Name) and self.source.dotted(node) == "torch":
            return node.id
        return "torch"

    def needs(self, *names: str) -> frozenset[str]:
        """What an edit needs, by target."""
        return frozenset({"torch_npu"} if self.is_npu else names)

    def swap(self, node: ast.AST, text: str) -> Edit:
        """Replace a node; quotes are those that it had, and words do not run together."""
        start, end, whole = self.source.start(node), self.source.end(node), self.source.text
        if text.startswith('"') and whole[start : start + 1] == "'" and "'" not in text:
            text = text.replace('"', "'")
        before = " " if whole[start - 1 : start].isalnum() and start else ""
        after = " " if whole[end : end + 1].isalnum() else ""
        return Edit(start=start, end=end, text=before + text + after)


class Rule(ABC, Generic[N]):
    """One construct. The class's name, in words, is its id; its docstring the reason."""

    nodes: tuple[type[ast.AST], ...] = ()
    """Which nodes it is asked about."""
    kind: Kind = Kind.AUTOMATIC
    question: str = ""
    hours: float = 0.02
    """Of a person, for one finding: for an automatic one, to read the change."""

    @classmethod
    def id(cls) -> str:
        """Its name in reports, such as `cuda-synchronize`."""
        return re.sub(r"(?<=[a-z0-9])(?=[A-Z])|(?<=[A-Z])(?=[A-Z][a-z])", "-", cls.__name__).lower()

    @classmethod
    def reason(cls) -> str:
        """Why it matters."""
        return " ".join((cls.__doc__ or "").split())

    @abstractmethod
    def find(self, node: N, site: Site) -> Finding | None:
        """The finding at a node, or None."""

    def finding(  # noqa: PLR0913 - a finding has that many sides
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
        """A finding of this rule at a node."""
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


_ASKS = (Kind.ASSISTED, Kind.MANUAL)


class Api(Rule[ast.AST]):
    """Names of torch.cuda that another module has under a name of its own."""

    nodes = (ast.Attribute, ast.Name, ast.ImportFrom)
    names: tuple[str, ...] = ()
    """Full names, such as torch.cuda.synchronize."""
    agnostic: str = ""
    """The name in the generated module; with a dot, a name of torch. Empty: none."""
    npu: str = ""
    """Full name for the target npu. Empty: none."""

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
        """What the name becomes."""
        if site.is_npu:
            return self.npu
        if "." in self.agnostic or not self.agnostic:
            return self.agnostic
        return f"{site.shim}.{self.agnostic}"

    @classmethod
    def forms(cls) -> tuple[tuple[Target, str], ...]:
        """What it becomes, for the report."""
        shim = cls.agnostic if "." in cls.agnostic else f"{SHIM}.{cls.agnostic}"
        found = [(Target.AGNOSTIC, shim)] if cls.agnostic else []
        return tuple(found + ([(Target.NPU, cls.npu)] if cls.npu else []))


def _is_inner(node: ast.AST, site: Site) -> bool:
    """Whether it is only the beginning of a longer dotted name."""
    return (
        isinstance(site.source.parent(node), ast.Attribute)
        and site.source.dotted(site.source.parents[node]) is not None
    )


def _is_imported_name(node: ast.AST, name: str) -> bool:
    """Whether it was imported by itself: then the import is rewritten, and its uses stay."""
    return isinstance(node, ast.Name) and name.count(".") > 1


def string(node: ast.AST | None) -> str | None:
    """The value of a string constant."""
    if isinstance(node, ast.Constant) and isinstance(node.value, str):
        return node.value
    return None


def keyword(call: ast.Call, name: str) -> ast.expr | None:
    """A keyword argument's value."""
    return next((word.value for word in call.keywords if word.arg == name), None)


def names_in(node: ast.AST) -> Iterator[str]:
    """All identifiers within."""
    for inner in ast.walk(node):
        if isinstance(inner, ast.Name):
            yield inner.id
        elif isinstance(inner, ast.Attribute):
            yield inner.attr
        elif isinstance(inner, ast.arg):
            yield inner.arg
