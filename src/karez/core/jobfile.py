"""A workload's TOML file, parsed once at the door."""

import tomllib
from collections.abc import Mapping
from typing import Any

from karez.core.resources import Need, need_from
from karez.core.units import parse_seconds
from karez.core.workloads import EndReason, GangSpec, JobSpec, Retry, Topology, WorkloadKind

_TOP = {
    "name", "project", "kind", "command", "gang", "recovery", "retry",
    "inputs", "env", "secrets", "priority", "max_duration", "expected_duration", "recipe",
    "preemptible",
    "settings",
}  # fmt: skip


def parse_job(text: str) -> JobSpec:
    """A job from TOML text.

    Raises:
        ValueError: No TOML, an unknown key, or a value that makes no sense.
    """
    try:
        table = tomllib.loads(text)
    except tomllib.TOMLDecodeError as error:
        raise ValueError(f"this is no TOML: {error}") from error
    _only(table, _TOP, "the file")
    if "name" not in table:
        raise ValueError('the file names no workload; start it with name = "..."')
    recovery = _only(_table(table, "recovery"), {"ladder"}, "[recovery]")
    fields: dict[str, Any] = {
        key: table[key]
        for key in ("name", "project", "recipe", "priority", "preemptible")
        if key in table
    }
    if "ladder" in recovery:
        fields["ladder"] = tuple(recovery["ladder"])
    if "max_duration" in table:
        fields["max_duration_s"] = parse_seconds(table["max_duration"])
    if "expected_duration" in table:
        fields["expected_duration_s"] = parse_seconds(table["expected_duration"])
    return JobSpec(
        **fields,
        kind=WorkloadKind(table.get("kind", "batch")),
        command=tuple(table.get("command", ())),
        settings=_table(table, "settings"),
        gang=parse_gang(_table(table, "gang")),
        retry=_retry(_table(table, "retry")),
        inputs=_table(table, "inputs"),
        env={key: str(value) for key, value in _table(table, "env").items()},
        secrets=tuple(table.get("secrets", ())),
    )


def parse_gang(table: Mapping[str, Any]) -> GangSpec:
    """The `[gang]` table. Raises ValueError as `parse_job`."""
    _only(table, {"workers", "each", "topology"}, "[gang]")
    workers = table.get("workers", 1)
    if isinstance(workers, int):
        workers = {"min": workers, "want": workers}
    _only(workers, {"min", "want"}, "workers")
    each: tuple[Need, ...] = tuple(need_from(need) for need in table.get("each", ({"cpu": 1},)))
    want = int(workers.get("want", workers.get("min", 1)))
    return GangSpec(
        min=int(workers.get("min", want)),
        want=want,
        each=each,
        topology=Topology(table.get("topology", "any")),
    )


def _retry(table: Mapping[str, Any]) -> Retry:
    _only(table, {"limit", "causes"}, "[retry]")
    if not table:
        return Retry()
    causes = tuple(EndReason(cause) for cause in table.get("causes", Retry().causes))
    return Retry(limit=int(table.get("limit", 1)), causes=causes)


def _table(table: Mapping[str, Any], key: str) -> dict[str, Any]:
    value = table.get(key, {})
    if not isinstance(value, dict):
        raise ValueError(f"[{key}] should be a table, not {value!r}")
    return value


def _only(table: Mapping[str, Any], known: set[str], where: str) -> Mapping[str, Any]:
    unknown = sorted(set(table) - known)
    if unknown:
        raise ValueError(f"{where} has an unknown key {unknown[0]!r}; known: {sorted(known)}")
    return table
