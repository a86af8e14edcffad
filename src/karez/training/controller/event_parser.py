"""What nodes report, in the protocol's words. Pure."""

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
"""seat -> (life, process) of the newest process of each seat."""


def parse_event(event: Event, index: int, attempt: int) -> RecoveryEvent | None:
    """The protocol's event for a node's event; None for what is no business of the protocol."""
    data: Mapping[str, Any] = event.data
    generation = int(data.get("generation", 0))
    match event.type:
        case "started":
            return Started(rank=index, attempt=attempt)
        case "stood":
            steps = {int(step): str(source) for step, source in data["steps"].items()}
            sharded, told = bool(data.get("sharded")), data.get("found")
            return ReadyToRestore(
                rank=index,
                attempt=attempt,
                generation=generation,
                steps=steps,
                sharded=sharded,
                created_generation=_by_step(data.get("born", {})),
                shards_found=None
                if told is None
                else {int(n): _by_step(s) for n, s in told.items()},
            )
        case "resumed":
            rigid = bool(data.get("rigid"))
            return Resumed(rank=index, generation=generation, rigid=rigid)
        case "commit":
            return Committed(rank=index, generation=generation, step=int(data["step"]))
        case "stumbled":
            return CollectiveFailed(rank=index, generation=generation, error=str(data["error"]))
        case "poisoned":
            return BadLoss(
                rank=index,
                generation=generation,
                step=int(data["step"]),
                batch=int(data["batch"]),
                error=str(data["error"]),
                replays=int(data["replays"]),
            )
        case "corrupt":
            odd = tuple(int(rank) for rank in data["ranks"])
            return ReplicaMismatch(generation=generation, step=int(data["step"]), ranks=odd)
        case "done":
            return Finished(rank=index, attempt=attempt, generation=generation)
        case "exit":
            code, error = int(data["code"]), str(data["error"])
            return Exited(rank=index, attempt=attempt, code=code, error=error)
        case _:
            return None


def view_changes(event: Event) -> dict[str, Any]:
    """What an event changes in how its rank is shown."""
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
    """The newest process of each seat."""
    found: dict[int, tuple[int, ProcessInfo]] = {}
    for info in processes:
        named = parse_key(info.key)
        if named and (named[0] not in found or found[named[0]][0] < named[1]):
            found[named[0]] = (named[1], info)
    return found


def gang_from(
    grants: Mapping[int, Grant],
    found: NewestProcesses,
    *,
    generation: int,
    limits: Limits,
    now: float,
    used: Iterable[int] = (),
) -> Gang:
    """The gang as its processes last described themselves.

    Numbers in `used` are those of ranks that have left: none is given again.
    """
    known = {index: _rank(grant, *found.get(index, (1, None))) for index, grant in grants.items()}
    given_up = Rank(node=NodeId(""), retired=True)
    ranks = tuple(
        known.get(index, given_up) for index in range(max([*known, *used], default=-1) + 1)
    )
    return Gang(
        ranks=ranks,
        generation=max([generation, 1, *(_generation(info) for _, info in found.values())]),
        since=now,
        limits=limits,
        is_session=any("stood" in info.last_messages for _, info in found.values()),
        is_sharded=any(
            info.last_messages.get("stood", {}).get("sharded") for _, info in found.values()
        ),
        is_rigid=any(
            info.last_messages.get("resumed", {}).get("rigid") for _, info in found.values()
        ),
    )


def in_same_generation(gang: Gang, found: NewestProcesses) -> bool:
    """Whether every rank has said that it is in the gang's generation."""
    return all(
        info.last_messages.get("resumed", {}).get("generation") == gang.generation
        for _, info in found.values()
    )


def _by_step(told: Mapping[str, Any]) -> dict[int, int]:
    return {int(step): int(generation) for step, generation in told.items()}


def _rank(grant: Grant, attempt: int, info: ProcessInfo | None) -> Rank:
    if info is None:
        return Rank(node=grant.node, attempt=attempt)
    said = info.last_messages
    committed = int(said.get("commit", {}).get("step", said.get("resumed", {}).get("step", 0)))
    return Rank(
        node=grant.node,
        attempt=attempt,
        alive=info.alive,
        started_once="stood" in said,
        committed=committed,
    )


def _generation(info: ProcessInfo) -> int:
    return max(
        [int(heard.get("generation", 0)) for heard in info.last_messages.values()], default=0
    )
