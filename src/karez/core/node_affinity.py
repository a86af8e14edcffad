"""Node affinity: the nodes on which workers may run, or may not."""

from dataclasses import dataclass
from typing import Any, ClassVar

from karez.core.validation import FORBID


@dataclass(frozen=True, slots=True, kw_only=True)
class NodeAffinity:
    """Nodes that are acceptable, each entry a node's name or `label=value`."""

    __pydantic_config__: ClassVar[Any] = FORBID

    on: tuple[str, ...] = ()
    """Nodes of which one must match; empty: any node."""
    off: tuple[str, ...] = ()
    """Nodes of which none may match."""
    having: tuple[str, ...] = ()
    """Labels that a node must have, each of them, whatever their values."""

    def __post_init__(self) -> None:
        both = sorted(set(self.on) & set(self.off))
        if both:
            raise ValueError(f"{both[0]!r} is in both `on` and `off`: no node will do")
        if not all((*self.on, *self.off)):
            raise ValueError("name a node, or a label as label=value, in `on` and `off`")

    def show(self) -> str:
        """Describe the affinity for people."""
        words = [f"on {' or '.join(self.on)}"] if self.on else []
        words += [f"not on {' or '.join(self.off)}"] if self.off else []
        return " and ".join([*words, *(f"with {label}" for label in self.having)])


ANYWHERE = NodeAffinity()
