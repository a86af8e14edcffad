"""Parses the events of nodes into events of the recovery protocol. Pure."""

from collections.abc import Iterable, Mapping
from typing import Any

from karez.core.grants import Grant
from karez.core.nodes import NodeId
from karez.core.processes import Event, ProcessInfo
from karez.training.controller.process_specs import parse_key
from karez.training.recovery.events import (
    BadLoss,
    CollectiveFailed,
    Committed,
    Exited,
    Finished,
    ReadyToRestore,
    RecoveryEvent,
    ReplicaMismatch,
    Resumed,
    Started,
)
from karez.training.recovery.limits import Limits
from karez.training.recovery.state import Gang, Rank

NewestProcesses = Mapping[int, tuple[int, ProcessInfo]]
"""Rank -> (attempt, process) of its newest process."""


def parse_event(event: Event, index: int, attempt: int) -> RecoveryEvent | None:
    """The protocol's event for a node's event; None: the event does not concern the protocol."""
    match event.type:
        case "started" | "stood" | "done" | "exit":
            return _process_event(event, index, attempt)
        case "resumed" | "commit" | "stumbled":
            return _step_event(event, index)
        case "poisoned" | "corrupt":
            return _health_event(event, index)
        case _:
            return None


def _process_event(event: Event, index: int, attempt: int) -> RecoveryEvent:
    data: Mapping[str, Any] = event.data
    match event.type:
        case "started":
            return Started(rank=index, attempt=attempt)
        case "stood":
            return _ready_to_restore(data, index, attempt)
        case "done":
            return Finished(rank=index, attempt=attempt, generation=_generation_of(data))
        case _:
            code, error = int(data["code"]), str(data["error"])
            return Exited(rank=index, attempt=attempt, code=code, error=error)


def _ready_to_restore(data: Mapping[str, Any], index: int, attempt: int) -> ReadyToRestore:
    shards = data.get("found")
    return ReadyToRestore(
        rank=index,
        attempt=attempt,
        generation=_generation_of(data),
        steps={int(step): str(source) for step, source in data["steps"].items()},
        sharded=bool(data.get("sharded")),
        created_generation=_by_step(data.get("born", {})),
        snapshot_every=int(data.get("every", 1)),
        shards_found=None
        if shards is None
        else {int(n): _by_step(by_step) for n, by_step in shards.items()},
    )


def _step_event(event: Event, index: int) -> RecoveryEvent:
    data: Mapping[str, Any] = event.data
    generation = _generation_of(data)
    match event.type:
        case "resumed":
            rigid = bool(data.get("rigid"))
            return Resumed(rank=index, generation=generation, rigid=rigid)
        case "commit":
            return Committed(rank=index, generation=generation, step=int(data["step"]))
        case _:
            return CollectiveFailed(rank=index, generation=generation, error=str(data["error"]))


def _health_event(event: Event, index: int) -> RecoveryEvent:
    data: Mapping[str, Any] = event.data
    generation, step = _generation_of(data), int(data["step"])
    if event.type == "corrupt":
        minority = tuple(int(rank) for rank in data["ranks"])
        return ReplicaMismatch(generation=generation, step=step, ranks=minority)
    return BadLoss(
        rank=index,
        generation=generation,
        step=step,
        batch=int(data["batch"]),
        error=str(data["error"]),
        replays=int(data["replays"]),
    )


def _generation_of(data: Mapping[str, Any]) -> int:
    return int(data.get("generation", 0))


def view_changes(event: Event) -> dict[str, Any]:
    """Fields of its rank's RankView that an event changes."""
    match event.type:
        case "started":
            return {"pid": int(event.data["pid"]), "state": "starting"}
        case "resumed" | "commit":
            return {"state": "running", "step": int(event.data["step"])}
        case "stood":
            return {"state": "standing"}
        case "done":
            return {"state": "done"}
        case "exit":
            return {"state": "ended"}
        case _:
            return {}


def newest_by_rank(processes: Iterable[ProcessInfo]) -> NewestProcesses:
    """The newest process of each rank."""
    newest: dict[int, tuple[int, ProcessInfo]] = {}
    for info in processes:
        key = parse_key(info.key)
        if key and (key[0] not in newest or newest[key[0]][0] < key[1]):
            newest[key[0]] = (key[1], info)
    return newest


def gang_from(
    grants: Mapping[int, Grant],
    processes: NewestProcesses,
    *,
    generation: int,
    limits: Limits,
    now: float,
    used: Iterable[int] = (),
) -> Gang:
    """The gang as its processes last described themselves.

    Numbers in `used` belong to ranks that have left: none is used again.
    """
    present = {n: _rank(grant, *processes.get(n, (1, None))) for n, grant in grants.items()}
    departed = Rank(node=NodeId(""), retired=True)
    numbers = range(max([*present, *used], default=-1) + 1)
    infos = [info for _, info in processes.values()]
    return Gang(
        ranks=tuple(present.get(number, departed) for number in numbers),
        generation=max([generation, 1, *(_generation(info) for info in infos)]),
        since=now,
        limits=limits,
        is_session=any("stood" in info.last_messages for info in infos),
        is_sharded=any(info.last_messages.get("stood", {}).get("sharded") for info in infos),
        is_rigid=any(info.last_messages.get("resumed", {}).get("rigid") for info in infos),
    )


def in_same_generation(gang: Gang, processes: NewestProcesses) -> bool:
    """Whether every rank has resumed in the gang's generation."""
    return all(
        info.last_messages.get("resumed", {}).get("generation") == gang.generation
        for _, info in processes.values()
    )


def _by_step(generations: Mapping[str, Any]) -> dict[int, int]:
    return {int(step): int(generation) for step, generation in generations.items()}


def _rank(grant: Grant, attempt: int, info: ProcessInfo | None) -> Rank:
    if info is None:
        return Rank(node=grant.node, attempt=attempt)
    messages = info.last_messages
    resumed_at = messages.get("resumed", {}).get("step", 0)
    return Rank(
        node=grant.node,
        attempt=attempt,
        alive=info.alive,
        started_once="stood" in messages,
        committed=int(messages.get("commit", {}).get("step", resumed_at)),
    )


def _generation(info: ProcessInfo) -> int:
    return max([_generation_of(message) for message in info.last_messages.values()], default=0)
