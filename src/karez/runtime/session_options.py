"""What user code may choose for its session."""

from dataclasses import dataclass


@dataclass(frozen=True, slots=True, kw_only=True)
class SessionOptions:
    """Options of a session; `karez.runtime.session.session` documents them."""

    seed: int
    replays: int
    spike: float
    snapshot_every: int
