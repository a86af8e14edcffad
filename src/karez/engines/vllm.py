"""vLLM as an engine: accelerators, and CPUs by its build for them."""

from typing import ClassVar

from typing_extensions import override

from karez.core.devices import DeviceKind
from karez.core.engines import AdapterUse, Capabilities, Task
from karez.core.ports import Engine


class Vllm(Engine):
    """Runs vLLM's own server, which an environment of the service brings."""

    name: ClassVar[str] = "vllm"
    capabilities: ClassVar[Capabilities] = Capabilities(
        formats=("hf",),
        kinds=(DeviceKind.GPU, DeviceKind.NPU, DeviceKind.CPU),
        tasks=(Task.GENERATE, Task.EMBED, Task.RERANK),
        modules=("vllm",),
        adapters=AdapterUse.NAME,
        adapter_formats=("peft",),
        has_schemas=True,
        forces_tools=True,
        program_bytes=2800 << 20,
        speed=0.68,
    )
    ready_path: ClassVar[str] = "/health"

    @override
    def command(self) -> tuple[str, ...]:
        return ("karez.engines.vllm_process:main",)
