"""Text syntax of gangs, shared by the command line and Python."""

from collections.abc import Sequence

from karez.core.gangs import GangRole, GangSpec, Topology
from karez.core.node_affinity import NodeAffinity
from karez.core.resource_syntax import parse_resource_request


def make_gang(  # noqa: PLR0913 - the words of a gang
    workers: str,
    each: Sequence[str] | None = None,
    topology: Topology = Topology.ANY,
    *,
    on: Sequence[str] | None = None,
    off: Sequence[str] | None = None,
    roles: Sequence[str] | None = None,
    spares: int = 0,
) -> GangSpec:
    """Build a gang from text: `make_gang("2:4:16", ["npu=1,cpu=8", "gpu=1,speed=0.8"], spares=1)`.

    Args:
        workers: A number, MIN:WANT or MIN:WANT:MAX.
        each: Alternatives of what one worker needs; cpu=1 by default.
        topology: Where workers are placed in relation to each other.
        on: Nodes, or `label=value`, of which one must match.
        off: Nodes, or `label=value`, of which none may match.
        roles: NAME:COUNT:NEED, such as `loader:2:cpu=4`.
        spares: Workers' grants held in reserve.

    Raises:
        ValueError: Invalid syntax, or values that contradict each other.
    """
    numbers = workers.split(":")
    if len(numbers) > 3 or not all(number.isdigit() for number in numbers):
        raise ValueError(f"workers {workers!r} should be a number, MIN:WANT or MIN:WANT:MAX")
    counts = [int(number) for number in numbers]
    return GangSpec(
        min=counts[0],
        want=counts[1] if len(counts) > 1 else counts[0],
        max=counts[2] if len(counts) > 2 else None,
        each=tuple(parse_resource_request(text) for text in each or ("cpu=1",)),
        topology=topology,
        among=NodeAffinity(on=tuple(on or ()), off=tuple(off or ())),
        roles=tuple(_role(text) for text in roles or ()),
        spares=spares,
    )


def _role(text: str) -> GangRole:
    name, colon, rest = text.partition(":")
    count, second, need = rest.partition(":")
    if not colon or not second or not count.isdigit():
        raise ValueError(f"role {text!r} should read like loader:2:cpu=4,memory=8GiB")
    return GangRole(name=name, workers=int(count), each=(parse_resource_request(need),))
