"""llama.cpp as an engine, through the xllamacpp wheel: GGUF models on CPUs and at the edge."""

from typing import ClassVar

from typing_extensions import override

from karez.core.devices import DeviceKind
from karez.core.engines import AdapterUse, Capabilities, Task
from karez.core.ports import Engine


class LlamaCpp(Engine):
    """Runs the llama.cpp server of the xllamacpp wheel."""

    name: ClassVar[str] = "llamacpp"
    capabilities: ClassVar[Capabilities] = Capabilities(
        formats=("gguf",),
        kinds=(DeviceKind.CPU,),
        tasks=(Task.GENERATE, Task.EMBED, Task.RERANK),
        modules=("xllamacpp",),
        adapters=AdapterUse.NUMBER,
        adapter_formats=("gguf-lora",),
        has_schemas=True,
        program_bytes=80 << 20,
        speed=0.43,
    )
    ready_path: ClassVar[str] = "/health"

    @override
    def command(self) -> tuple[str, ...]:
        return ("karez.engines.llamacpp_process:main",)
