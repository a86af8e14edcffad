"""llama.cpp as an engine, through the xllamacpp wheel: GGUF models on CPUs and at the edge."""

from collections.abc import Mapping
from typing import ClassVar

from typing_extensions import override

from karez.core import environment
from karez.core.ports import Engine


class LlamaCpp(Engine):
    """Runs the llama.cpp server of the xllamacpp wheel."""

    name: ClassVar[str] = "llamacpp"
    formats: ClassVar[tuple[str, ...]] = ("gguf",)
    ready_path: ClassVar[str] = "/health"

    @override
    def command(self) -> tuple[str, ...]:
        return ("karez.drivers.engines.llamacpp_process:main",)

    @override
    def env(self, *, model_file: str, alias: str, tokens: int, parallel: int) -> Mapping[str, str]:
        return {
            environment.ENGINE_MODEL: model_file,
            environment.ENGINE_ALIAS: alias,
            environment.ENGINE_TOKENS: str(tokens),
            environment.ENGINE_PARALLEL: str(parallel),
        }
