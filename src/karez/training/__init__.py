"""Jobs that do not stop: the recovery protocol, the foreman that carries it out, and the session.

`from karez import training; training.session()` is what user code sees (training.worker.session).
This room decides how a gang heals; it never places one (scheduling) nor starts a process itself
(drivers, through core.ports.Fabric).
"""

from typing import Any


def __getattr__(name: str) -> Any:
    """`training.session`, imported only where torch is."""
    if name in ("session", "Run"):
        from karez.runtime import session  # noqa: PLC0415 - needs torch

        return getattr(session, name)
    raise AttributeError(name)
