"""llama.cpp as an engine, through the xllamacpp wheel: GGUF models on CPUs and at the edge."""

from collections.abc import Mapping
from typing import ClassVar

from karez.core import environment


class LlamaCpp:
    """See core.ports.Engine."""

    name: ClassVar[str] = "llamacpp"
    formats: ClassVar[tuple[str, ...]] = ("gguf",)
    ready_path: ClassVar[str] = "/health"

    def command(self) -> tuple[str, ...]:
        """See Engine."""
        return ("karez.drivers.engines.llamacpp_process:main",)

    def env(self, *, model_file: str, alias: str, tokens: int, parallel: int) -> Mapping[str, str]:
        """See Engine."""
        return {
            environment.ENGINE_MODEL: model_file,
            environment.ENGINE_ALIAS: alias,
            environment.ENGINE_TOKENS: str(tokens),
            environment.ENGINE_PARALLEL: str(parallel),
        }
