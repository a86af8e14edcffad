"""karez: an AI compute cloud that its owner runs.

`Client` and `AsyncClient` speak to a cloud; `JobSpec`, `ServiceSpec`, `gang` and the enums describe
work; `errors` has what they raise. Each is imported on first use: `import karez` is cheap.
"""

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from karez import errors
    from karez.client.sdk import AsyncClient, Client
    from karez.core.artifacts import ArtifactKind
    from karez.core.gang_syntax import make_gang as gang
    from karez.core.jobs import JobSpec
    from karez.core.services import ServiceSpec
    from karez.core.workloads import State, WorkloadKind

    __version__: str

__all__ = [
    "ArtifactKind",
    "AsyncClient",
    "Client",
    "JobSpec",
    "ServiceSpec",
    "State",
    "WorkloadKind",
    "__version__",
    "errors",
    "gang",
]

if not TYPE_CHECKING:  # a type checker would take any name for one of these

    def __getattr__(name: str) -> object:
        """Import an exported name on its first use."""
        from importlib import import_module, metadata  # noqa: PLC0415 - importing karez stays cheap

        if name == "__version__":
            return metadata.version("karez")
        if name == "errors":
            return import_module("karez.errors")
        module, attribute = {
            "ArtifactKind": ("karez.core.artifacts", "ArtifactKind"),
            "AsyncClient": ("karez.client.sdk", "AsyncClient"),
            "Client": ("karez.client.sdk", "Client"),
            "JobSpec": ("karez.core.jobs", "JobSpec"),
            "ServiceSpec": ("karez.core.services", "ServiceSpec"),
            "State": ("karez.core.workloads", "State"),
            "WorkloadKind": ("karez.core.workloads", "WorkloadKind"),
            "gang": ("karez.core.gang_syntax", "make_gang"),
        }.get(name, ("", ""))
        if not module:
            raise AttributeError(f"module 'karez' has no attribute {name!r}")
        return getattr(import_module(module), attribute)

    def __dir__() -> list[str]:
        """What is exported, imported or not."""
        return sorted({*globals(), *__all__})
