"""A file under a target, as rules see the file: its source, and the nodes that are claimed."""

import ast
from dataclasses import dataclass, field

from karez.migration.findings import Edit, Target
from karez.migration.source import Source

SHIM = "_device"


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
