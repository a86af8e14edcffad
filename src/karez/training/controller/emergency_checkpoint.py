"""The emergency checkpoint: surviving ranks of a failed gang store their state before they end."""

from collections.abc import Iterable

from karez.core.messages.orders import EmergencyCheckpointOrder
from karez.core.messages.reports import CheckpointReport, ExitReport
from karez.node_events.stream import NodeEventStream
from karez.training.controller.checkpoint_saver import CheckpointSaver
from karez.training.controller.gang_executor import GangExecutor
from karez.training.controller.process_specs import parse_key
from karez.training.recovery.state import Gang

LOOK_S = 0.05
"""Seconds between two looks for reports of ranks that store their state."""
EMERGENCY_CHECKPOINT_S = 10.0
"""How long ranks may take to store their state when their gang ends in failure."""


def take_emergency_checkpoint(
    gang: Gang,
    indices: Iterable[int],
    executor: GangExecutor,
    events: NodeEventStream,
    saver: CheckpointSaver,
) -> None:
    """Have these ranks store their state, and wait for a while until it is saved."""
    waiting, clock = set(indices), executor.deps.clock
    for index in waiting:
        executor.send(gang, index, EmergencyCheckpointOrder())
    deadline = clock.now() + EMERGENCY_CHECKPOINT_S
    while waiting and clock.now() < deadline:
        node_event = events.next()
        if node_event is None:
            clock.pause(LOOK_S)
        event = node_event[1] if node_event is not None else None
        key = None if event is None else parse_key(event.key)
        report = None if event is None else event.report()
        if key is not None and isinstance(report, CheckpointReport | ExitReport):
            if isinstance(report, CheckpointReport):
                saver.save(key[0], executor.allocation.workers[key[0]].node, report)
            waiting.discard(key[0])
    saver.wait(within_s=EMERGENCY_CHECKPOINT_S)
