"""Copies the logs of a gang's processes from their nodes to the log store."""

from karez.core.nodes import NodeId
from karez.core.ports import NodeLost
from karez.core.workloads import WorkloadId
from karez.training.controller.controller_deps import ControllerDeps
from karez.training.controller.process_specs import rank_key
from karez.training.recovery.state import Gang

LOG_PIECE_BYTES = 1 << 20
"""Largest piece of a log that is read from a node at once."""


def copy_logs(deps: ControllerDeps, job: WorkloadId, gang: Gang, epoch: int) -> None:
    """Copy what ranks wrote since the last time, also of a process that has just ended."""
    for index, rank in gang.active:
        if not rank.node:
            continue
        for attempt in range(max(1, rank.attempt - 1), rank.attempt + 1):
            try:
                _copy_log(deps, job, rank.node, (index, epoch, attempt))
            except NodeLost:
                continue


def _copy_log(
    deps: ControllerDeps, job: WorkloadId, node: NodeId, process: tuple[int, int, int]
) -> None:
    index, epoch, attempt = process
    name, key = f"rank-{index}.{epoch}.{attempt}", rank_key(job, index, attempt)
    size = LOG_PIECE_BYTES
    while size == LOG_PIECE_BYTES:
        chunk = deps.fabric.read_log(node, key, deps.logs.size(job, name), LOG_PIECE_BYTES)
        size = len(chunk.data)
        if chunk.data:
            deps.logs.append(job, name, chunk)
