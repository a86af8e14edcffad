"""What the clients raise: `from karez.errors import NotFound`."""

from karez.core.errors import (
    AlreadyExists,
    AlreadyRunning,
    BadRequest,
    BrokenArtifact,
    Failed,
    KarezError,
    MissingPart,
    NotAllowed,
    NotFound,
    NotSignedIn,
    PortTaken,
    QuotaExceeded,
    Remote,
    StartFailed,
    StorageFull,
    Unreachable,
)

__all__ = [
    "AlreadyExists",
    "AlreadyRunning",
    "BadRequest",
    "BrokenArtifact",
    "Failed",
    "KarezError",
    "MissingPart",
    "NotAllowed",
    "NotFound",
    "NotSignedIn",
    "PortTaken",
    "QuotaExceeded",
    "Remote",
    "StartFailed",
    "StorageFull",
    "Unreachable",
]
