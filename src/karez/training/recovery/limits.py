"""How long what may take, and how often it may happen, before a gang is given up. Pure."""

from dataclasses import dataclass


@dataclass(frozen=True, slots=True, kw_only=True)
class Limits:
    """Deadlines and limits."""

    quiesce_s: float = 30.0
    start_s: float = 300.0
    """How long a process may take until it runs, and how long the others of a session wait for one
    that runs and does not stand; or twice as long as one took before, if that is more."""
    faults: int = 20
    suspect_s: float = 0.3
    """How long a broken collective waits for a better explanation, such as an exit."""
    leave_s: float = 5.0
    """How long ranks may take to leave before they are told again."""
    pin_s: float = 60.0
    """How long nobody looks for other places after there were none."""
    replays: int = 1
    """How often a step whose loss was bad is done again with its batch before it is left out."""
    skips: int = 3
    """How many batches in a row may be left out."""
