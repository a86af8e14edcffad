"""Probes of services: a question, and what its answer contains."""

from dataclasses import dataclass
from typing import Any, ClassVar

from karez.core.validation import FORBID

MAX_PROBE = 4096


@dataclass(frozen=True, slots=True, kw_only=True)
class Probe:
    """A question that a replica is asked before it gets requests, and what its answer contains."""

    __pydantic_config__: ClassVar[Any] = FORBID

    prompt: str
    expect: str

    def __post_init__(self) -> None:
        if not 0 < len(self.prompt) <= MAX_PROBE or not 0 < len(self.expect) <= MAX_PROBE:
            raise ValueError(f"a probe has a prompt and an answer of up to {MAX_PROBE} characters")
