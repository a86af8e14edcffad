"""How a gang starts, trains and recovers: a pure state machine. Events in, commands out.

A *generation* is one process group from its forming to its end. Every fault ends the generation:
the surviving ranks leave their collectives and report which steps they can restore, the lost ranks
are started again, and once every rank is ready, all continue from the newest step that all can
restore. A message of an older generation is ignored. No rank is special.
"""

from karez.training.recovery.commands import Decision
from karez.training.recovery.deadlines import on_tick
from karez.training.recovery.events import (
    BadLoss,
    CollectiveFailed,
    Committed,
    Exited,
    Finished,
    Hung,
    NodeEvicted,
    NodeGone,
    PlacesFound,
    ReadyToRestore,
    RecoveryEvent,
    ReplicaMismatch,
    Resized,
    Resumed,
    Shrunk,
    Started,
    Tick,
)
from karez.training.recovery.health_events import on_health_event
from karez.training.recovery.node_events import on_node_event
from karez.training.recovery.placement_events import on_placement_event
from karez.training.recovery.process_exits import on_exited
from karez.training.recovery.resuming import on_ready
from karez.training.recovery.state import Gang, Phase, RankPhase, with_phase
from karez.training.recovery.step_events import on_step_event


def advance(gang: Gang, event: RecoveryEvent, now: float) -> Decision:
    """The next state, and the commands. Events of other attempts or generations change nothing."""
    if gang.phase in (Phase.DONE, Phase.FAILED) or not _is_current(gang, event):
        return gang, ()
    return _react(gang, event, now)


def _react(gang: Gang, event: RecoveryEvent, now: float) -> Decision:
    match event:
        case Started() | ReadyToRestore() | Exited():
            return _on_process_event(gang, event, now)
        case Resumed() | Committed() | CollectiveFailed() | Finished():
            return on_step_event(gang, event, now)
        case Hung() | BadLoss() | ReplicaMismatch():
            return on_health_event(gang, event, now)
        case NodeGone() | NodeEvicted():
            return on_node_event(gang, event, now)
        case PlacesFound() | Shrunk() | Resized():
            return on_placement_event(gang, event, now)
        case Tick():
            return on_tick(gang, now)


def _is_current(gang: Gang, event: RecoveryEvent) -> bool:
    """Whether an event is about a present process and the present generation."""
    match event:
        case Started() | ReadyToRestore() | Exited() | Finished():
            if not 0 <= event.rank < len(gang.ranks):
                return False
            rank = gang.ranks[event.rank]
            is_now = not isinstance(event, Finished) or event.generation == gang.generation
            return rank.attempt == event.attempt and not rank.has_left and is_now
        case Committed():
            return event.generation == gang.generation and event.rank < len(gang.ranks)
        case Resumed() | CollectiveFailed():
            return event.generation == gang.generation
        case _:
            return True


def _on_process_event(gang: Gang, event: Started | ReadyToRestore | Exited, now: float) -> Decision:
    match event:
        case Started(rank=number):
            is_new = gang.ranks[number].phase == RankPhase.ABSENT
            return with_phase(gang, number, RankPhase.STARTED) if is_new else gang, ()
        case ReadyToRestore():
            return on_ready(gang, event, now)
        case Exited():
            return on_exited(gang, event, now)
