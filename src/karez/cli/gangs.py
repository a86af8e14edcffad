"""A gang in the words of the command line: the same grammar as in a workload file."""

from typing import Annotated

import typer

from karez.core.resources import parse_need
from karez.core.workloads import Among, GangSpec, Role, Topology

OnNodes = Annotated[
    list[str] | None, typer.Option("--on", help="Only on this node or label=value; repeat.")
]
OffNodes = Annotated[
    list[str] | None, typer.Option("--off", help="Never on this node or label=value; repeat.")
]
Roles = Annotated[
    list[str] | None,
    typer.Option("--role", help="NAME:COUNT:cpu=4,memory=8GiB: more workers of another kind."),
]


def make_gang(
    workers: str,
    each: list[str] | None,
    topology: Topology = Topology.ANY,
    *,
    on: list[str] | None = None,
    off: list[str] | None = None,
    roles: list[str] | None = None,
    spares: int = 0,
) -> GangSpec:
    """A gang from the words of the command line. Raises ValueError."""
    numbers = workers.split(":")
    if len(numbers) > 3 or not all(number.isdigit() for number in numbers):
        raise ValueError(f"--workers {workers!r} should be a number, MIN:WANT or MIN:WANT:MAX")
    counts = [int(number) for number in numbers]
    return GangSpec(
        min=counts[0],
        want=counts[1] if len(counts) > 1 else counts[0],
        max=counts[2] if len(counts) > 2 else None,
        each=tuple(parse_need(text) for text in each or ("cpu=1",)),
        topology=topology,
        among=Among(on=tuple(on or ()), off=tuple(off or ())),
        roles=tuple(_role(text) for text in roles or ()),
        spares=spares,
    )


def _role(text: str) -> Role:
    name, colon, rest = text.partition(":")
    count, second, need = rest.partition(":")
    if not colon or not second or not count.isdigit():
        raise ValueError(f"--role {text!r} should read like loader:2:cpu=4,memory=8GiB")
    return Role(name=name, workers=int(count), each=(parse_need(need),))
