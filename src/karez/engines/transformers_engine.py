"""transformers as an engine: models as Hugging Face folders, on any device."""

from typing import ClassVar

from typing_extensions import override

from karez.core.devices import DeviceKind
from karez.core.engines import AdapterUse, Capabilities, Task
from karez.core.ports import Engine


class TransformersEngine(Engine):
    """Runs karez's own server before a model of transformers."""

    name: ClassVar[str] = "transformers"
    capabilities: ClassVar[Capabilities] = Capabilities(
        formats=("hf",),
        kinds=(DeviceKind.NPU, DeviceKind.GPU, DeviceKind.CPU),
        tasks=(Task.GENERATE, Task.EMBED, Task.RERANK, Task.CLASSIFY),
        modules=("torch", "transformers", "llguidance"),
        has_mask=True,
        adapters=AdapterUse.NAME,
        adapter_formats=("peft",),
        has_schemas=True,
        program_bytes=560 << 20,
        loaded_bytes={DeviceKind.CPU: 4, DeviceKind.NPU: 2, DeviceKind.GPU: 2},
        speed=0.28,
    )
    ready_path: ClassVar[str] = "/health"

    @override
    def command(self) -> tuple[str, ...]:
        return ("karez.engines.transformers_process:main",)
