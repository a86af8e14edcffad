"""OpenVINO GenAI as an engine: many answers at once on CPUs with wide vector instructions."""

from typing import ClassVar

from typing_extensions import override

from karez.core.devices import DeviceKind
from karez.core.engines import Capabilities, Task
from karez.core.ports import Engine


class OpenVino(Engine):
    """Runs karez's own server before OpenVINO's continuous batching."""

    name: ClassVar[str] = "openvino"
    capabilities: ClassVar[Capabilities] = Capabilities(
        formats=("openvino", "gguf"),
        architectures=("llama", "qwen2", "qwen3"),
        kinds=(DeviceKind.CPU,),
        tasks=(Task.GENERATE,),
        modules=("openvino_genai",),
        program_bytes=330 << 20,
        speed=1.0,
    )
    ready_path: ClassVar[str] = "/health"

    @override
    def command(self) -> tuple[str, ...]:
        return ("karez.engines.openvino_process:main",)
