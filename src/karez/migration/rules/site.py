"""A file under a target, as rules see the file: its source, and the nodes that are claimed."""

import ast
from dataclasses import dataclass, field

from karez.migration.findings import Edit, Target
from karez.migration.repo_facts import RepoFacts
from karez.migration.source import Source

SHIM = "_device"


@dataclass(slots=True, kw_only=True)
class Site:
    """A file under a target, with the nodes that rules have claimed."""

    source: Source
    target: Target = Target.AGNOSTIC
    shim: str = SHIM
    """Name of the generated module in this file."""
    claimed: set[ast.AST] = field(default_factory=set)
    module: str = SHIM
    """Module from which this file imports names of the generated module."""
    fallback: str = ""
    """The same where the file is run by its path."""
    own: frozenset[str] = frozenset()
    """Top-level modules of the scanned repository."""
    own_is_cuda: bool = False
    """Whether this file defines an `is_cuda` of its own."""
    own_cuda: bool = False
    """Whether a class in this file defines a method `cuda` but no `to`."""

    facts: RepoFacts = field(default_factory=RepoFacts)

    @property
    def is_npu(self) -> bool:
        """Whether the target is torch.npu."""
        return self.target == Target.NPU

    def claim(self, *nodes: ast.AST) -> None:
        """Claim nodes, so that no other rule reports them."""
        self.claimed.update(nodes)

    def claim_all(self, node: ast.AST) -> None:
        """Claim a node and all nodes inside the node."""
        self.claimed.update(ast.walk(node))

    def kind(self) -> str:
        """Return the expression for the type of the current device."""
        return '"npu"' if self.is_npu else f"{self.shim}.type"

    def accelerator(self) -> str:
        """Return the expression to compare a device's type with; the value is never "cpu"."""
        return '"npu"' if self.is_npu else f"{self.shim}.accelerator"

    def torch(self, node: ast.AST) -> str:
        """Return the name by which a dotted name refers to torch."""
        while isinstance(node, ast.Attribute):
            node = node.value
        if isinstance(node, ast.Name) and self.source.dotted(node) == "torch":
            return node.id
        return "torch"

    def needs(self, *names: str) -> frozenset[str]:
        """Return what an edit needs: names of the generated module, or torch_npu."""
        return frozenset({"torch_npu"} if self.is_npu else names)

    def swap(self, node: ast.AST, text: str) -> Edit:
        """Build the edit that replaces a node; keeps the style of quotes and separates words."""
        start, end, code = self.source.start(node), self.source.end(node), self.source.text
        if text.startswith('"') and code[start : start + 1] == "'" and "'" not in text:
            text = text.replace('"', "'")
        before = " " if code[start - 1 : start].isalnum() and start else ""
        after = " " if code[end : end + 1].isalnum() else ""
        return Edit(start=start, end=end, text=before + text + after)
