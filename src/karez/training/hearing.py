"""What nodes report, in the protocol's words. Pure."""

from collections.abc import Iterable, Mapping
from typing import Any

from karez.core.ports import Event, ProcessInfo
from karez.core.resources import Grant, NodeId
from karez.training import gang as words
from karez.training.launch import parse_key
from karez.training.limits import Limits

Found = Mapping[int, tuple[int, ProcessInfo]]
"""seat -> (life, process) of the newest process of each seat."""


def translate(event: Event, seat: int, life: int) -> words.Event | None:
    """The protocol's event for a node's event; None for what is no business of the protocol."""
    data: Mapping[str, Any] = event.data
    generation = int(data.get("generation", 0))
    match event.type:
        case "started":
            return words.Started(rank=seat, life=life)
        case "stood":
            steps = {int(step): str(source) for step, source in data["steps"].items()}
            sharded, told = bool(data.get("sharded")), data.get("found")
            return words.Stood(
                rank=seat, life=life, generation=generation, steps=steps, sharded=sharded,
                born=_by_step(data.get("born", {})),
                found=None if told is None else {int(n): _by_step(s) for n, s in told.items()},
            )  # fmt: skip
        case "resumed":
            rigid = bool(data.get("rigid"))
            return words.Resumed(rank=seat, generation=generation, rigid=rigid)
        case "commit":
            return words.Committed(rank=seat, generation=generation, step=int(data["step"]))
        case "stumbled":
            return words.Stumbled(rank=seat, generation=generation, error=str(data["error"]))
        case "poisoned":
            return words.Poisoned(
                rank=seat,
                generation=generation,
                step=int(data["step"]),
                batch=int(data["batch"]),
                error=str(data["error"]),
                replays=int(data["replays"]),
            )
        case "corrupt":
            odd = tuple(int(rank) for rank in data["ranks"])
            return words.Corrupt(generation=generation, step=int(data["step"]), ranks=odd)
        case "done":
            return words.Finished(rank=seat, life=life, generation=generation)
        case "exit":
            code, error = int(data["code"]), str(data["error"])
            return words.Exited(rank=seat, life=life, code=code, error=error)
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


def newest(processes: Iterable[ProcessInfo]) -> Found:
    """The newest process of each seat."""
    found: dict[int, tuple[int, ProcessInfo]] = {}
    for info in processes:
        named = parse_key(info.key)
        if named and (named[0] not in found or found[named[0]][0] < named[1]):
            found[named[0]] = (named[1], info)
    return found


def gang_from(
    grants: Mapping[int, Grant],
    found: Found,
    *,
    generation: int,
    limits: Limits,
    now: float,
    used: Iterable[int] = (),
) -> words.Gang:
    """The gang as its processes last described themselves.

    Numbers in `used` are those of ranks that have left: none is given again.
    """
    known = {seat: _rank(grant, *found.get(seat, (1, None))) for seat, grant in grants.items()}
    given_up = words.Rank(node=NodeId(""), retired=True)
    ranks = tuple(known.get(seat, given_up) for seat in range(max([*known, *used], default=-1) + 1))
    return words.Gang(
        ranks=ranks,
        generation=max([generation, 1, *(_generation(info) for _, info in found.values())]),
        since=now,
        limits=limits,
        is_session=any("stood" in info.said for _, info in found.values()),
        is_sharded=any(info.said.get("stood", {}).get("sharded") for _, info in found.values()),
        is_rigid=any(info.said.get("resumed", {}).get("rigid") for _, info in found.values()),
    )


def work_together(gang: words.Gang, found: Found) -> bool:
    """Whether every rank has said that it is in the gang's generation."""
    return all(
        info.said.get("resumed", {}).get("generation") == gang.generation
        for _, info in found.values()
    )


def _by_step(told: Mapping[str, Any]) -> dict[int, int]:
    return {int(step): int(generation) for step, generation in told.items()}


def _rank(grant: Grant, life: int, info: ProcessInfo | None) -> words.Rank:
    if info is None:
        return words.Rank(node=grant.node, life=life)
    said = info.said
    committed = int(said.get("commit", {}).get("step", said.get("resumed", {}).get("step", 0)))
    return words.Rank(
        node=grant.node,
        life=life,
        alive=info.alive,
        settled="stood" in said,
        committed=committed,
    )


def _generation(info: ProcessInfo) -> int:
    return max([int(heard.get("generation", 0)) for heard in info.said.values()], default=0)
