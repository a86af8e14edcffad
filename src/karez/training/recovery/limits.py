"""Deadlines of the recovery protocol, and how often a gang may fail before its job ends. Pure."""

from dataclasses import dataclass


@dataclass(frozen=True, slots=True, kw_only=True)
class Limits:
    """Deadlines in seconds, and limits, of one gang."""

    quiesce_s: float = 30.0
    """How long a rank may take to leave its step when a generation ends."""
    start_s: float = 300.0
    """How long a process may take until it runs, and how long the other ranks of a session wait for
    a running process to become ready; twice the slowest start so far, if that is more."""
    prepare_s: float = 0.0
    """How much longer, as a node may have to make the job's environment first."""
    faults: int = 20
    """Recoveries in a row without a new step that end the job."""
    suspect_s: float = 0.3
    """How long the controller waits for the cause of a broken collective, such as an exit."""
    leave_s: float = 5.0
    """How long ranks may take to exit before the message is sent again."""
    pin_s: float = 60.0
    """How long no other nodes are searched after a search found none."""
    replays: int = 1
    """How often a step whose loss was bad is done again with its batch before it is left out."""
    skips: int = 3
    """How many batches in a row may be left out."""
