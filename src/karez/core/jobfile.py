"""Parser of job files (TOML)."""

import tomllib
from collections.abc import Mapping
from typing import Any

from karez.core.dependencies import parse_dependency
from karez.core.gangs import GangRole, GangSpec, Topology
from karez.core.jobs import JobSpec, Retry
from karez.core.node_affinity import NodeAffinity
from karez.core.resource_requests import ResourceRequest
from karez.core.resource_syntax import parse_resource_request, resource_request_from
from karez.core.units import parse_seconds
from karez.core.workloads import EndReason, WorkloadKind

_TOP = {
    "name",
    "project",
    "kind",
    "command",
    "gang",
    "recovery",
    "retry",
    "inputs",
    "env",
    "secrets",
    "priority",
    "max_duration",
    "expected_duration",
    "recipe",
    "preemptible",
    "deadline",
    "settings",
    "after",
    "array",
    "environment",
    "image",
    "calls_models",
}

_AS_THEY_ARE = (
    "name",
    "project",
    "recipe",
    "priority",
    "preemptible",
    "array",
    "environment",
    "image",
    "calls_models",
)
"""Keys whose values are fields of the job."""


def parse_job(text: str) -> JobSpec:
    """Parse a job from TOML text.

    Raises:
        ValueError: Invalid TOML, an unknown key, or an invalid value.
    """
    table = parse_toml(text)
    only(table, _TOP, "the file")
    if "name" not in table:
        raise ValueError('the file names no workload; start it with name = "..."')
    return job_of(table, "the file")


def job_of(table: Mapping[str, Any], where: str) -> JobSpec:
    """The job that a table describes; `where` it stands, for errors. Raises ValueError."""
    only(table, _TOP, where)
    fields: dict[str, Any] = {key: table[key] for key in _AS_THEY_ARE if key in table}
    fields |= _recovery(table_of(table, "recovery"))
    for name in ("max_duration", "expected_duration", "deadline"):
        if name in table:
            fields[f"{name}_s"] = parse_seconds(table[name])
    return JobSpec(
        **fields,
        kind=WorkloadKind(table.get("kind", "batch")),
        command=tuple(table.get("command", ())),
        settings=table_of(table, "settings"),
        gang=parse_gang(table_of(table, "gang")),
        retry=_retry(table_of(table, "retry")),
        inputs=table_of(table, "inputs"),
        env={key: str(value) for key, value in table_of(table, "env").items()},
        secrets=tuple(table.get("secrets", ())),
        after=tuple(map(parse_dependency, table.get("after", ()))),
    )


def parse_toml(text: str) -> dict[str, Any]:
    """Parse TOML text. Raises ValueError."""
    try:
        return tomllib.loads(text)
    except tomllib.TOMLDecodeError as error:
        raise ValueError(f"invalid TOML: {error}") from error


def _recovery(table: Mapping[str, Any]) -> dict[str, Any]:
    """Parse the `[recovery]` table: which rungs, in which order, how many copies, chaos or not."""
    only(table, {"ladder", "order", "peers", "chaos"}, "[recovery]")
    fields: dict[str, Any] = {}
    if "ladder" in table:
        fields["ladder"] = tuple(table["ladder"])
    order = table.get("order", "cost")
    if order not in ("cost", "given"):
        raise ValueError(f'order = {order!r} should be "cost" or "given"')
    fields["ladder_fixed"] = order == "given"
    if "peers" in table:
        fields["peers"] = int(table["peers"])
    return {**fields, "chaos": bool(table.get("chaos", False))}


def parse_gang(table: Mapping[str, Any]) -> GangSpec:
    """Parse the `[gang]` table. Raises ValueError as `parse_job`."""
    known = {"workers", "each", "topology", "on", "off", "spares", "roles"}
    only(table, known, "[gang]")
    roles = table.get("roles", ())
    if not isinstance(roles, list | tuple) or not all(isinstance(role, dict) for role in roles):
        raise ValueError("roles are written as [[gang.roles]] tables")
    low, want, most = _workers(table.get("workers", 1))
    return GangSpec(
        min=low,
        want=want,
        max=most,
        each=requests_of(table),
        topology=Topology(table.get("topology", "any")),
        among=_among(table),
        spares=int(table.get("spares", 0)),
        roles=tuple(_role(role) for role in roles),
    )


def _workers(workers: Any) -> tuple[int, int, int | None]:
    """(min, want, max)."""
    if isinstance(workers, int):
        return workers, workers, None
    if not isinstance(workers, dict):
        raise ValueError(f"workers = {workers!r} should be a number or {{ min = 1, want = 4 }}")
    given = only(workers, {"min", "want", "max"}, "workers")
    want = int(given.get("want", given.get("min", 1)))
    most = given.get("max")
    low = int(given.get("min", want))
    return low, want, None if most is None else int(most)


def _role(table: Mapping[str, Any]) -> GangRole:
    only(table, {"name", "workers", "each", "command", "on", "off"}, "[[gang.roles]]")
    if "name" not in table:
        raise ValueError("each of [[gang.roles]] needs a name")
    return GangRole(
        name=str(table["name"]),
        workers=int(table.get("workers", 1)),
        each=requests_of(table),
        command=tuple(table.get("command", ())),
        among=_among(table),
    )


def requests_of(table: Mapping[str, Any]) -> tuple[ResourceRequest, ...]:
    """Parse `each`: one request or alternatives, as tables or as text. Raises ValueError."""
    needs = table.get("each", ({"cpu": 1},))
    if isinstance(needs, dict | str):
        needs = (needs,)
    if not isinstance(needs, list | tuple) or not all(isinstance(n, dict | str) for n in needs):
        raise ValueError(f'each = {needs!r} should be such as "npu=1", or a list of alternatives')
    return tuple(
        resource_request_from(need) if isinstance(need, dict) else parse_resource_request(need)
        for need in needs
    )


def _among(table: Mapping[str, Any]) -> NodeAffinity:
    def names(key: str) -> tuple[str, ...]:
        value = table.get(key, ())
        return (value,) if isinstance(value, str) else tuple(str(name) for name in value)

    return NodeAffinity(on=names("on"), off=names("off"))


def _retry(table: Mapping[str, Any]) -> Retry:
    only(table, {"limit", "causes"}, "[retry]")
    if not table:
        return Retry()
    causes = tuple(EndReason(cause) for cause in table.get("causes", Retry().causes))
    return Retry(limit=int(table.get("limit", 1)), causes=causes)


def table_of(table: Mapping[str, Any], key: str) -> dict[str, Any]:
    """A table within a table; empty if it is missing. Raises ValueError if it is none."""
    value = table.get(key, {})
    if not isinstance(value, dict):
        raise ValueError(f"[{key}] should be a table, not {value!r}")
    return value


def only(table: Mapping[str, Any], known: set[str], where: str) -> Mapping[str, Any]:
    """The table, which has no keys but these. Raises ValueError."""
    unknown = sorted(set(table) - known)
    if unknown:
        raise ValueError(f"{where} has an unknown key {unknown[0]!r}; known: {sorted(known)}")
    return table
