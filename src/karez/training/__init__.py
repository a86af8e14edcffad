"""Fault-tolerant training jobs: the recovery protocol and the job controller that carries it out.

`from karez import training; training.session()` is what user code sees (karez.runtime.session).
This room decides how a gang recovers; it never places a gang (scheduling) nor starts a process
itself (drivers, through core.ports.Fabric).
"""

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from karez.runtime.micro_batches import micro_batches as micro_batches
    from karez.runtime.run import Run as Run
    from karez.runtime.session import session as session

__all__ = ["Run", "micro_batches", "session"]

if not TYPE_CHECKING:  # else a type checker would accept any attribute name

    def __getattr__(name: str) -> object:
        """What user code calls, imported only where torch is."""
        if name not in __all__:
            raise AttributeError(f"module 'karez.training' has no attribute {name!r}")
        from karez.core.parts import missing_part  # noqa: PLC0415 - keeps `import karez.training` light

        try:
            from karez.runtime import micro_batches, session  # noqa: PLC0415 - need torch
        except ModuleNotFoundError as error:
            raise missing_part(error, f"training.{name}") or error from error

        return getattr(micro_batches if name == "micro_batches" else session, name)
